"""At start-up everything on disk is sealed with the current key, or stays as it was."""

import random

import pytest

from crdt_service.disk.journal import Journal
from crdt_service.kernel.clock import HybridClock
from crdt_service.loops import commit
from crdt_service.loops.rewrite import rewrite
from crdt_service.replication.replica import Replica
from crdt_service.store.batch import Batch
from crdt_service.store.store import Store
from crdt_service.wire.message import Step, encode_step
from crdt_service.wire.seal import Key
from tests.unit.service.double import FakeClock, FaultyDisk

KEY = Key(b"k" * 32)
KEYS = 10


class Node:
    def __init__(self, directory, keys):
        hybrid = HybridClock(FakeClock())
        self.disk = FaultyDisk(directory)
        self.journal = Journal(self.disk, "node-0", random.SystemRandom(), keys)
        self.store = Store(hybrid)
        self.replica = Replica(self.journal.replica)
        self.replica.replay(self.store, hybrid, self.journal.recover())
        self.batch = Batch(self.store, hybrid, self.journal.replica)

    def values(self):
        return {key: self.store.read(key).value for keys in self.store.slots for key in keys}


@pytest.fixture
def plain(tmp_path):
    """A plain directory with a snapshot and a log."""
    node = Node(tmp_path, ())
    for number in range(KEYS):
        node.batch.write(f"key-{number}", "lww_register", b'{"assign": "visible"}')
    payload = encode_step(Step(KEYS, node.batch.encode()[0], [], {}))
    node.journal.append(payload)
    node.journal.write_snapshot(node.journal.rotate(), [payload], last=True)
    node.journal.append(payload)
    node.journal.close()
    return tmp_path


def test_nothing_plain_remains_and_nothing_is_lost(plain, monkeypatch):
    monkeypatch.setattr(commit, "CHECKPOINT_SLICE_KEYS", 3)
    node = Node(plain, [KEY])
    assert node.journal.needs_rewrite
    rewrite(node.store, node.journal, node.replica)
    node.journal.close()
    assert b"visible" not in b"".join(path.read_bytes() for path in plain.iterdir())
    node = Node(plain, [KEY])
    assert not node.journal.needs_rewrite
    assert {f"key-{number}": b'"visible"' for number in range(KEYS)} == node.values()
    node.journal.close()


def test_a_full_disk_leaves_what_was_and_the_next_start_tries_again(plain):
    node = Node(plain, [KEY])
    node.disk.is_full = True
    rewrite(node.store, node.journal, node.replica)
    node.journal.close()
    node = Node(plain, [KEY])
    assert node.journal.needs_rewrite
    assert KEYS == len(node.values())
    rewrite(node.store, node.journal, node.replica)
    node.journal.close()
    assert b"visible" not in b"".join(path.read_bytes() for path in plain.iterdir())
