import os
import random

import pytest

from crdt_service.disk.disk import Disk
from crdt_service.disk.journal import Journal
from crdt_service.kernel.error import ConfigError, CorruptDataError, StorageFullError
from crdt_service.wire.record import encode_record
from tests.unit.service.double import FaultyDisk

LOG = "log-00000001"


def open_journal(directory, disk=None):
    journal = Journal(disk or Disk(directory), "node-0", random.Random(1))
    return journal, list(journal.recover())


def write_all(directory, payloads):
    journal, _ = open_journal(directory)
    for payload in payloads:
        journal.append(payload)
    journal.close()


def test_records_and_replica_id_survive(tmp_path):
    write_all(tmp_path, [b"one", b"two"])
    journal, payloads = open_journal(tmp_path)
    assert payloads == [b"one", b"two"]
    assert journal.replica.startswith("node-0~")
    replica = journal.replica
    journal.close()
    assert open_journal(tmp_path)[0].replica == replica


def test_a_tail_torn_at_any_byte_is_cut_and_writing_goes_on(tmp_path):
    write_all(tmp_path, [b"one", b"two"])
    whole = (tmp_path / LOG).read_bytes()
    kept = len(encode_record(b"one", 0))
    for size in range(len(whole)):
        (tmp_path / LOG).write_bytes(whole[:size])
        journal, payloads = open_journal(tmp_path)
        assert payloads == ([] if size < kept else [b"one"])
        journal.append(b"new")
        journal.close()
        journal, again = open_journal(tmp_path)
        assert again == [*payloads, b"new"]
        journal.close()


def test_a_tail_of_zeros_is_cut(tmp_path):
    write_all(tmp_path, [b"one"])
    with (tmp_path / LOG).open("ab") as log:
        log.write(bytes(500))
    assert open_journal(tmp_path)[1] == [b"one"]


@pytest.mark.parametrize("offset", range(len(encode_record(b"one", 0))))
def test_a_flipped_byte_before_a_synced_record_is_no_torn_tail(tmp_path, offset):
    write_all(tmp_path, [b"one", b"two"])
    data = bytearray((tmp_path / LOG).read_bytes())
    data[offset] ^= 0x40
    (tmp_path / LOG).write_bytes(data)
    with pytest.raises(CorruptDataError, match="damaged at byte 0"):
        open_journal(tmp_path)


def test_each_append_is_on_the_medium_before_it_returns(tmp_path, monkeypatch):
    journal, _ = open_journal(tmp_path)
    synced = []
    monkeypatch.setattr("os.fdatasync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    journal.append(b"one")
    journal.append(b"two")
    assert synced == [len(encode_record(b"one", 0)), journal.log_bytes]


def test_a_snapshot_is_on_the_medium_before_it_replaces_anything(tmp_path, monkeypatch):
    journal, _ = open_journal(tmp_path)
    number = journal.rotate()
    steps = []
    monkeypatch.setattr("os.fdatasync", lambda descriptor: steps.append("file"))
    monkeypatch.setattr("os.fsync", lambda descriptor: steps.append("directory"))
    real_rename = Disk.rename
    monkeypatch.setattr(Disk, "rename", lambda *names: (steps.append("rename"), real_rename(*names)))
    journal.write_snapshot(number, [b"all"], last=True)
    assert steps == ["file", "rename", "directory", "directory"]


def test_a_users_bytes_that_look_like_a_record_do_not_hide_a_torn_tail(tmp_path):
    write_all(tmp_path, [b"one", b"user: " + encode_record(b"forged", 0) + b"."])
    log = tmp_path / LOG
    log.write_bytes(log.read_bytes()[:-1])
    assert open_journal(tmp_path)[1] == [b"one"]


def test_a_full_disk_refuses_and_leaves_the_log_whole(tmp_path):
    disk = FaultyDisk(tmp_path)
    journal, _ = open_journal(tmp_path, disk)
    journal.append(b"one")
    disk.is_full = True
    with pytest.raises(StorageFullError):
        journal.append(b"refused")
    disk.is_full = False
    journal.append(b"two")
    journal.close()
    assert open_journal(tmp_path)[1] == [b"one", b"two"]


def test_a_snapshot_replaces_the_logs_before_it(tmp_path):
    journal, _ = open_journal(tmp_path)
    journal.append(b"old")
    number = journal.rotate()
    journal.append(b"new")
    journal.write_snapshot(number, [b"part 1"], last=False)
    journal.write_snapshot(number, [b"part 2"], last=True)
    journal.append(b"newer")
    journal.close()
    assert open_journal(tmp_path)[1] == [b"part 1", b"part 2", b"new", b"newer"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "log-00000002", "meta", "snapshot-00000002"]


def test_a_crash_before_the_snapshot_is_published_loses_nothing(tmp_path):
    journal, _ = open_journal(tmp_path)
    journal.append(b"old")
    number = journal.rotate()
    journal.append(b"new")
    journal.write_snapshot(number, [b"half"], last=False)
    journal.close()
    journal, payloads = open_journal(tmp_path)
    assert payloads == [b"old", b"new"]
    assert not list(tmp_path.glob("*.new"))


def test_a_snapshot_on_a_full_disk_keeps_the_logs(tmp_path):
    disk = FaultyDisk(tmp_path)
    journal, _ = open_journal(tmp_path, disk)
    journal.append(b"old")
    number = journal.rotate()
    disk.is_full = True
    with pytest.raises(OSError, match="No space"):
        journal.write_snapshot(number, [b"snapshot"], last=False)
    disk.is_full = False
    journal.append(b"new")
    journal.close()
    assert open_journal(tmp_path)[1] == [b"old", b"new"]


def test_a_second_writer_is_refused(tmp_path):
    journal, _ = open_journal(tmp_path)
    with pytest.raises(ConfigError, match="another process writes there"):
        open_journal(tmp_path)
    journal.close()
    open_journal(tmp_path)


def test_another_nodes_directory_is_refused(tmp_path):
    write_all(tmp_path, [])
    with pytest.raises(ConfigError, match="belongs to node node-0"):
        Journal(Disk(tmp_path), "node-1", random.Random(1))
    open_journal(tmp_path)
