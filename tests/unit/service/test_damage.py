"""A journal whose synced records were damaged knows it, and says so until that is dealt with."""

import errno
import os
import random
from pathlib import Path

import pytest

from crdt_service.disk.disk import Disk
from crdt_service.disk.journal import Journal
from crdt_service.disk.mark import BLOCK_BYTES
from crdt_service.kernel.error import CorruptDataError, StorageFullError
from crdt_service.wire.record import encode_record
from crdt_service.wire.seal import Key
from tests.unit.service.double import FaultyDisk
from tests.unit.service.test_journal import open_journal, write_all

LOG, NEXT_LOG = "log-00000001", "log-00000002"
KEY, NEXT_KEY = Key(b"k" * 32), Key(b"n" * 32)


def flip(path, offset, bit=0):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


def reopen(directory, keys=()):
    """Return what a start finds: payloads, damage."""
    journal, payloads = open_journal(directory, keys=keys)
    journal.close()
    return payloads, journal.damage


def names(directory):
    return sorted(path.name for path in directory.glob("damaged-*"))


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_a_bit_flipped_in_any_byte_of_a_synced_last_record_is_damage_and_a_copy_is_kept(tmp_path, keys):
    kept, size = write_all(tmp_path, [b"one", b"two"], keys)
    log, mark = ((tmp_path / name).read_bytes() for name in (LOG, "mark"))
    for offset in range(kept, size):
        (tmp_path / LOG).write_bytes(log)
        (tmp_path / "mark").write_bytes(mark)
        flip(tmp_path / LOG, offset, offset % 8)
        damaged = (tmp_path / LOG).read_bytes()
        assert (
            [b"one"],
            f"{LOG} is damaged or ends at byte {kept}, though it had been synced up to byte {size}",
        ) == reopen(tmp_path, keys)
        assert damaged == (tmp_path / names(tmp_path)[-1]).read_bytes()
        for name in names(tmp_path):
            (tmp_path / name).unlink()


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_a_log_that_lost_its_end_at_any_byte_is_damaged_with_or_without_zeros_behind(tmp_path, keys):
    kept, size = write_all(tmp_path, [b"one", b"two"], keys)
    log, mark = ((tmp_path / name).read_bytes() for name in (LOG, "mark"))
    for length in range(size):
        for zeros in (0, 5000):
            (tmp_path / LOG).write_bytes(log[:length] + bytes(zeros))
            (tmp_path / "mark").write_bytes(mark)
            payloads, damage = reopen(tmp_path, keys)
            assert payloads == ([b"one"] if length >= kept else [])
            assert f"had been synced up to byte {size}" in damage


def test_a_log_that_is_gone_is_damage_unless_a_snapshot_replaced_it(tmp_path):
    journal, _ = open_journal(tmp_path)
    journal.append(b"one")
    number = journal.rotate()
    journal.append(b"two")
    end = journal.log_bytes
    journal.write_snapshot(number, [b"one"], last=True)
    journal.close()
    (tmp_path / NEXT_LOG).unlink()
    assert reopen(tmp_path) == (
        [b"one"],
        f"{NEXT_LOG} is damaged or ends at byte 0, though it had been synced up to byte {end}",
    )


def test_the_mark_of_a_log_that_a_snapshot_replaced_is_no_damage(tmp_path):
    journal, _ = open_journal(tmp_path)
    journal.append(b"one")
    journal.write_snapshot(journal.rotate(), [b"one"], last=True)
    journal.close()
    assert not (tmp_path / LOG).exists()
    (tmp_path / NEXT_LOG).unlink()
    assert ([b"one"], "") == reopen(tmp_path)


@pytest.mark.parametrize("size", [0, 1000])
def test_a_log_that_became_empty_is_damage_while_the_log_before_it_is_whole(tmp_path, size):
    journal, _ = open_journal(tmp_path)
    journal.append(b"one")
    journal.rotate()
    journal.append(b"two")
    journal.close()
    (tmp_path / NEXT_LOG).write_bytes(bytes(size))
    payloads, damage = reopen(tmp_path)
    assert [b"one"] == payloads
    assert damage.startswith(f"{NEXT_LOG} is damaged or ends at byte 0")


def test_a_log_before_the_newest_that_lost_a_whole_record_is_damage_if_the_mark_names_it(tmp_path):
    journal, _ = open_journal(tmp_path)
    journal.append(b"one")
    kept = journal.log_bytes
    journal.append(b"two")
    journal.rest()
    mark = (tmp_path / "mark").read_bytes()
    journal.rotate()
    journal.append(b"three")
    journal.close()
    (tmp_path / "mark").write_bytes(mark)  # What was written since went with the power.
    os.truncate(tmp_path / LOG, kept)
    payloads, damage = reopen(tmp_path)
    assert [b"one", b"three"] == payloads
    assert damage.startswith(f"{LOG} is damaged or ends at byte {kept}")
    assert ["damaged-log-00000001-1"] == names(tmp_path)


