"""Encryption at rest: nothing readable on disk, no record can be moved, and a key that is missing is named."""

import random
from collections import Counter

import pytest

from crdt_service.disk.disk import Disk
from crdt_service.disk.journal import Journal
from crdt_service.kernel.error import ConfigError, CorruptDataError, StorageFullError
from crdt_service.wire.record import END, MAGIC, SEALED, RecordScan, encode_record
from crdt_service.wire.seal import FileSeal, Key
from tests.unit.service.double import FaultyDisk

KEY = Key(b"k" * 32)
NEXT_KEY = Key(b"n" * 32)
SECRET = b"the user's words"


def open_journal(directory, keys=(KEY,), disk=None):
    journal = Journal(disk or Disk(directory), "node-0", random.SystemRandom(), keys)
    try:
        return journal, list(journal.recover())
    except BaseException:
        journal.close()
        raise


def write_all(directory, payloads, keys=(KEY,)):
    journal, _ = open_journal(directory, keys)
    for payload in payloads:
        journal.append(payload)
    journal.close()


def records(path):
    return list(RecordScan(lambda offset, size: path.read_bytes()[offset : offset + size]))


def nonces(path):
    return [body[:12] for kind, _, body in records(path) if kind == b"2"]


def test_no_file_holds_what_was_written_nor_the_key(tmp_path):
    journal, _ = open_journal(tmp_path)
    journal.append(SECRET)
    number = journal.rotate()
    journal.write_snapshot(number, [SECRET], last=True)
    journal.append(SECRET)
    journal.close()
    for path in tmp_path.iterdir():
        assert SECRET not in path.read_bytes(), path.name
        assert KEY.secret not in path.read_bytes(), path.name
    assert [SECRET, SECRET] == open_journal(tmp_path)[1]


def test_a_key_does_not_show_itself(tmp_path):
    assert "kkk" not in repr(KEY)
    write_all(tmp_path, [SECRET])
    with pytest.raises(ConfigError) as refused:
        open_journal(tmp_path, [NEXT_KEY])
    assert "kkk" not in str(refused.value)
    assert "nnn" not in str(refused.value)


def test_a_record_at_the_offset_of_one_that_a_full_disk_refused_has_another_nonce(tmp_path):
    disk = FaultyDisk(tmp_path)
    journal, _ = open_journal(tmp_path, disk=disk)
    journal.append(b"one")
    attempts = []
    real_write = disk.write
    disk.write = lambda descriptor, data, offset: (
        attempts.append((offset, data)),
        real_write(descriptor, data, offset),
    )
    disk.is_full = True
    for payload in (b"refused", b"refused again"):
        with pytest.raises(StorageFullError):
            journal.append(payload)
    disk.is_full = False
    journal.append(b"two")
    records = [(offset, data) for offset, data in attempts if data.startswith(MAGIC)]
    assert 1 == len({offset for offset, _ in records})
    assert 3 == len({data[16:28] for _, data in records})


def test_no_nonce_comes_again_under_one_key_of_a_file_after_torn_tails_and_restarts(tmp_path):
    seen = Counter()
    log = tmp_path / "log-00000001"
    for number in range(20):
        write_all(tmp_path, [b"payload %d" % number])
        salt = records(log)[0].body
        offset = records(log)[-1].offset_bytes
        seen[salt, nonces(log)[-1]] += 1
        log.write_bytes(log.read_bytes()[: offset + 20])  # The record did not reach the disk as a whole.
    assert {1} == set(seen.values())


def test_a_log_that_is_written_anew_has_another_salt(tmp_path):
    log = tmp_path / "log-00000001"
    write_all(tmp_path, [b"one"])
    first = records(log)[0].body
    log.write_bytes(b"")
    write_all(tmp_path, [b"one"])
    assert first != records(log)[0].body


