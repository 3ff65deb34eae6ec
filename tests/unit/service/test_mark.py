"""The mark: what it says is read back or nothing is, whatever part of it was written."""

import errno
import os
import random
import zlib

import pytest

from crdt_service.disk.disk import Disk
from crdt_service.disk.mark import BLOCK_BYTES, COPY_BYTES, MARK, Copy, Mark, MarkFile, decode_copy, encode_copy

COPIES = [Copy(0, Mark(0, 0)), Copy(7, Mark(3, 1 << 40)), Copy(2**64 - 1, Mark(2**64 - 1, 2**64 - 1, "zerstört " * 40))]


@pytest.fixture
def disk(tmp_path):
    return Disk(tmp_path)


def make_file(disk, mark):
    file = MarkFile(disk)
    assert None is file.read()
    assert file.is_missing
    file.store(mark)
    return file


def seal(body):
    return body + zlib.crc32(body).to_bytes(4, "big")


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_read_back(copy):
    data = encode_copy(copy)
    assert COPY_BYTES == len(data)
    assert copy == decode_copy(data)


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_with_any_bit_flipped_or_any_part_of_it_missing_is_none(copy):
    data = encode_copy(copy)
    for offset in range(COPY_BYTES):
        flipped = bytearray(data)
        flipped[offset] ^= 1 << offset % 8
        assert None is decode_copy(bytes(flipped))
        assert None is decode_copy(data[:offset])
    assert None is decode_copy(data + b"\0")


def test_a_copy_written_in_part_over_another_is_none_or_one_of_both():
    old, new = encode_copy(COPIES[1]), encode_copy(Copy(8, Mark(3, (1 << 40) + 1)))
    found = [decode_copy(new[:length] + old[length:]) for length in range(COPY_BYTES + 1)]
    assert {COPIES[1], None, Copy(8, Mark(3, (1 << 40) + 1))} == set(found)


def test_hostile_bytes_behind_a_right_checksum_are_none_or_what_they_say():
    body = encode_copy(COPIES[1])[:-4]
    no_text, text_too_long, no_utf_8 = body[:28] + b"\0\1\0", body[:28] + b"\xff\xff", body[:28] + b"\0\1\xff"
    for hostile in (b"JVMX" + body[4:], body[:-1] + b"x", text_too_long, no_utf_8, bytes(COPY_BYTES - 4)):
        assert None is decode_copy(seal(hostile.ljust(COPY_BYTES - 4, b"\0")))
    assert "\0" == decode_copy(seal(no_text.ljust(COPY_BYTES - 4, b"\0"))).mark.damage
    randomness = random.Random(1)
    for _ in range(1000):
        data = seal(body[: randomness.randrange(len(body))].ljust(COPY_BYTES - 4, randomness.randbytes(1)))
        assert decode_copy(data) is None or data == encode_copy(decode_copy(data))


def test_a_text_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="room for"):
        encode_copy(Copy(1, Mark(1, 1, "x" * COPY_BYTES)))


def test_the_newer_copy_counts_and_either_one_is_enough(disk, tmp_path):
    file = make_file(disk, Mark(1, 0))
    for end_bytes in range(1, 6):
        file.write(Mark(1, end_bytes))
        file.sync()
        assert Mark(1, end_bytes) == MarkFile(disk).read()
    whole = (tmp_path / MARK).read_bytes()
    found = set()
    for offset in (0, BLOCK_BYTES):
        (tmp_path / MARK).write_bytes(whole[:offset] + bytes(COPY_BYTES) + whole[offset + COPY_BYTES :])
        found.add(MarkFile(disk).read())
    assert {Mark(1, 4), Mark(1, 5)} == found


@pytest.mark.parametrize("data", [b"", b"x", bytes(2 * BLOCK_BYTES), b"JVMK" * 3000])
def test_a_file_without_a_readable_copy_is_there_and_says_nothing_until_it_is_stored_again(disk, tmp_path, data):
    (tmp_path / MARK).write_bytes(data)
    file = MarkFile(disk)
    assert (None, False) == (file.read(), file.is_missing)
    file.store(Mark(2, 9))
    file.close()
    whole = (tmp_path / MARK).read_bytes()
    assert {Mark(2, 9)} == {decode_copy(whole[at : at + COPY_BYTES]).mark for at in (0, BLOCK_BYTES)}


