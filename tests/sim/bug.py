"""Bugs planted to see that the judges catch them: each is a context in which to run, and yields the options for it."""

import contextlib
from unittest import mock

from crdt_service.datatypes.aw_set import AwSet
from crdt_service.datatypes.lww_register import LwwRegister
from crdt_service.datatypes.pn_counter import PnCounter
from crdt_service.disk.journal import Journal
from crdt_service.loops import commit
from crdt_service.loops.commit import Committer
from crdt_service.replication.outbox import Outbox, delta_bytes
from crdt_service.store.batch import Batch
from crdt_service.wire.record import encode_record
from tests.sim.simulation import Options


class _KnownCommitter(Committer):
    """Lets a batch find the publisher through its store."""

    def subscribe(self, publish):
        super().subscribe(publish)
        self._store.publish = publish


class _PushedBatch(Batch):
    def pick_written(self, deltas):
        written = super().pick_written(deltas)
        self._store.publish(0.0, written)
        return written


class _ShownBatch(Batch):
    def pick_written(self, deltas):
        self.install()
        return super().pick_written(deltas)


class _LazyJournal(Journal):
    def append(self, payload):
        record = encode_record(payload, self.log_bytes)
        self._disk.write(self._descriptor, record)
        self.log_bytes += len(record)


@contextlib.contextmanager
def push_before_sync():
    with mock.patch.object(commit, "Batch", _PushedBatch):
        yield Options(committer=_KnownCommitter)


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
def outbox_without_limit():
    def put(self, committed_at, deltas):
        size = sum(map(delta_bytes, deltas))
        self._batches.append((committed_at, deltas, size))
        self._bytes += size
        return 0

    with mock.patch.object(Outbox, "put", put):
        yield Options()


# The judges of which at least one must find the bug.
BUGS = {
    push_before_sync: {"lost_write", "double_count", "phantom", "convergence"},
    show_before_sync: {"lost_write", "double_count", "phantom", "retraction"},
    no_sync: {"lost_write", "retraction"},
    no_tie_break: {"convergence"},
    sum_instead_of_maximum: {"double_count", "convergence"},
    removed_comes_back: {"resurrection", "convergence"},
    outbox_without_limit: {"bound"},
}
