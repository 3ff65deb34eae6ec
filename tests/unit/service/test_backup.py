"""Backups: what a file holds, that a cut or altered one is told, and how a node serves its parts."""

import random

import pytest

from crdt_service.backup.file import BackupReader, BackupWriter, DamagedBackupError, make_header
from crdt_service.kernel.clock import HybridClock
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.loops import backup as source_room
from crdt_service.loops.backup import IDLE_SECONDS_MAX, BackupSource
from crdt_service.store.batch import Batch
from crdt_service.store.store import Store
from crdt_service.wire.message import BackupRequest, Delta
from crdt_service.wire.record import RecordScan
from crdt_service.wire.seal import Key
from tests.unit.service.double import FakeClock

KEY = Key(b"k" * 32)
STATES = [[Delta("a", 1, 1, b"one"), Delta("b", 1, 1, b"two")], [], [Delta("c", 2, 1, b"three")]]


def write(path, keys=(), states=STATES):
    writer = BackupWriter(path, keys, random.Random(1), make_header("node-0", "node-0~1", 12.5, 3))
    for part in states:
        writer.add(part)
    return writer.finish()


def read(path, keys=()):
    reader = BackupReader(path, keys)
    return list(reader.read()), reader.summary


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_a_backup_reads_back_with_its_summary_and_leaves_no_part(tmp_path, keys):
    path = tmp_path / "backup"
    summary = write(path, keys)
    assert (STATES, summary) == read(path, keys)
    assert ("node-0", "node-0~1", 12.5, 3) == (summary.node_id, summary.replica, summary.started_at, summary.states)
    assert path.stat().st_size == summary.file_bytes
    assert (keys[0].id if keys else "") == summary.key_id
    assert ["backup"] == [entry.name for entry in tmp_path.iterdir()]


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_a_backup_cut_at_any_byte_is_told_from_a_whole_one(tmp_path, keys):
    path = tmp_path / "backup"
    write(path, keys)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedBackupError):
            BackupReader(path, keys).verify()


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_a_flipped_bit_anywhere_is_told(tmp_path, keys):
    path = tmp_path / "backup"
    write(path, keys)
    whole = path.read_bytes()
    for offset in range(len(whole)):
        data = bytearray(whole)
        data[offset] ^= 1 << offset % 8
        path.write_bytes(data)
        with pytest.raises(DamagedBackupError):
            BackupReader(path, keys).verify()


def test_a_part_that_is_left_out_or_doubled_is_told(tmp_path):
    path = tmp_path / "backup"
    write(path)
    data = path.read_bytes()
    starts = [record.offset_bytes for record in RecordScan(lambda offset, size: data[offset : offset + size])]
    path.write_bytes(data[: starts[1]] + data[starts[2] :])
    with pytest.raises(DamagedBackupError):
        BackupReader(path, ()).verify()
    path.write_bytes(data + data)
    with pytest.raises(DamagedBackupError):
        BackupReader(path, ()).verify()


def test_what_is_no_backup_is_told(tmp_path):
    path = tmp_path / "backup"
    for data in (b"", b"hello", bytes(100)):
        path.write_bytes(data)
        with pytest.raises(DamagedBackupError):
            BackupReader(path, ()).verify()
    with pytest.raises(ConfigError, match="cannot read the backup"):
        BackupReader(tmp_path / "missing", ()).verify()


def test_a_sealed_backup_shows_nothing_and_names_the_key_it_needs(tmp_path):
    path = tmp_path / "backup"
    write(path, [KEY])
    assert b"three" not in path.read_bytes()
    with pytest.raises(ConfigError, match=KEY.id):
        BackupReader(path, ()).verify()


def test_an_existing_file_is_kept_and_an_aborted_backup_leaves_nothing(tmp_path):
    path = tmp_path / "backup"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="such a file already"):
        write(path)
    assert "precious" == path.read_text()
    writer = BackupWriter(tmp_path / "other", (), random.Random(1), make_header("n", "n~1", 0.0, 0))
    writer.add([])
    writer.abort()
    assert ["backup"] == [entry.name for entry in tmp_path.iterdir()]


def make_source(count):
    clock = FakeClock()
    hybrid = HybridClock(clock)
    store = Store(hybrid)
    batch = Batch(store, hybrid, "node-0~1")
    for number in range(count):
        batch.write(f"key-{number}", "pn_counter", b'{"increment": 1}')
    batch.install()
    return BackupSource(store, clock), store, hybrid, clock


def increment(store, hybrid, key):
    batch = Batch(store, hybrid, "node-0~1")
    batch.write(key, "pn_counter", b'{"increment": 1}')
    batch.install()


def test_all_that_was_there_when_it_began_comes_in_bounded_parts_while_writes_go_on(monkeypatch):
    monkeypatch.setattr(source_room, "PART_KEYS_MAX", 4)
    source, store, hybrid, _ = make_source(10)
    found, part, is_last = [], 0, False
    while not is_last:
        reply = source.answer(BackupRequest(1, "b", part))
        found.append([delta.key for delta in reply.deltas])
        is_last = reply.is_last
        increment(store, hybrid, f"new-{part}")
        increment(store, hybrid, "key-9")
        part += 1
    assert [4, 4, 2] == [len(keys) for keys in found]
    assert {f"key-{number}" for number in range(10)} == {key for keys in found for key in keys}
    assert 10 == reply.total


def test_a_part_holds_few_bytes_too(monkeypatch):
    monkeypatch.setattr(source_room, "PART_BYTES_MAX", 1)
    source, *_ = make_source(3)
    assert 1 == len(source.answer(BackupRequest(1, "b", 0)).deltas)


def test_an_empty_node_has_an_empty_backup():
    source, *_ = make_source(0)
    reply = source.answer(BackupRequest(1, "b", 0))
    assert ([], True, 0) == (reply.deltas, reply.is_last, reply.total)


def test_one_backup_at_a_time_until_it_ends_or_is_abandoned(monkeypatch):
    monkeypatch.setattr(source_room, "PART_KEYS_MAX", 1)
    source, _, _, clock = make_source(3)
    source.answer(BackupRequest(1, "first", 0))
    with pytest.raises(ServiceError, match="another backup"):
        source.answer(BackupRequest(2, "second", 0))
    clock.seconds += IDLE_SECONDS_MAX
    source.answer(BackupRequest(3, "second", 0))
    for name, part in (("first", 1), ("second", 2), ("second", 0)):
        with pytest.raises(ServiceError):
            source.answer(BackupRequest(4, name, part))
    source.answer(BackupRequest(5, "second", 1))
    assert source.answer(BackupRequest(6, "second", 2)).is_last
    source.answer(BackupRequest(7, "third", 0))
