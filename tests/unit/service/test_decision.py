"""What follows a document is decided once, in whatever order promises and acceptances are asked for."""

import random

import pytest

from crdt_service.membership import document as documents
from crdt_service.membership.decision import accept, choose, is_decided, next_ballot, prepare
from crdt_service.wire.message import PlacementState, PrepareReply
from tests.unit.service.test_ownership import first, seat

JOINT = documents.resize(first(5, 3), 3, 3, {}, "node-0")
END = documents.end(JOINT, "node-0")
ABORT = documents.abort(JOINT, "node-1")
VOTERS = [each.replica for each in JOINT.old.seats]
SCHEDULES = 2000
STEPS = 40


class Voter:
    def __init__(self, number, document):
        self.seat = seat(number)
        self.state = PlacementState(document)

    def promise(self, ballot):
        changed = prepare(self.state, ballot)
        self.state = changed or self.state
        return PrepareReply(
            1,
            changed is not None,
            self.state.promised,
            self.state.accepted_at,
            self.state.accepted,
            self.seat,
            False,
        )

    def accept(self, ballot, document):
        changed = accept(self.state, ballot, document, self.seat.replica, self.seat.node_id)
        self.state = changed or self.state
        return changed is not None


class Proposer:
    """Asks voters in any order, and begins with a greater ballot now and then."""

    def __init__(self, replica, proposal, voters):
        self._replica, self._proposal, self._voters = replica, proposal, voters
        self._seen = []
        self.begin()

    def begin(self):
        self._ballot = next_ballot(self._seen, self._replica)
        self._seen = [self._ballot]
        self._promises, self._accepted, self._chosen = {}, set(), None

    def step(self, randomness):
        """Ask one voter one thing; return what is decided then, None for nothing."""
        voter = randomness.choice(self._voters)
        if self._chosen is None:
            reply = voter.promise(self._ballot)
            self._seen.append(reply.promised)
            if reply.is_promised:
                self._promises[reply.seat.replica] = reply
            if is_decided(JOINT, self._proposal, self._promises):
                self._chosen = choose(self._promises.values(), self._proposal)
        elif voter.accept(self._ballot, self._chosen):
            self._accepted.add(voter.seat.replica)
        is_done = self._chosen is not None and is_decided(JOINT, self._chosen, self._accepted)
        return self._chosen if is_done else None


def test_a_change_ends_or_is_given_up_and_never_both():
    outcomes = set()
    for number in range(SCHEDULES):
        randomness = random.Random(number)
        voters = [Voter(each, JOINT) for each in range(5)]
        proposers = [Proposer("node-0~a", END, voters), Proposer("node-1~a", ABORT, voters)]
        decided = set()
        for _ in range(STEPS):
            proposer = randomness.choice(proposers)
            if randomness.random() < 0.1:
                proposer.begin()
            elif (document := proposer.step(randomness)) is not None:
                decided.add(document.reason)
        assert len(decided) <= 1, number
        outcomes |= decided
    assert {"end", "abort"} == outcomes


def test_a_voter_never_goes_back_on_what_it_promised():
    randomness = random.Random(1)
    voter = Voter(0, JOINT)
    for _ in range(SCHEDULES):
        before = tuple(voter.state.promised)
        ballot = (randomness.randint(1, 50), randomness.choice(VOTERS))
        if randomness.random() < 0.5:
            assert voter.promise(ballot).is_promised == (tuple(ballot) > before)
        else:
            assert voter.accept(ballot, END) == (tuple(ballot) >= before)
        assert tuple(voter.state.promised) == max(before, tuple(ballot))
        assert tuple(voter.state.accepted_at) <= tuple(voter.state.promised)


def test_a_ballot_exceeds_all_that_were_seen_and_names_who_drew_it():
    assert (8, "node-2~a") == next_ballot([(7, "node-9~a"), (3, "node-0~a")], "node-2~a")
    assert (1, "node-2~a") == next_ballot([], "node-2~a")


def test_of_what_was_accepted_before_the_one_with_the_greatest_ballot_is_proposed():
    replies = [
        PrepareReply(1, True, (9, "x"), (counter, "x"), document, seat(0), False)
        for counter, document in ((1, END), (2, ABORT), (0, None))
    ]
    assert choose(replies, END) == ABORT
    assert choose(replies[2:], END) == END


@pytest.mark.parametrize(("count", "expected"), [(0, False), (2, False), (3, True), (5, True)])
def test_a_majority_of_the_old_seats_decides(count, expected):
    assert expected == is_decided(JOINT, END, VOTERS[:count])


def test_seats_to_come_decide_nothing():
    joint = documents.seat(first(2, 2, 4), [seat(2), seat(3)], "node-2")
    assert not is_decided(joint, documents.end(joint, "node-2"), ["node-0~a", "node-2~a", "node-3~a"])
    assert is_decided(joint, documents.end(joint, "node-2"), ["node-0~a", "node-1~a"])


@pytest.mark.parametrize("replica", ["node-0~b", "node-3~a"])
def test_a_directory_accepts_a_first_document_only_if_it_is_named_there(replica):
    node_id = replica.partition("~")[0]
    assert accept(PlacementState(), (1, "x"), first(3, 3), replica, node_id) is None
    assert accept(PlacementState(), (1, "x"), first(3, 3), "node-1~a", "node-0") is None
    assert accept(PlacementState(), (1, "x"), first(3, 3), "node-0~a", "node-0") is not None
