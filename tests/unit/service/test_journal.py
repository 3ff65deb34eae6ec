import errno
import fcntl
import os
import random
import subprocess
import sys
import textwrap

import pytest

from crdt_service.backup.destination import Folder
from crdt_service.disk.disk import Disk
from crdt_service.disk.journal import ALLOCATED_BYTES, Journal
from crdt_service.kernel.error import ConfigError, CorruptDataError, StorageFullError
from crdt_service.wire import record
from crdt_service.wire.record import RecordScan, encode_record
from crdt_service.wire.seal import Key
from tests.unit.service.double import FaultyDisk

LOG = "log-00000001"
KEY = Key(b"k" * 32)
OTHER_KEY = Key(b"o" * 32)


def open_journal(directory, disk=None, keys=()):
    journal = Journal(disk or Disk(directory), "node-0", random.Random(1), keys)
    try:
        return journal, list(journal.recover())
    except BaseException:
        journal.close()
        raise


def write_all(directory, payloads, keys=()):
    """Return the sizes of the log after each."""
    return [size for size, _ in write_marked(directory, payloads, keys)]


def write_marked(directory, payloads, keys=()):
    """Return the sizes of the log after each, and what the file mark held."""
    journal, _ = open_journal(directory, keys=keys)
    states = []
    for payload in payloads:
        journal.append(payload)
        states.append((journal.log_bytes, (directory / "mark").read_bytes()))
    journal.close()
    return states


def test_records_and_replica_id_survive(tmp_path):
    write_all(tmp_path, [b"one", b"two"])
    journal, payloads = open_journal(tmp_path)
    assert payloads == [b"one", b"two"]
    assert journal.replica.startswith("node-0~")
    replica = journal.replica
    journal.close()
    assert open_journal(tmp_path)[0].replica == replica


@pytest.mark.parametrize("keys", [(), (KEY,)])
@pytest.mark.parametrize("zeros", [0, 5000])
def test_a_tail_torn_at_any_byte_is_cut_and_writing_goes_on(tmp_path, keys, zeros):
    journal, _ = open_journal(tmp_path, keys=keys)
    journal.close()
    empty = (tmp_path / "mark").read_bytes()
    (kept, mark), (size, _) = write_marked(tmp_path, [b"one", b"two"], keys)
    whole = (tmp_path / LOG).read_bytes()[:size]
    for length in range(len(whole)):
        torn = whole[:length] + bytes(zeros)
        (tmp_path / LOG).write_bytes(torn)
        (tmp_path / "mark").write_bytes(mark if length >= kept else empty)
        journal, payloads = open_journal(tmp_path, keys=keys)
        assert payloads == ([b"one"] if torn.startswith(whole[:kept]) else [])
        journal.append(b"new")
        journal.close()
        journal, again = open_journal(tmp_path, keys=keys)
        assert again == [*payloads, b"new"]
        assert "" == journal.damage
        journal.close()
    assert not list(tmp_path.glob("damaged-*"))


