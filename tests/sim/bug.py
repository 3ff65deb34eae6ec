"""Bugs planted to see that the judges catch them: each is a context in which to run, and yields the options for it."""

import asyncio
import contextlib
from unittest import mock

from crdt_service.datatypes.aw_set import AwSet
from crdt_service.datatypes.lww_register import LwwRegister
from crdt_service.datatypes.pn_counter import PnCounter
from crdt_service.disk.journal import Journal
from crdt_service.kernel.clock import COUNTER_BITS, DRIFT_SECONDS_MAX, HybridClock
from crdt_service.kernel.error import ServiceError
from crdt_service.loops import commit, garbage
from crdt_service.loops.commit import Committer
from crdt_service.loops.exchange import send_states, under
from crdt_service.membership.ownership import Group
from crdt_service.replication import commits
from crdt_service.replication.commits import CommitLog
from crdt_service.replication.handoff import Handoff
from crdt_service.resolution.conflicts import Conflicts
from crdt_service.store import batch
from crdt_service.store.batch import Batch
from crdt_service.store.tombstones import Tombstones
from tests.sim.clock import EPOCH_SECONDS
from tests.sim.simulation import Options


class _EagerCommitter(Committer):
    """Pushes what is not on disk yet."""

    async def _append(self, step):
        if step.own:
            for peer in self._publish.__self__.peers.values():
                channel = under(peer.channel, self._replica.epoch)
                asyncio.create_task(_push(channel, step.own, self._replica))  # noqa: RUF006
        await super()._append(step)


async def _push(channel, deltas, replica):
    with contextlib.suppress(ServiceError):
        await send_states(channel, deltas, replica)


class _ShownBatch(Batch):
    def encode(self):
        self.install()
        return super().encode()


class _LazyJournal(Journal):
    def append(self, payload):
        record = self._encoder.encode(payload, self.log_bytes)
        self._disk.write(self._descriptor, record, self.log_bytes)
        self.log_bytes += len(record)


@contextlib.contextmanager
def push_before_sync():
    yield Options(committer=_EagerCommitter)


@contextlib.contextmanager
def show_before_sync():
    with mock.patch.object(commit, "Batch", _ShownBatch):
        yield Options()


@contextlib.contextmanager
def no_sync():
    yield Options(journal=_LazyJournal)


@contextlib.contextmanager
def no_tie_break():
    def join(self, state, delta):
        return delta if delta[0] > state[0] else state

    with mock.patch.object(LwwRegister, "join", join):
        yield Options()


@contextlib.contextmanager
def sum_instead_of_maximum():
    def join(self, state, delta):
        for replica, (up, down) in delta.items():
            old = state.get(replica, (0, 0))
            state[replica] = (min(old[0] + up, 1 << 62), min(old[1] + down, 1 << 62))
        return state

    with mock.patch.object(PnCounter, "join", join):
        yield Options()


@contextlib.contextmanager
def removed_comes_back():
    real = AwSet.join

    def join(self, state, delta):
        real(self, state, delta)
        for dot, element in delta.owner.items():
            if dot not in state.owner:
                state.insert(dot, element)
        return state

    with mock.patch.object(AwSet, "join", join):
        yield Options()


@contextlib.contextmanager
def commit_log_without_limit():
    with mock.patch.object(CommitLog, "append", _append_all):
        yield Options()


def _append_all(self, committed_at, deltas):
    with mock.patch.object(commits, "LOG_BYTES_MAX", 1 << 30):
        return _append(self, committed_at, deltas)


_append = CommitLog.append


@contextlib.contextmanager
def dots_again_after_a_handoff():
    def drop(self, choose, _):
        return _drop(self, choose, self._replica.origin)

    with mock.patch.object(Committer, "drop", drop):
        yield Options()


_drop = Committer.drop


@contextlib.contextmanager
def handoff_to_whoever_is_there():
    with mock.patch.object(Handoff, "_is_confirmed", lambda *_: True):
        yield Options()


@contextlib.contextmanager
def a_quorum_of_one():
    with mock.patch.object(Group, "needed", lambda *_: 1):
        yield Options()


@contextlib.contextmanager
def a_repetition_counts_again():
    with mock.patch.object(batch, "find_applied", lambda *_: None):
        yield Options()


class _ReusingBatch(Batch):
    def __init__(self, store, clock, origin, _floor, **options):
        super().__init__(store, clock, origin, **options)


@contextlib.contextmanager
def dots_again_after_a_purge():
    with mock.patch.object(commit, "Batch", _ReusingBatch):
        yield Options(steps=600, purging_share=1.0)


@contextlib.contextmanager
def an_old_node_is_merged():
    with mock.patch.object(garbage, "is_stale", lambda *_: False):
        yield Options(steps=600, purging_share=1.0, remembering_share=0.0)


@contextlib.contextmanager
def what_was_purged_is_not_remembered():
    with mock.patch.object(Tombstones, "put", lambda *_: None):
        yield Options(steps=600, purging_share=1.0, remembering_share=1.0)


@contextlib.contextmanager
def never_purged():
    with mock.patch.object(garbage.Collector, "_propose", lambda *_: asyncio.sleep(0)):
        yield Options(steps=600, purging_share=1.0)


# Worlds in which clocks are wrong by far until all faults end.
_FAR = Options(nodes=3, purging_share=0.0, profile={"faults": ("clock_far", "kill", "isolate"), "fault_share": 0.1})


@contextlib.contextmanager
def stamps_of_wrong_clocks_are_refused():
    """As in the release before: a stamp is compared with the wall clock, here with a right one."""

    def is_far(stamp):
        now = EPOCH_SECONDS + asyncio.get_running_loop().time()
        return stamp > int((now + DRIFT_SECONDS_MAX) * 1000) << COUNTER_BITS

    with mock.patch.object(batch, "is_impossible", is_far):
        yield _FAR


@contextlib.contextmanager
def stamps_follow_the_wall_clock_alone():
    with mock.patch.object(HybridClock, "observe", lambda *_: None):
        yield _FAR


@contextlib.contextmanager
def hide_other_types():
    """A key that was created with two types shows one, and says nothing of the other."""
    with mock.patch.object(Conflicts, "update_types", lambda *_: []):
        yield Options(two_types_share=1.0)


# The judges of which at least one must find the bug.
BUGS = {
    push_before_sync: {"lost_write", "double_count", "phantom", "convergence"},
    show_before_sync: {"lost_write", "double_count", "phantom", "retraction"},
    no_sync: {"lost_write", "retraction"},
    no_tie_break: {"convergence"},
    sum_instead_of_maximum: {"double_count", "convergence"},
    removed_comes_back: {"resurrection", "convergence"},
    commit_log_without_limit: {"bound"},
    dots_again_after_a_handoff: {"lost_write", "convergence"},
    handoff_to_whoever_is_there: {"lost_write"},
    a_quorum_of_one: {"lost_write", "stale_read", "double_count", "two_majorities"},
    a_repetition_counts_again: {"double_count"},
    dots_again_after_a_purge: {"resurrection", "lost_write", "convergence"},
    an_old_node_is_merged: {"resurrection"},
    what_was_purged_is_not_remembered: {"resurrection"},
    never_purged: {"garbage"},
    stamps_of_wrong_clocks_are_refused: {"convergence", "correction", "availability"},
    stamps_follow_the_wall_clock_alone: {"correction"},
    hide_other_types: {"hidden_type"},
}