def test_a_mark_of_which_no_copy_is_readable_is_damage_and_is_written_again(tmp_path):
    kept, size = write_all(tmp_path, [b"one", b"two"])
    for offset in (0, BLOCK_BYTES):
        flip(tmp_path / "mark", offset)
    assert reopen(tmp_path) == (
        [b"one", b"two"],
        f"both copies in the file mark are damaged, so {LOG} may have lost synced records from byte {size} on",
    )
    assert ["damaged-log-00000001-2", "damaged-mark-1"] == names(tmp_path)
    flip(tmp_path / LOG, size - 1)
    assert f"{LOG} is damaged or ends at byte {kept}" in reopen(tmp_path)[1]


@pytest.mark.parametrize("offset", [0, BLOCK_BYTES])
def test_a_mark_of_which_one_copy_is_readable_is_enough(tmp_path, offset):
    write_all(tmp_path, [b"one", b"two"])
    flip(tmp_path / "mark", offset)
    assert ([b"one", b"two"], "") == reopen(tmp_path)
    flip(tmp_path / "mark", BLOCK_BYTES - offset)  # The start has written both again.
    assert ([b"one", b"two"], "") == reopen(tmp_path)


def test_a_directory_without_a_mark_gets_one_and_its_tail_counts_as_torn(tmp_path):
    kept, size = write_all(tmp_path, [b"one", b"two"])
    (tmp_path / "mark").unlink()
    flip(tmp_path / LOG, size - 1)
    assert ([b"one"], "") == reopen(tmp_path)
    flip(tmp_path / LOG, kept - 1)
    assert f"had been synced up to byte {kept}" in reopen(tmp_path)[1]


def test_damage_before_a_whole_record_is_an_error_as_ever(tmp_path):
    kept, _ = write_all(tmp_path, [b"one", b"two", b"three"])[:2]
    flip(tmp_path / LOG, kept)
    with pytest.raises(CorruptDataError, match=f"damaged at byte {kept}"):
        open_journal(tmp_path)


@pytest.mark.parametrize("keys", [(), (KEY,), (NEXT_KEY, KEY)])
def test_damage_is_known_to_every_start_until_it_is_cleared(tmp_path, keys):
    old_keys = keys[-1:]
    size = write_all(tmp_path, [b"one", b"two"], old_keys)[1]
    flip(tmp_path / LOG, size - 1)
    damage = reopen(tmp_path, old_keys)[1]
    assert damage
    journal, payloads = open_journal(tmp_path, keys=keys)
    assert ([b"one"], damage) == (payloads, journal.damage)
    journal.append(b"three")
    journal.write_snapshot(journal.rotate(), [b"one", b"three"], last=True)
    journal.append(b"four")
    journal.close()
    journal, payloads = open_journal(tmp_path, keys=keys)
    assert ([b"one", b"three", b"four"], damage) == (payloads, journal.damage)
    journal.clear_damage()
    assert "" == journal.damage
    journal.append(b"five")
    journal.close()
    for offset in (0, BLOCK_BYTES):  # No copy remembers it.
        assert ([b"one", b"three", b"four", b"five"], "") == reopen(tmp_path, keys)
        flip(tmp_path / "mark", offset)
    assert 1 == len(names(tmp_path))


def test_of_the_copies_of_damaged_files_the_newest_two_are_kept_and_other_files_stay(tmp_path):
    for name in ("damaged-7", "damaged-snapshot-00000001-9", "damaged-log-x-1"):
        (tmp_path / name).touch()
    for number in range(12):
        size = write_all(tmp_path, [b"record %d" % number, b"x"])[1]
        flip(tmp_path / LOG, size - 1)
        reopen(tmp_path)
    assert names(tmp_path) == [
        "damaged-7",
        "damaged-log-00000001-11",
        "damaged-log-00000001-12",
        "damaged-log-x-1",
        "damaged-snapshot-00000001-9",
    ]


class FullDisk(Disk):
    """Has no block left when told so: what lies in a file can be overwritten."""

    is_full = False

    def write(self, descriptor, data, offset_bytes):
        if self.is_full and offset_bytes + len(data) > os.fstat(descriptor).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(descriptor, data, offset_bytes)


def test_a_disk_too_full_for_a_copy_stops_no_recovery(tmp_path, caplog):
    size = write_all(tmp_path, [b"one", b"two"])[1]
    flip(tmp_path / LOG, size - 1)
    disk = FullDisk(tmp_path)
    disk.is_full = True
    journal, payloads = open_journal(tmp_path, disk)
    damage = journal.damage
    journal.close()
    assert [b"one"] == payloads
    assert f"had been synced up to byte {size}" in damage
    assert "no copy of the damaged log-00000001 could be kept" in caplog.text
    assert [] == names(tmp_path)
    assert ([b"one"], damage) == reopen(tmp_path)


