"""The journal on a disk that tears: what the simulation found, in small."""

import contextlib
import errno
import random

import pytest

from crdt_service.disk.journal import Journal
from crdt_service.kernel.error import StorageFullError
from tests.sim.disk import PowerLoss, SimDisk

# Each tears the disk differently.
TRIES = 200


def open_journal(disk):
    disk.power_on()
    journal = Journal(disk, "node-0", random.Random(1))
    return journal, list(journal.recover())


def make_disk(seed):
    return SimDisk("node-0", random.Random(seed), lambda *_: None)


def test_what_a_full_disk_refused_stays_refused_after_a_power_loss():
    for seed in range(TRIES):
        disk = make_disk(seed)
        journal, _ = open_journal(disk)
        journal.append(b"one")
        disk.sync = refuse_once(disk.sync, errno.ENOSPC)
        with pytest.raises(StorageFullError):
            journal.append(b"refused")
        disk.lose_power()
        assert [b"one"] == open_journal(disk)[1], seed


def test_a_log_may_have_a_torn_tail_after_a_rotation_that_failed():
    for seed in range(TRIES):
        disk = make_disk(seed)
        journal, _ = open_journal(disk)
        journal.append(b"one")
        disk.sync_directory = refuse_once(disk.sync_directory, errno.EIO)
        with pytest.raises(OSError, match="refused"):
            journal.rotate()
        journal.append(b"two")
        disk.operations_to_loss = 2
        with pytest.raises(PowerLoss):
            journal.append(b"three")
        journal, payloads = open_journal(disk)
        assert payloads in ([b"one", b"two"], [b"one", b"two", b"three"]), seed
        journal.append(b"four")
        disk.lose_power()
        assert [*payloads, b"four"] == open_journal(disk)[1], seed


def test_a_rotation_that_failed_leaks_no_descriptor():
    disk = make_disk(1)
    journal, _ = open_journal(disk)
    before = len(disk._open)
    disk.sync_directory = refuse_once(disk.sync_directory, errno.EIO)
    with pytest.raises(OSError, match="refused"):
        journal.rotate()
    assert before == len(disk._open)


def refuse_once(operation, number):
    """Return `operation`, which fails the first time."""
    refusals = [OSError(number, "refused")]

    def refuse(*arguments):
        with contextlib.suppress(IndexError):
            raise refusals.pop()
        return operation(*arguments)

    return refuse
