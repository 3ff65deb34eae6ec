"""Numbered placements: which documents may follow which, and that their quorums meet."""

import itertools

import pytest

from crdt_service.kernel.slot import SLOTS
from crdt_service.membership import document as documents
from crdt_service.membership.ownership import follow_document
from crdt_service.wire.message import Concern, Seat

SLOTS_LOOKED_AT = range(0, SLOTS, 64)


def seat(number, life="a", zone=None):
    return Seat(f"node-{number}", f"node-{number}~{life}", f"zone-{number % 3}" if zone is None else zone)


def first(count, factor, node_count=None):
    return documents.first(
        [seat(number) for number in range(count)], factor, node_count or count, "node-0", is_new=True
    )


def changes(document):
    """Every kind of change that may follow an even document."""
    count = len(document.old.seats)
    yield documents.seat(document, [seat(0, "b")], "node-0")
    yield documents.seat(document, [seat(count), seat(count + 1)], "node-0")
    yield documents.resize(document, count - 1, document.old.factor, {}, "node-0")
    yield documents.resize(document, count, document.old.factor + 1, {}, "node-0")
    yield documents.resize(document, count, document.old.factor, {"node-0": "zone-9"}, "node-0")


def majorities(ownership, slot):
    """Every smallest set of owners that a majority of a slot is."""
    parts = [itertools.combinations(group.owners, group.needed(Concern.MAJORITY)) for group in ownership.groups(slot)]
    return [frozenset().union(*chosen) for chosen in itertools.product(*parts)]


@pytest.mark.parametrize(("count", "factor"), [(3, 3), (3, 2), (4, 3), (5, 2), (6, 5)])
def test_majorities_of_placements_that_follow_each_other_share_an_owner(count, factor):
    before = first(count, factor)
    for joint in changes(before):
        for after in (documents.end(joint, "node-0"), documents.abort(joint, "node-0")):
            for one, other in itertools.pairwise(map(follow_document, (before, joint, after))):
                for slot in SLOTS_LOOKED_AT:
                    assert all(
                        mine & theirs
                        for mine, theirs in itertools.product(majorities(one, slot), majorities(other, slot))
                    ), (joint.reason, slot)


@pytest.mark.parametrize(("count", "factor"), [(3, 3), (5, 3)])
def test_old_majorities_and_next_ones_alone_need_not_meet(count, factor):
    """So the joint placement between them is what makes them safe."""
    before = first(count, factor)
    after = documents.end(documents.seat(before, [seat(0, "b"), seat(1, "b")], "node-0"), "node-0")
    olds, news = follow_document(before), follow_document(after)
    assert any(
        not mine & theirs
        for slot in SLOTS_LOOKED_AT
        for mine, theirs in itertools.product(majorities(olds, slot), majorities(news, slot))
    )


def test_replacing_a_volume_moves_its_own_slots_and_no_others():
    before = first(5, 3)
    ownership = follow_document(documents.seat(before, [seat(2, "b")], "node-0"))
    assert ownership.moving() == follow_document(before).owns("node-2~a") == ownership.owned_after("node-2~b")
    assert frozenset() == ownership.owned_after("node-2~a")


def test_who_has_to_copy_what_is_counted_by_node():
    ownership = follow_document(documents.seat(first(3, 3), [seat(2, "b")], "node-0"))
    done = {"node-0~a": frozenset(range(SLOTS)), "node-2~b": frozenset(range(24))}
    assert {"node-1": SLOTS, "node-2": SLOTS - 24} == ownership.uncopied(lambda name: done.get(name, frozenset()))
    assert {} == follow_document(first(3, 3)).uncopied(lambda name: frozenset())


def test_a_larger_count_alone_moves_nothing():
    joint = documents.resize(first(3, 3), 5, 3, {}, "node-0")
    assert (5, frozenset()) == (joint.next.node_count, follow_document(joint).moving())
    assert documents.resize(first(3, 3), 3, 3, {}, "node-0") is None
