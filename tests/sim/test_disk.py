"""The journal on a disk that tears: what the simulation found, in small."""

import contextlib
import errno
import itertools
import random

import pytest

from crdt_service.disk import journal as journal_module
from crdt_service.disk.journal import Journal
from crdt_service.kernel.error import StorageFullError
from crdt_service.wire.seal import Key
from tests.sim.disk import PowerLoss, SimDisk

# Each tears the disk differently.
TRIES = 200
# More operations than a life of the tests below has.
OPERATIONS_MAX = 200
KEYS = (Key(b"a" * 32), Key(b"b" * 32))


def open_journal(disk, keys=()):
    disk.power_on()
    return recover(disk, keys)


def recover(disk, keys):
    journal = Journal(disk, "node-0", random.Random(1), keys)
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


def live(journal, begun, kept):
    """Append, rest, rotate and checkpoint; note each payload before and after its append."""

    def append(payload):
        begun.append(payload)
        journal.append(payload)
        kept.append(payload)

    append(b"one %d" % len(kept))
    append(b"two" * 300)
    journal.rest()
    append(b"three")
    number = journal.rotate()
    append(b"four")
    journal.write_snapshot(number, list(kept), last=True)
    append(b"five")
    journal.rest()
    number = journal.rotate()
    journal.write_snapshot(number, list(kept), last=True)


def crash(disk, operations, is_kill, act):
    """Have a crash amid the operation of this number; return whether there was one."""
    disk.operations_to_loss = operations
    if is_kill:
        disk.lose_power = disk.kill
    try:
        act()
    except PowerLoss:
        return True
    finally:
        disk.operations_to_loss = None
        disk.__dict__.pop("lose_power", None)
    return False


@pytest.fixture
def small_blocks(monkeypatch):
    """Enlarge logs by little, which is quicker to simulate."""
    monkeypatch.setattr(journal_module, "ALLOCATED_BYTES", 1 << 12)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("is_kill", [True, False], ids=["kill", "power loss"])
@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "plain"])
def test_a_crash_at_any_operation_loses_nothing_and_is_no_damage(is_kill, is_sealed):
    for operations, seed in itertools.product(range(1, OPERATIONS_MAX), range(20)):
        disk = make_disk(seed)
        randomness = random.Random(operations * 4 + seed)
        begun, kept = [], []

        def act(disk=disk, begun=begun, kept=kept, keys=KEYS[:1] if is_sealed else ()):
            live(recover(disk, keys)[0], begun, kept)

        crashed = crash(disk, operations, is_kill, act)
        if not crashed:
            disk.kill()
        # Once more, amid the recovery, with another key.
        keys = KEYS[::-1] if is_sealed else ()
        disk.power_on()
        if not crash(disk, randomness.randint(1, 20), seed % 2, lambda disk=disk, keys=keys: recover(disk, keys)):
            disk.kill()
        journal, payloads = open_journal(disk, keys)
        assert "" == journal.damage, (operations, seed)
        assert set(kept) <= set(payloads) <= set(begun), (operations, seed)
        live(journal, begun, kept)
        disk.kill()
        journal, payloads = open_journal(disk, keys)
        assert "" == journal.damage, (operations, seed)
        assert set(kept) <= set(payloads) <= set(begun), (operations, seed)
        if not crashed:
            break
    assert not crashed


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("is_kill", [True, False], ids=["kill", "power loss"])
def test_no_crash_makes_a_start_forget_damage(is_kill):
    for operations, seed in itertools.product(range(1, OPERATIONS_MAX), range(4)):
        disk = make_disk(seed)
        journal, _ = open_journal(disk)
        for payload in (b"one", b"two"):
            journal.append(payload)
        journal.rest()
        disk.lose_power()
        assert disk.flip_tail(random.Random(operations))
        disk.power_on()
        begun, kept = [b"one"], [b"one"]
        crashed = crash(
            disk,
            operations,
            is_kill,
            lambda disk=disk, begun=begun, kept=kept: live(recover(disk, ())[0], begun, kept),
        )
        disk.kill()
        journal, payloads = open_journal(disk)
        assert "log-00000001 is damaged" in journal.damage, (operations, seed)
        assert set(kept) <= set(payloads) <= set(begun), (operations, seed)
        journal.append(b"another name")
        journal.clear_damage()
        disk.lose_power()
        assert "" == open_journal(disk)[0].damage, (operations, seed)
        if not crashed:
            break
    assert not crashed


def test_a_power_loss_takes_what_of_the_mark_was_not_synced():
    found = set()
    for seed in range(TRIES):
        disk = make_disk(seed)
        journal, _ = open_journal(disk)
        journal.append(b"one")
        disk.lose_power()
        found.add(disk.flip_tail(random.Random(seed)))
    assert {True, False} == found


def test_a_flipped_tail_is_damage():
    for seed in range(TRIES):
        disk = make_disk(seed)
        journal, _ = open_journal(disk, KEYS[: seed % 2])
        assert not disk.flip_tail(random.Random(seed))
        for payload in (b"one", b"two"):
            journal.append(payload)
        if seed % 3 == 0:
            journal.rotate()
            journal.append(b"three")
        journal.rest()
        assert not disk.flip_tail(random.Random(seed)), "the power is on"
        disk.lose_power()
        assert disk.flip_tail(random.Random(seed))
        journal, payloads = open_journal(disk, KEYS[: seed % 2])
        assert ([b"one", b"two"] if seed % 3 == 0 else [b"one"]) == payloads, seed
        assert "had been synced" in journal.damage
