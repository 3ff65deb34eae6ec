"""Which documents there are, which may follow which, and what a node knows once it has taken one up."""

import pytest
from msgspec.structs import replace

from crdt_service.kernel.error import MalformedError
from crdt_service.membership import document as documents
from crdt_service.membership.document import check_document, is_below, is_joint, number_of, replicas_of, take_up
from crdt_service.membership.ownership import ALL, follow_document
from crdt_service.wire.message import PlacementState
from tests.unit.service.test_ownership import changes, first, seat

EVEN = first(3, 3)
JOINT = documents.seat(EVEN, [seat(0, "b")], "node-0")
UPGRADE = documents.first([seat(number) for number in range(3)], 2, 3, "node-0", is_new=False)
LOSS = documents.accept_loss(EVEN, ["node-2~a"], is_forced=False)


def test_a_change_is_odd_and_joins_the_set_before_with_another():
    for joint in changes(EVEN):
        check_document(joint)
        assert is_joint(joint)
        assert (EVEN.epoch + 1, EVEN.old) == (joint.epoch, joint.old)
        assert joint.next != joint.old


def test_a_change_ends_in_its_next_set_or_is_given_up_for_its_old_one():
    end, abort = documents.end(JOINT, "node-1"), documents.abort(JOINT, "node-1")
    assert (JOINT.epoch + 1, JOINT.next, None) == (end.epoch, end.old, end.next)
    assert (JOINT.epoch + 1, JOINT.old, None) == (abort.epoch, abort.old, abort.next)
    for document in (end, abort):
        check_document(document)


def test_nothing_ends_but_a_change_under_way():
    with pytest.raises(MalformedError):
        documents.end(EVEN, "node-0")
    assert not documents.can_abort(EVEN)


@pytest.mark.parametrize("document", [UPGRADE, LOSS])
def test_what_copies_all_cannot_be_given_up(document):
    assert document.copies_all
    assert not documents.can_abort(document)


def test_a_new_cluster_begins_with_one_set_and_an_upgraded_one_with_a_copy_of_all():
    assert (2, None, False) == (EVEN.epoch, EVEN.next, EVEN.copies_all)
    assert (1, UPGRADE.old) == (UPGRADE.epoch, UPGRADE.next)
    assert ALL == follow_document(UPGRADE).moving()
    assert (tuple(sorted(replicas_of(UPGRADE.old))), 3) == follow_document(UPGRADE).sources(0)


def test_who_takes_a_seat_replaces_that_of_its_node_and_leaves_the_others():
    assert "replace" == JOINT.reason
    assert {"node-0~b", "node-1~a", "node-2~a"} == replicas_of(JOINT.next)
    assert "join" == documents.seat(first(2, 2, 3), [seat(2)], "node-2").reason


def test_a_resize_to_what_is_there_changes_nothing():
    assert documents.resize(EVEN, 3, 3, {}, "node-0") is None
    assert documents.resize(EVEN, 3, 3, {"node-0": "zone-0"}, "node-0") is None
    assert documents.resize(EVEN, 0, 3, {}, "node-0") is None


def test_an_accepted_loss_outnumbers_the_end_of_the_change_that_it_takes_the_place_of():
    over = documents.accept_loss(JOINT, ["node-1~a"], is_forced=False)
    assert JOINT.epoch + 2 == over.epoch
    assert {"node-0~a", "node-2~a"} == replicas_of(over.old)
    assert {"node-0~b", "node-2~a"} == replicas_of(over.next)
    assert ["node-1~a"] == over.lost == documents.end(over, "node-0").lost


def test_no_loss_is_accepted_that_leaves_no_seat():
    assert documents.accept_loss(EVEN, list(replicas_of(EVEN.old)), is_forced=True) is None


@pytest.mark.parametrize(
    "document",
    [
        replace(EVEN, epoch=3),
        replace(JOINT, epoch=4),
        replace(EVEN, reason="because"),
        replace(EVEN, old=replace(EVEN.old, seats=EVEN.old.seats[::-1])),
        replace(EVEN, old=replace(EVEN.old, seats=[EVEN.old.seats[0]] * 2)),
        replace(EVEN, old=replace(EVEN.old, seats=[seat(0), replace(seat(1), replica="node-0~a")])),
        replace(EVEN, old=replace(EVEN.old, seats=[replace(seat(0), replica="")])),
        replace(EVEN, old=replace(EVEN.old, seats=[replace(seat(0), node_id="../node")])),
    ],
)
def test_what_no_honest_process_decides_is_refused(document):
    with pytest.raises(MalformedError):
        check_document(document)


def test_a_document_taken_up_ends_what_was_promised_accepted_and_copied_under_the_one_before():
    before = PlacementState(
        EVEN,
        promised=(7, "node-1~a"),
        accepted_at=(7, "node-1~a"),
        accepted=JOINT,
        copied=b"\1",
        life=4,
        lives={"node-1~a": (3, 9), "node-9~a": (8, 1)},
    )
    after = take_up(before, JOINT, b"\2")
    assert PlacementState(JOINT, whole=b"\2", life=4, lives={"node-1~a": (3, 9)}) == after


@pytest.mark.parametrize(
    ("node_id", "number", "is_below_three"),
    [("node-2", 2, True), ("node-3", 3, False), ("jarvis-crdt-10", 10, False), ("alone", None, True)],
)
def test_nodes_are_counted_by_the_number_at_the_end_of_their_ids(node_id, number, is_below_three):
    assert (number, is_below_three) == (number_of(node_id), is_below(node_id, 3))
