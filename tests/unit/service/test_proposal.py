"""What operators may propose, and what it gives up."""

import pytest
from msgspec.structs import replace

from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.slot import SLOTS
from crdt_service.membership import document as documents
from crdt_service.membership.proposal import follows, make_proposal
from crdt_service.placement_command import describe, lost_slots
from crdt_service.survey import Sighting, Survey
from crdt_service.wire.message import PlacementWord, ProposeRequest
from tests.unit.service.test_ownership import first, seat

EVEN = first(3, 3)
RESIZING = documents.resize(first(5, 2), 3, 2, {}, "node-1")
UPGRADING = documents.first([seat(number) for number in range(3)], 3, 3, "node-0", is_new=False)
LOSING = documents.accept_loss(EVEN, ["node-1~a", "node-2~a"], is_forced=True)


def propose(document, reason, **fields):
    request = ProposeRequest(1, fields.pop("epoch", document.epoch), reason, **fields)
    return make_proposal(document, request, "node-0", factor=3, zones={}, present={"node-0~a"})


def refusal(document, reason, **fields):
    with pytest.raises(ServiceError) as refused:
        propose(document, reason, **fields)
    return refused.value


@pytest.mark.parametrize("reason", ["resize", "abort", "accept_loss", "confirm_loss"])
def test_who_has_not_seen_the_newest_placement_is_told_of_it(reason):
    error = refusal(EVEN, reason, epoch=EVEN.epoch - 1, node_count=3)
    assert ("placement_changed", "placement 2 is in force (first by node-0, 3 nodes)") == (error.code, error.message)


@pytest.mark.parametrize("reason", ["resize", "confirm_loss"])
def test_one_change_at_a_time(reason):
    error = refusal(RESIZING, reason, node_count=4)
    assert ("change_under_way", True) == (error.code, "(resize by node-1, 3 nodes)" in error.message)


def test_a_change_is_given_up_unless_nobody_promised_to_what_was_before():
    assert (RESIZING.old, None) == ((given_up := propose(RESIZING, "abort")).old, given_up.next)
    assert propose(EVEN, "abort") is None
    for document in (UPGRADING, LOSING):
        assert "cannot be given up" in refusal(document, "abort").message


def test_a_resize_takes_the_factor_that_is_given_or_else_the_node_s():
    assert 2 == propose(EVEN, "resize", node_count=3, replication_factor=2).next.factor
    assert propose(EVEN, "resize", node_count=3) is None
    assert 3 == propose(first(3, 2), "resize", node_count=3).next.factor


@pytest.mark.parametrize(
    ("lost", "code"),
    [
        ([], "unknown_seat"),
        (["node-1"], "unknown_seat"),
        (["node-0~a"], "seat_present"),
        (["node-1~a", "node-2~a", "node-0~a"], "seat_present"),
    ],
)
def test_what_is_no_loss_is_not_accepted(lost, code):
    assert code == refusal(EVEN, "accept_loss", lost=lost).code


def test_a_forced_loss_outruns_what_the_lost_ones_may_have_decided():
    proposal = propose(EVEN, "accept_loss", lost=["node-1~a", "node-2~a"], is_forced=True)
    assert (True, 1, ["node-1~a", "node-2~a"]) == (
        proposal.epoch > EVEN.epoch + documents.FORCED_EPOCHS and proposal.copies_all,
        proposal.epoch % 2,
        proposal.lost,
    )
    assert ["node-0~a"] == [each.replica for each in proposal.next.seats]
    documents.check_document(proposal)


def test_a_loss_is_confirmed_once():
    even = documents.end(LOSING, "node-0")
    assert (["node-1~a", "node-2~a"], []) == (even.lost, propose(even, "confirm_loss").lost)
    assert propose(EVEN, "confirm_loss") is None


def test_a_proposal_that_others_ended_meanwhile_was_decided():
    assert follows(RESIZING, RESIZING)
    assert follows(documents.end(RESIZING, "node-2"), RESIZING)
    assert not follows(documents.abort(RESIZING, "node-2"), RESIZING)
    assert not follows(None, RESIZING)
    assert not follows(replace(RESIZING, proposer="node-2"), RESIZING)


def test_slots_are_counted_that_lose_their_majority_and_those_that_lose_all_owners():
    assert (frozenset(), frozenset()) == lost_slots(EVEN, ["node-1~a"])
    majority, every = lost_slots(EVEN, ["node-1~a", "node-2~a"])
    assert (SLOTS, 0) == (len(majority), len(every))
    majority, every = lost_slots(first(5, 2), ["node-1~a", "node-2~a"])
    assert 0 < len(every) < len(majority) < SLOTS


def see(document, *seats, held=0):
    sightings = {
        each.replica: Sighting(
            each.node_id, each.replica, ("127.0.0.1", 1), PlacementWord(document.epoch, zone=each.zone, held=held)
        )
        for each in seats
    }
    return Survey(sightings, {}, document)


def test_the_table_says_who_holds_goes_comes_is_silent_or_lost_its_volume():
    document = documents.resize(first(4, 2), 3, 2, {}, "node-1")
    seen = see(document, seat(0), seat(1), seat(3), seat(2, "b"))
    head, what, _, _, *rows = describe(seen, document)
    assert "placement 3 is under way (resize by node-1, 3 nodes): 3 of 3 nodes have a seat" in head
    assert "waits for: node-0, node-1, node-2" in what
    assert [
        ("node-0", "holds"),
        ("node-1", "holds"),
        ("node-2", "another volume answers"),
        ("node-3", "goes"),
        ("node-2", "syncing"),
    ] == [(row.split()[0], row.rpartition("  ")[2]) for row in rows]