def test_a_tail_of_zeros_is_cut(tmp_path):
    write_all(tmp_path, [b"one"])
    with (tmp_path / LOG).open("ab") as log:
        log.write(bytes(500))
    assert open_journal(tmp_path)[1] == [b"one"]


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_a_flipped_bit_before_a_synced_record_is_damage_at_a_named_byte(tmp_path, keys, bit):
    sizes = write_all(tmp_path, [b"one", b"two"], keys)
    header = sizes[0] - (sizes[1] - sizes[0])  # Of a sealed file.
    whole = (tmp_path / LOG).read_bytes()
    for offset in range(sizes[0]):
        data = bytearray(whole)
        data[offset] ^= 1 << bit
        (tmp_path / LOG).write_bytes(data)
        with pytest.raises(CorruptDataError) as damaged:
            open_journal(tmp_path, keys=keys)
        damaged_at = header if offset >= header else 0
        assert f"{tmp_path / LOG} is damaged at byte {damaged_at}" == damaged.value.message


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_a_flipped_bit_in_a_snapshot_is_damage_even_at_its_end(tmp_path, keys):
    journal, _ = open_journal(tmp_path, keys=keys)
    number = journal.rotate()
    journal.write_snapshot(number, [b"part 1", b"part 2"], last=True)
    journal.close()
    path = tmp_path / "snapshot-00000002"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match="snapshot-00000002 is damaged at byte"):
        open_journal(tmp_path, keys=keys)


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_a_snapshot_that_lost_its_last_records_is_damage(tmp_path, keys):
    journal, _ = open_journal(tmp_path, keys=keys)
    number = journal.rotate()
    journal.write_snapshot(number, [b"part 1", b"part 2"], last=True)
    journal.close()
    path = tmp_path / "snapshot-00000002"
    data = path.read_bytes()
    for found in list(RecordScan(lambda offset, size: data[offset : offset + size])):
        path.write_bytes(data[: found.offset_bytes])
        with pytest.raises(CorruptDataError, match=f"snapshot-00000002 is damaged at byte {found.offset_bytes}"):
            open_journal(tmp_path, keys=keys)


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_an_empty_snapshot_is_whole(tmp_path, keys):
    journal, _ = open_journal(tmp_path, keys=keys)
    journal.write_snapshot(journal.rotate(), [], last=True)
    journal.close()
    journal, payloads = open_journal(tmp_path, keys=keys)
    assert [] == payloads
    assert not journal.needs_rewrite


def test_zeros_behind_a_log_that_is_not_the_newest_are_damage(tmp_path):
    journal, _ = open_journal(tmp_path)
    journal.append(b"one")
    journal.rotate()
    journal.append(b"two")
    journal.close()
    with (tmp_path / LOG).open("ab") as log:
        log.write(bytes(10))
    with pytest.raises(CorruptDataError, match=LOG):
        open_journal(tmp_path)


class CountingDisk(Disk):
    """Notes the largest read."""

    largest = 0

    def read(self, name, offset_bytes, size_bytes):
        data = super().read(name, offset_bytes, size_bytes)
        self.largest = max(self.largest, len(data), size_bytes)
        return data


@pytest.mark.parametrize("keys", [(), (KEY,)])
@pytest.mark.parametrize("payload_bytes", [100, 3000, 7000])
def test_recovery_holds_a_part_of_a_file_whatever_its_size(tmp_path, monkeypatch, keys, payload_bytes):
    monkeypatch.setattr(record, "WINDOW_BYTES", 4096)
    payloads = [random.Random(number).randbytes(payload_bytes) for number in range(100)]
    write_all(tmp_path, payloads, keys)
    disk = CountingDisk(tmp_path)
    journal, found = open_journal(tmp_path, disk, keys)
    assert payloads == found
    assert disk.largest <= max(4096, payload_bytes + 100)
    journal.close()


def test_a_torn_tail_is_told_from_damage_across_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "WINDOW_BYTES", 64)
    sizes = write_all(tmp_path, [b"one", b"x" * 500, b"two"])
    whole = (tmp_path / LOG).read_bytes()
    (tmp_path / LOG).write_bytes(whole[: sizes[1] - 1] + bytes(300))
    journal, payloads = open_journal(tmp_path)
    assert [b"one"] == payloads
    journal.close()
    data = bytearray(whole)
    data[sizes[0] + 40] ^= 1
    (tmp_path / LOG).write_bytes(data)
    with pytest.raises(CorruptDataError, match=f"damaged at byte {sizes[0]}"):
        open_journal(tmp_path)


