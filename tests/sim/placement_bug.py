"""Bugs of placements, those of the model of ownership among them; as `bug`, each is a context and yields options."""

import contextlib
from dataclasses import replace
from functools import partial
from unittest import mock

from crdt_service.disk import journal
from crdt_service.kernel.slot import SLOTS, slot_of
from crdt_service.loops import answer, deciding, exchange, placing, transfer
from crdt_service.loops.answer import Answerer
from crdt_service.loops.deciding import Decider
from crdt_service.loops.exchange import Exchange
from crdt_service.loops.placing import Placer
from crdt_service.loops.transfer import Transfer
from crdt_service.loops.vouching import Voucher
from crdt_service.membership import document as documents
from crdt_service.membership.ownership import Group, Ownership
from crdt_service.replication.handoff import Handoff
from crdt_service.wire.message import Concern, RepairRequest
from tests.sim.simulation import Options

# Worlds in which owners change again and again amid majority writes and reads.
_CHANGING = Options(
    steps=600,
    purging_share=0.0,
    profile={
        "faults": ("resize", "resize", "resize_twice", "abort", "isolate", "block", "kill", "disk_slow"),
        "fault_share": 0.1,
        "quorum_share": 0.8,
        "step_ms_max": 60,
        "read_share": 0.4,
    },
)

# The same with one owner for each slot, where a quorum is soon another one.
_SINGLE = replace(_CHANGING, profile=_CHANGING.profile | {"replication_factor": 1, "keys": 8})


# Changes that come to their end one after the other, while a node takes them up late, or lacks what the others
# acknowledged before; nothing else is in their way.
_LATE = Options(
    nodes=4,
    steps=1000,
    purging_share=0.0,
    placed_share=1.0,
    profile=_SINGLE.profile
    | {
        "faults": ("change_factor", "change_slowly"),
        "fault_share": 0.015,
        "replication_factor": 3,
        "latency_ms_max": 3,
        "loss": 0.0,
        "burst_share": 0.0,
        "sync_interval_seconds": 3.0,
        "skew_seconds_max": 0.0,
    },
)
_BEHIND = replace(
    _LATE,
    profile=_LATE.profile | {"faults": ("change_factor", "change_behind"), "fault_share": 0.01, "keys": 2},
)


@contextlib.contextmanager
def owners_follow_live_members():
    """Owners are who is connected, as in the release before, and a majority is counted among them."""

    def reachable_groups(self, key):
        peers = {self.me, *self.peers}
        return tuple(
            Group(owners, len(owners))
            for group in self.ownership.groups(slot_of(key))
            if (owners := tuple(owner for owner in group.owners if owner in peers))
        )

    def is_quorum(self, key, concern, has):
        return all(sum(map(has, group.owners)) >= group.needed(concern) for group in self.groups(key))

    with (
        mock.patch.object(Exchange, "groups", reachable_groups),
        mock.patch.object(Exchange, "is_quorum", is_quorum),
    ):
        yield _CHANGING


@contextlib.contextmanager
def no_fence():
    """Owners answer under whatever placement they are asked."""
    with (
        mock.patch.object(Placer, "check_epoch", lambda *_: None),
        mock.patch.object(exchange, "under", _Unchecked),
        mock.patch.object(answer, "under", _Unchecked),
        mock.patch.object(transfer, "under", _Unchecked),
    ):
        yield _LATE


class _Unchecked:
    """A channel that takes replies of any placement."""

    def __init__(self, channel, epoch):
        self.node_id = channel.node_id
        self._channel = channel
        self._epoch = epoch

    async def request(self, build):
        return (await self._channel.request_placed(self._epoch, build)).message


@contextlib.contextmanager
def no_joint():
    """Only a majority of the next owners is counted while owners change."""
    groups = Ownership.groups

    def last_group(self, slot):
        return groups(self, slot)[-1:]

    def moving(self):
        return frozenset(slot for slot in range(SLOTS) if self.is_joint and len(groups(self, slot)) > 1)

    with mock.patch.object(Ownership, "groups", last_group), mock.patch.object(Ownership, "moving", moving):
        yield _CHANGING


@contextlib.contextmanager
def end_without_sync():
    """A change ends before anything is copied."""
    with mock.patch.object(placing, "_has_copied", lambda *_: True):
        yield _SINGLE


