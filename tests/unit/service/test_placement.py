"""Owners of slots: the same everywhere, spread over zones, and moved as little as can be."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_service.kernel.slot import SLOTS, slot_of
from crdt_service.membership.placement import Placement

ids = st.text("abc123-", min_size=1, max_size=6)
clusters = st.dictionaries(ids, st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=8)
factors = st.integers(1, 5)


def nodes(count, zones=1):
    return {f"jarvis-crdt-{number}": f"zone-{number % zones}" for number in range(count)}


def table(placement):
    return [placement.owners(slot) for slot in range(SLOTS)]


def test_keys_fall_into_all_slots():
    assert set(range(SLOTS)) == {slot_of(f"k{number}") for number in range(20_000)}


def test_another_process_places_alike():
    code = (
        "from crdt_service.membership.placement import Placement\n"
        "print(Placement({'b': 'y', 'a': 'x', 'c': 'x'}, 2)._owners[:64])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert str(Placement({"a": "x", "c": "x", "b": "y"}, 2)._owners[:64]) == told.strip()


@settings(max_examples=30, deadline=None)
@given(clusters, factors)
def test_each_slot_has_distinct_owners_in_as_many_zones_as_there_are(members, factor):
    placement = Placement(members, factor)
    owned = {node_id: set() for node_id in members}
    for slot in range(SLOTS):
        owners = placement.owners(slot)
        assert min(factor, len(members)) == len(owners) == len(set(owners))
        assert min(factor, len(set(members.values()))) == len({members[owner] for owner in owners})
        for owner in owners:
            owned[owner].add(slot)
    assert owned == {node_id: placement.owns(node_id) for node_id in members}
    assert {node_id: len(slots) for node_id, slots in owned.items()} == placement.count()


@settings(max_examples=60, deadline=None)
@given(clusters, factors, ids, st.sampled_from(["", "a", "b", "c", "d"]))
def test_only_a_new_node_gains_slots_and_no_slot_loses_two_owners(members, factor, new, zone):
    members.pop(new, None)
    before, after = Placement(members, factor), Placement({**members, new: zone}, factor)
    for old, now in zip(table(before), table(after), strict=True):
        assert set(now) <= {*old, new}
        assert len(set(old) - set(now)) <= 1


@pytest.mark.parametrize("count", [3, 10, 100])
def test_a_new_node_takes_its_share(count):
    members = nodes(count)
    share = 3 / (count + 1)
    gained = len(Placement({**members, "new": "zone-0"}, 3).owns("new")) / SLOTS
    assert abs(gained - share) < 4 * (share / SLOTS) ** 0.5


def test_the_only_node_of_a_zone_owns_everything_there():
    members = {**nodes(4), "alone": "elsewhere"}
    assert frozenset(range(SLOTS)) == Placement(members, 2).owns("alone")


@pytest.mark.parametrize("count", [10, 100])
def test_nodes_of_one_zone_carry_about_the_same(count):
    counts = Placement(nodes(count), 3).count().values()
    mean = 3 * SLOTS / count
    assert 3 * SLOTS == sum(counts)
    assert max(counts) < mean + 5 * mean**0.5
    assert min(counts) > mean - 5 * mean**0.5


def test_nobody_owns_anything_without_members():
    assert [()] * SLOTS == table(Placement({}, 3))