def test_each_append_is_on_the_medium_before_it_returns(tmp_path, monkeypatch):
    journal, _ = open_journal(tmp_path)
    synced = []
    monkeypatch.setattr("os.fdatasync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    journal.append(b"one")
    journal.append(b"two")
    assert synced == [ALLOCATED_BYTES, ALLOCATED_BYTES]
    assert (tmp_path / LOG).read_bytes()[: journal.log_bytes].endswith(b"two")


def test_a_log_is_enlarged_ahead_once_for_many_records(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(Disk, "allocate", lambda _, descriptor, offset, size: calls.append((offset, size)))
    journal, _ = open_journal(tmp_path)
    for _ in range(100):
        journal.append(b"x" * (ALLOCATED_BYTES // 50))
    assert 3 == len(calls)
    assert (0, ALLOCATED_BYTES) == calls[0]


def test_where_nothing_can_be_allocated_ahead_writes_go_on_while_they_fit(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Disk, "allocate", refuse)
    journal, _ = open_journal(tmp_path)
    journal.append(b"one")
    journal.append(b"two")
    assert journal.log_bytes == (tmp_path / LOG).stat().st_size
    journal.close()
    assert [b"one", b"two"] == open_journal(tmp_path)[1]


def test_a_file_size_limit_refuses_as_a_failed_disk_and_loses_nothing(tmp_path):
    """The kernel itself cuts the write here: EFBIG, which is no full disk, so the process must end."""
    program = textwrap.dedent("""
        import errno, random, resource, signal, sys
        from pathlib import Path
        from crdt_service.disk.disk import Disk
        from crdt_service.disk.journal import Journal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        journal = Journal(Disk(Path(sys.argv[1])), "node-0", random.Random())
        list(journal.recover())
        journal.append(b"one")
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000000, 5000000))
        for _ in range(100):
            try:
                journal.append(bytes(100_000))
            except OSError as error:
                sys.exit(0 if error.errno == errno.EFBIG else 1)
        sys.exit(2)
    """)
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert 0 == done.returncode
    _, payloads = open_journal(tmp_path)
    assert b"one" == payloads[0]
    assert {bytes(100_000)} == set(payloads[1:])


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
    size = write_all(tmp_path, [b"one", b"user: " + encode_record(b"forged", 0) + b"."])[1]
    log = tmp_path / LOG
    log.write_bytes(log.read_bytes()[: size - 1])
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
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "lock",
        "log-00000002",
        "mark",
        "meta",
        "snapshot-00000002",
    ]


STRANGERS = (
    "log-00000001.bak",
    "log-00000001~",
    "log-000000001",
    "log-1",
    "log-00000001.gz.new",
    "snapshot-old",
    "snapshot-00000001.new.bak",
    "meta.orig.new",
    "notes",
)


def test_files_of_others_are_named_once_and_left_alone_at_the_start_and_by_checkpoints(tmp_path, caplog):
    write_all(tmp_path, [b"one"])
    for name in STRANGERS:
        (tmp_path / name).write_bytes(b"theirs")
    (tmp_path / "lost+found").mkdir()
    journal, payloads = open_journal(tmp_path)
    journal.write_snapshot(journal.rotate(), [b"one"], last=True)
    journal.write_snapshot(journal.rotate(), [b"all"], last=True)
    journal.close()
    assert [b"one"] == payloads
    own = {"lock", "log-00000003", "mark", "meta", "snapshot-00000003", "lost+found"}
    assert own | set(STRANGERS) == {path.name for path in tmp_path.iterdir()}
    told = [each.getMessage() for each in caplog.records if "left alone" in each.getMessage()]
    assert [f"{tmp_path}: left alone, for this node did not write them: {', '.join(sorted(STRANGERS))}"] == told
    assert [b"all"] == open_journal(tmp_path)[1]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"{}"])
def test_a_damaged_meta_says_what_to_do(tmp_path, content):
    write_all(tmp_path, [b"one"])
    (tmp_path / "meta").write_bytes(content)
    with pytest.raises(ConfigError, match=r"file meta is damaged.*move the data directory away"):
        open_journal(tmp_path)


def test_an_empty_file_in_the_place_of_a_snapshot_says_what_to_do(tmp_path):
    write_all(tmp_path, [b"one"])
    (tmp_path / "snapshot-00000001").touch()
    with pytest.raises(
        CorruptDataError, match=r"snapshot-00000001 is damaged at byte 0 .*move the data directory away"
    ):
        open_journal(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_locks_is_told_with_its_own_reason(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(ConfigError, match=f"cannot be locked: {os.strerror(number)} .*file system has locks"):
        open_journal(tmp_path)
    with pytest.raises(ConfigError, match=f"cannot be locked: {os.strerror(number)} "), Folder(tmp_path).lock():
        pass


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