@contextlib.contextmanager
def sync_from_one():
    """A slot is copied from one of its old owners."""
    sources = Ownership.sources

    def one_source(self, slot):
        return sources(self, slot)[0], 1

    with mock.patch.object(Ownership, "sources", one_source):
        yield _BEHIND


@contextlib.contextmanager
def sync_without_fence():
    """Slots are copied from old owners that have not taken up the change."""
    answers = Answerer.answer

    def answer_repairs(self, request, epoch=0):
        if isinstance(request, RepairRequest):
            return answers(self, request, self._replica.epoch)
        return answers(self, request, epoch)

    with mock.patch.object(Answerer, "answer", answer_repairs), mock.patch.object(transfer, "under", _Unchecked):
        yield _LATE


@contextlib.contextmanager
def two_documents():
    """Two placements of one number: whoever proposes takes up what any other has accepted."""
    with mock.patch.object(deciding, "is_decided", lambda _, __, accepted: bool(accepted)):
        yield _CHANGING


@contextlib.contextmanager
def drop_in_joint():
    """What is no longer owned after a change is forgotten before it ends."""

    def have_most(ownership, slot, has):
        group = ownership.groups(slot)[-1]
        return sum(map(has, group.owners)) >= group.needed(Concern.MAJORITY)

    def choose_done(self):
        return self._handoff.done(self.surplus, self._store.versions, partial(have_most, self._exchange.ownership))

    def owns_next(self, name):
        return self.owned_after(name)

    with (
        mock.patch.object(Transfer, "_choose_done", choose_done),
        mock.patch.object(Ownership, "owns", owns_next),
    ):
        yield _SINGLE


@contextlib.contextmanager
def empty_disk_votes():
    """An empty directory has the name of the one before it, and with it the seat."""

    def name_again(node_id, _):
        return f"{node_id}~00000000"

    with (
        mock.patch.object(journal, "new_replica", name_again),
        mock.patch.object(Voucher, "_object", lambda *_: ""),
    ):
        yield replace(_CHANGING, profile=_CHANGING.profile | {"faults": ("lose_disk", "lose_disk", "isolate", "kill")})


@contextlib.contextmanager
def drop_unasked():
    """What a node does not own any more is forgotten, whoever holds it."""

    def done(self, surplus, versions, is_enough):
        return list(surplus)

    with mock.patch.object(Handoff, "done", done):
        yield _CHANGING


@contextlib.contextmanager
def first_phase_of_a_majority():
    """The first placement is decided once a majority of empty nodes is there."""
    decide = Decider.decide

    async def decide_by_most(self, voters, build, *, asks_all):
        return await decide(self, voters, build, asks_all=False)

    async def begin(self):
        channels = self._exchange.channels
        if 2 * (1 + len(channels)) <= self._node_count or self._node_id > min(channels):
            return

        def build(promises):
            seats = [promise.seat for promise in promises.values()]
            return documents.first(seats, self._factor, self._node_count, self._node_id, is_new=True)

        await self._decide(None, build, {channel.replica: channel for channel in channels.values()})

    with mock.patch.object(Decider, "decide", decide_by_most), mock.patch.object(Placer, "_begin", begin):
        profile = {"faults": ("lose_disk", "isolate", "partition"), "fault_share": 0.5, "step_ms_max": 60}
        yield Options(nodes=3, steps=100, purging_share=0.0, placed_share=0.0, profile=profile)


# The judges of which at least one must find the bug.
PLACEMENT_BUGS = {
    owners_follow_live_members: {"stale_read", "lost_write"},
    no_fence: {"stale_read", "lost_write", "double_count", "two_majorities"},
    no_joint: {"stale_read", "lost_write", "two_majorities"},
    end_without_sync: {"stale_read", "lost_write", "two_majorities"},
    sync_from_one: {"stale_read", "lost_write", "double_count"},
    sync_without_fence: {"stale_read", "lost_write", "double_count"},
    two_documents: {"two_majorities"},
    drop_in_joint: {"stale_read", "lost_write", "double_count", "retraction"},
    empty_disk_votes: {"stale_read", "lost_write"},
    drop_unasked: {"lost_write", "retraction"},
    first_phase_of_a_majority: {"two_majorities", "lost_write"},
}