def test_nothing_is_cut_nor_appended_before_the_damage_is_noted(tmp_path):
    size = write_all(tmp_path, [b"one", b"two"])[1]
    flip(tmp_path / LOG, size - 1)
    damaged = (tmp_path / LOG).read_bytes()
    disk = FaultyDisk(tmp_path)
    disk.is_full = True
    journal, _ = open_journal(tmp_path, disk)
    for _ in range(2):
        with pytest.raises(StorageFullError):
            journal.append(b"refused")
    with pytest.raises(OSError, match="space"):
        journal.rotate()
    assert damaged == (tmp_path / LOG).read_bytes()
    disk.is_full = False
    journal.append(b"three")
    journal.close()
    assert "had been synced up to" in journal.damage
    assert ([b"one", b"three"], journal.damage) == reopen(tmp_path)


def test_a_directory_of_before_on_a_full_disk_is_read_and_refuses_appends_until_the_mark_has_room(tmp_path):
    write_all(tmp_path, [b"one"])
    (tmp_path / "mark").unlink()
    disk = FullDisk(tmp_path)
    disk.is_full = True
    journal, payloads = open_journal(tmp_path, disk)
    assert [b"one"] == payloads
    with pytest.raises(StorageFullError):
        journal.append(b"refused")
    disk.is_full = False
    journal.append(b"two")
    end = journal.log_bytes
    journal.close()
    flip(tmp_path / LOG, end - 1)
    assert f"had been synced up to byte {end}" in reopen(tmp_path)[1]


class CopyOnWriteDisk(Disk):
    """Has no room for the next mark when told so, and takes a part of it, though the file has all its blocks."""

    room = None

    def write(self, descriptor, data, offset_bytes):
        if self.room is not None and data.startswith(b"JVMK"):
            super().write(descriptor, data[: self.room], offset_bytes)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(descriptor, data, offset_bytes)


@pytest.mark.parametrize("room", [0, 1, 100, 511])
def test_what_could_not_be_marked_is_refused_and_cut(tmp_path, room):
    disk = CopyOnWriteDisk(tmp_path)
    journal, _ = open_journal(tmp_path, disk)
    journal.append(b"one")
    disk.room = room
    with pytest.raises(StorageFullError):
        journal.append(b"refused")
    journal.close()
    journal, payloads = open_journal(tmp_path, disk)
    assert ([b"one"], "") == (payloads, journal.damage)
    with pytest.raises(StorageFullError):
        journal.append(b"refused")
    disk.room = None
    journal.append(b"two")
    journal.close()
    assert ([b"one", b"two"], "") == reopen(tmp_path)


def test_a_record_that_a_killed_process_wrote_and_did_not_mark_is_kept_and_marked(tmp_path):
    size = write_all(tmp_path, [b"one"])[0]
    unmarked = encode_record(b"two", size)
    with (tmp_path / LOG).open("r+b") as log:
        log.seek(size)
        log.write(unmarked)
    assert ([b"one", b"two"], "") == reopen(tmp_path)
    flip(tmp_path / LOG, size + len(unmarked) - 1)
    payloads, damage = reopen(tmp_path)
    assert [b"one"] == payloads
    assert f"had been synced up to byte {size + len(unmarked)}" in damage


def test_the_mark_is_written_by_each_append_and_synced_by_rest(tmp_path, monkeypatch):
    journal, _ = open_journal(tmp_path)
    steps = []
    for name in ("pwrite", "fdatasync"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os,
            name,
            lambda descriptor, *rest, name=name, real=real: (
                steps.append((name, Path(f"/proc/self/fd/{descriptor}").readlink().name)),
                real(descriptor, *rest),
            )[1],
        )
    journal.append(b"one")
    assert [("pwrite", LOG), ("fdatasync", LOG), ("pwrite", "mark")] == steps
    steps.clear()
    journal.rest()
    journal.rest()
    assert [("fdatasync", "mark")] == steps


def test_a_failed_sync_of_the_mark_is_a_failed_disk_and_a_full_disk_is_none(tmp_path):
    disk = FaultyDisk(tmp_path)
    journal = Journal(disk, "node-0", random.Random(1))
    list(journal.recover())
    journal.append(b"one")
    real, number = disk.sync, errno.EIO

    def fail(_):
        raise OSError(number, os.strerror(number))

    disk.sync = fail
    with pytest.raises(OSError, match="Input/output"):
        journal.rest()
    number = errno.ENOSPC
    journal.rest()
    disk.sync = real
    journal.append(b"two")
    journal.rest()
    journal.close()
    assert ([b"one", b"two"], "") == reopen(tmp_path)
