"""Merging what processes claim of members is a join, and tombstones end."""

import itertools
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.kernel.error import MalformedError
from crdt_service.membership.table import (
    ALIVE,
    DEAD,
    DOWN_OUT_SECONDS,
    FORGET_SECONDS,
    LEFT,
    SUSPECT,
    Table,
    check_updates,
    state_of,
)
from crdt_service.wire.message import MemberUpdate

NOW = 10_000.0


def claim(node_id="a", incarnation=1, liveness=ALIVE, *, is_leaving=False, age_ms=0, **change):
    fields = {"replica": f"{node_id}~1", "address": "10.0.0.1:8001", "zone": "z", **change}
    return MemberUpdate(
        node_id, incarnation=incarnation, liveness=liveness, is_leaving=is_leaving, age_ms=age_ms, **fields
    )


claims = st.builds(
    lambda liveness, age_ms, **fields: claim(liveness=liveness, age_ms=age_ms if liveness >= DEAD else 0, **fields),
    node_id=st.sampled_from("abc"),
    incarnation=st.integers(0, 3),
    liveness=st.integers(ALIVE, LEFT),
    is_leaving=st.booleans(),
    age_ms=st.integers(0, int(FORGET_SECONDS * 1000) - 1),
    address=st.sampled_from(["10.0.0.1:8001", "10.0.0.2:8001"]),
    zone=st.sampled_from("xy"),
)
lists = st.lists(claims, max_size=8)


def table_of(*parts):
    table = Table()
    for update in itertools.chain(*parts):
        table.merge(update, NOW)
    return table


def facts(table):
    return sorted(table.export_all(NOW), key=lambda update: update.node_id), table.digest, table.live_count


@given(lists, lists)
def test_tables_join_in_any_order(a, b):
    assert facts(table_of(a, b)) == facts(table_of(b, a))


@given(lists, lists, lists)
def test_tables_join_in_any_grouping(a, b, c):
    ab, bc = table_of(a, b).export_all(NOW), table_of(b, c).export_all(NOW)
    assert facts(table_of(ab, c)) == facts(table_of(a, bc))


@given(lists)
def test_a_table_joined_with_itself_is_itself_and_no_news(a):
    table = table_of(a)
    before = facts(table)
    assert [False] * len(before[0]) == [table.merge(update, NOW) for update in table.export_all(NOW)]
    assert before == facts(table)


@given(lists, lists)
def test_a_joined_table_is_at_least_each_part(a, b):
    joined = table_of(a, b)
    assert not any(joined.merge(update, NOW) for update in [*a, *b])


@given(lists)
def test_counts_and_digest_are_those_of_what_is_held(a):
    table = table_of(a)
    live = [update for update in table.updates.values() if update.liveness < DEAD]
    assert (len(live), table_of(live).digest) == (table.live_count, table.digest)


def test_a_higher_incarnation_wins_and_within_one_the_more_final_claim():
    ordered = [
        *(claim(incarnation=1, liveness=liveness) for liveness in (ALIVE, SUSPECT, DEAD, LEFT)),
        *(claim(incarnation=2, liveness=liveness, is_leaving=True) for liveness in (ALIVE, SUSPECT, DEAD, LEFT)),
        claim(incarnation=3),
    ]
    for lower, higher in itertools.combinations(ordered, 2):
        assert higher == table_of([higher, lower]).updates["a"]
    states = ["alive", "suspect", "dead", "left", "leaving", "suspect", "dead", "left", "alive"]
    assert states == [state_of(update) for update in ordered]


def test_data_stays_on_a_dead_node_for_a_while_and_not_on_one_that_leaves():
    table = table_of(
        [
            claim("alive", zone="x"),
            claim("suspect", liveness=SUSPECT, zone="y"),
            claim("dead", liveness=DEAD, zone="z"),
            claim("long-dead", liveness=DEAD, age_ms=int(DOWN_OUT_SECONDS * 1000)),
            claim("leaving", is_leaving=True),
            claim("dead-on-leave", liveness=DEAD, is_leaving=True),
            claim("left", liveness=LEFT),
        ]
    )
    assert {"alive": "x", "dead": "z", "suspect": "y"} == table.placement_members(NOW)
    assert NOW + DOWN_OUT_SECONDS == table.next_change(NOW)
    assert {"alive": "x", "suspect": "y"} == table.placement_members(NOW + DOWN_OUT_SECONDS)


def test_tombstones_end_everywhere_though_some_heard_of_them_late():
    first, late = Table(), Table()
    first.merge(claim(liveness=DEAD), NOW)
    half = NOW + FORGET_SECONDS / 2
    [update] = first.export_all(half)
    late.merge(update, half)
    assert FORGET_SECONDS * 500 == update.age_ms
    end = NOW + FORGET_SECONDS
    assert [] == late.forget(end - 1)
    still = late.export_all(end - 0.001)
    assert (["a"], ["a"]) == (first.forget(end), late.forget(end))
    # One that is under way meanwhile brings it back for no longer than it was under way.
    for update in still:
        first.merge(update, end + 1)
    assert [] == first.forget(end + 0.5)
    assert ["a"] == first.forget(end + 1.01)
    assert math.inf == first.next_change(end + 1.01)
    assert not first.merge(claim(liveness=DEAD, age_ms=int(FORGET_SECONDS * 1000)), NOW)
    assert {} == first.updates


def test_the_number_of_members_is_bounded():
    table = Table(members_max=2)
    assert [True, True, False] == [table.merge(claim(node_id), NOW) for node_id in "abc"]
    assert table.merge(claim("a", 2), NOW)
    assert ["a", "b"] == [member.id for member in table.members()]


@pytest.mark.parametrize(
    "change",
    [
        {"node_id": "No Label"},
        {"node_id": ""},
        {"replica": ""},
        {"replica": "ü"},
        {"zone": "a zone"},
        {"address": "nowhere"},
        {"address": "host:port"},
        {"address": "host:70000"},
        {"age_ms": 1},
    ],
)
def test_claims_that_nobody_honest_makes_are_refused(change):
    check_updates([claim(), claim(address=""), claim(liveness=DEAD, age_ms=1)])
    with pytest.raises(MalformedError):
        check_updates([claim(), msgspec.structs.replace(claim(), **change)])