def test_writes_between_two_syncs_leave_the_synced_copy_alone_even_after_a_kill(disk, tmp_path):
    """So a power loss, which may tear all that was written since, leaves it readable."""
    file = make_file(disk, Mark(1, 0))
    randomness = random.Random(1)
    synced = last = 0
    for step in range(200):
        before = (tmp_path / MARK).read_bytes()
        if randomness.random() < 0.3:
            file.sync()
            synced = last
        elif randomness.random() < 0.1:
            file.close()  # As a kill does: nothing is synced.
            file = MarkFile(disk)
            assert Mark(1, last) == file.read()
            file.store(Mark(1, last))
            synced = last
        else:
            last = step
            file.write(Mark(1, last))
            after = (tmp_path / MARK).read_bytes()
            changed = [at for at in (0, BLOCK_BYTES) if before[at : at + COPY_BYTES] != after[at : at + COPY_BYTES]]
            assert 1 == len(changed)
            torn = after[: changed[0]] + randomness.randbytes(COPY_BYTES) + after[changed[0] + COPY_BYTES :]
            (tmp_path / MARK).write_bytes(torn)
            assert Mark(1, synced) == MarkFile(disk).read()
            (tmp_path / MARK).write_bytes(after)
        assert Mark(1, last) == MarkFile(disk).read()
    assert 2 * BLOCK_BYTES == (tmp_path / MARK).stat().st_size


class RecordingDisk(Disk):
    """Notes which blocks were written to since the last sync."""

    def __init__(self, directory):
        super().__init__(directory)
        self.unsynced = set()

    def write(self, descriptor, data, offset_bytes):
        super().write(descriptor, data, offset_bytes)
        self.unsynced.update(range(offset_bytes // BLOCK_BYTES, -(-(offset_bytes + len(data)) // BLOCK_BYTES)))

    def sync(self, descriptor):
        super().sync(descriptor)
        self.unsynced.clear()


def test_a_start_after_a_kill_syncs_what_was_written_before_it_writes_to_the_other_copy(tmp_path):
    disk = RecordingDisk(tmp_path)
    file = make_file(disk, Mark(1, 0))
    for end_bytes in range(1, 4):
        file.write(Mark(1, end_bytes))
        file.close()
        assert 1 == len(disk.unsynced)
        file = MarkFile(disk)
        file.read()
        real_write, seen = disk.write, []

        def write(descriptor, data, offset_bytes, real_write=real_write, seen=seen):
            real_write(descriptor, data, offset_bytes)
            seen.append(len(disk.unsynced))

        disk.write = write
        file.store(Mark(1, end_bytes))
        disk.write = real_write
        assert [1, 1] == seen


class CountingDisk(Disk):
    """Counts syncs of files, and fails the next one with `error`."""

    syncs = 0
    error = 0

    def sync(self, descriptor):
        self.syncs += 1
        if self.error:
            number, self.error = self.error, 0
            raise OSError(number, os.strerror(number))
        super().sync(descriptor)


def test_what_is_synced_is_not_synced_again(tmp_path):
    disk = CountingDisk(tmp_path)
    file = make_file(disk, Mark(1, 0))
    before = disk.syncs
    file.sync()
    file.write(Mark(1, 1))
    file.write(Mark(1, 2))
    file.sync()
    file.sync()
    assert before + 1 == disk.syncs


def test_a_sync_that_failed_leaves_the_synced_copy_alone(tmp_path):
    disk = CountingDisk(tmp_path)
    file = make_file(disk, Mark(1, 0))
    file.write(Mark(1, 1))
    disk.error = errno.ENOSPC
    with pytest.raises(OSError, match="space"):
        file.sync()
    before = (tmp_path / MARK).read_bytes()
    file.write(Mark(1, 2))
    after = (tmp_path / MARK).read_bytes()
    same = [before[at : at + COPY_BYTES] == after[at : at + COPY_BYTES] for at in (0, BLOCK_BYTES)]
    kept = same.index(True) * BLOCK_BYTES
    assert Mark(1, 0) == decode_copy(after[kept : kept + COPY_BYTES]).mark
    file.sync()
    assert Mark(1, 2) == MarkFile(disk).read()


def test_a_file_that_could_not_be_made_is_made_later(tmp_path):
    disk = CountingDisk(tmp_path)
    file = MarkFile(disk)
    file.read()
    disk.error = errno.ENOSPC
    with pytest.raises(OSError, match="space"):
        file.store(Mark(1, 0))
    assert MARK not in disk.names()
    file.store(Mark(1, 5))
    assert Mark(1, 5) == MarkFile(disk).read()
    assert [MARK] == disk.names()