def test_a_record_cannot_be_moved_within_its_file(tmp_path):
    write_all(tmp_path, [b"one", b"two"])
    log = tmp_path / "log-00000001"
    header, one, two = records(log)
    moved = encode_record(header.body, 0, header.kind)
    for record in (two, one):
        moved += encode_record(record.body, len(moved), record.kind)  # Its checksums are right.
    log.write_bytes(moved)
    with pytest.raises(CorruptDataError, match=f"damaged at byte {one.offset_bytes}"):
        open_journal(tmp_path)


def test_a_record_cannot_be_moved_to_another_file(tmp_path):
    write_all(tmp_path, [b"one"])
    (tmp_path / "log-00000001").rename(tmp_path / "log-00000002")
    with pytest.raises(CorruptDataError, match="log-00000002 is damaged"):
        open_journal(tmp_path)


def test_a_plain_record_in_a_sealed_file_is_refused(tmp_path):
    write_all(tmp_path, [b"one"])
    log = tmp_path / "log-00000001"
    header, one = records(log)
    data = encode_record(header.body, 0, header.kind)
    log.write_bytes(data + encode_record(b"forged", len(data)))
    with pytest.raises(CorruptDataError, match=f"damaged at byte {one.offset_bytes}"):
        open_journal(tmp_path)


@pytest.mark.parametrize(
    ("keys", "says"),
    [((), f"encrypted with key {KEY.id}, and none is given"), ((NEXT_KEY,), f"the given ones are {NEXT_KEY.id}")],
)
def test_a_missing_or_wrong_key_is_told_and_changes_nothing(tmp_path, keys, says):
    write_all(tmp_path, [b"one"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=says):
        open_journal(tmp_path, keys)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize(("old", "new"), [((), (KEY,)), ((KEY,), (NEXT_KEY, KEY))])
def test_a_new_key_reads_what_is_there_seals_what_comes_and_asks_for_a_checkpoint(tmp_path, old, new):
    write_all(tmp_path, [b"before"], old)
    journal, payloads = open_journal(tmp_path, new)
    assert [b"before"] == payloads
    assert journal.needs_rewrite
    journal.append(SECRET)
    number = journal.rotate()
    journal.write_snapshot(number, [b"all"], last=True)
    journal.close()
    journal, payloads = open_journal(tmp_path, new[:1])  # The old key is needed no more.
    assert [b"all"] == payloads
    assert not journal.needs_rewrite


@pytest.mark.parametrize(("old", "new"), [((), (KEY,)), ((KEY,), (NEXT_KEY, KEY))])
def test_a_crash_before_that_checkpoint_loses_nothing(tmp_path, old, new):
    write_all(tmp_path, [b"before"], old)
    for number in range(3):
        journal, payloads = open_journal(tmp_path, new)
        assert [b"before", *(b"%d" % other for other in range(number))] == payloads
        assert journal.needs_rewrite
        journal.append(b"%d" % number)
        journal.close()
    key_ids = [records(path)[0].body[:8].hex() for path in sorted(tmp_path.glob("log-*"))[1:]]
    assert [new[0].id] * len(key_ids) == key_ids


def test_an_empty_directory_needs_no_checkpoint(tmp_path):
    journal, _ = open_journal(tmp_path)
    assert not journal.needs_rewrite


def test_a_seal_is_bound_to_name_offset_kind_and_salt():
    seal = FileSeal.create(KEY, "log-1", random.Random(1))
    body = seal.seal(SECRET, 40, SEALED, random.Random(2))
    assert SECRET == FileSeal(KEY, seal.header[8:], "log-1").open(body, 40, SEALED)
    assert FileSeal(KEY, seal.header[8:], "log-2").open(body, 40, SEALED) is None
    assert FileSeal(KEY, seal.header[8:], "log-1").open(body, 41, SEALED) is None
    assert FileSeal(KEY, seal.header[8:], "log-1").open(body, 40, END) is None
    assert FileSeal.create(KEY, "log-1", random.Random(3)).open(body, 40, SEALED) is None
    assert seal.open(body[:11], 40, SEALED) is None
