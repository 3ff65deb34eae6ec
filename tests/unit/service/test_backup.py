"""Backups: what they hold, that none that is cut or altered passes, and which ones stay."""

import asyncio
import dataclasses
import errno
import os
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some
from msgspec.structs import replace

from crdt_service.backup.data import FileMaker, read_configuration, read_states
from crdt_service.backup.destination import Folder
from crdt_service.backup.job import Archive
from crdt_service.backup.manifest import DamagedBackupError, Manifest, Source, encode_manifest, is_id, make_id
from crdt_service.backup.merge import Merge
from crdt_service.backup.nodes import Nodes, Reading, check_unmoved
from crdt_service.backup.retention import Retention, choose_kept
from crdt_service.kernel.clock import HybridClock
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.kernel.ident import RESERVED_PREFIX
from crdt_service.kernel.slot import slot_of
from crdt_service.membership.placement import Placement
from crdt_service.store.batch import Batch
from crdt_service.store.store import Store
from crdt_service.wire.message import Delta
from crdt_service.wire.seal import Key
from tests.unit.service.double import FakeClock

KEY, OTHER = Key(b"k" * 32), Key(b"o" * 32)
ID = "20261128T010203Z"
CONFIGURATION = {"config.json": b"{}", "values.yaml": b"a: 1\n"}


def make_states(replica, *keys):
    hybrid = HybridClock(FakeClock())
    store = Store(hybrid)
    batch = Batch(store, hybrid, replica)
    for key in keys:
        batch.write(key, "pn_counter", b'{"increment": 1}')
    batch.install()
    return [delta for part in store.slices(1) for address in part for delta in store.split(address, 1 << 20)]


STATES = make_states("a~1", "x", "y", "z")


def write(folder, keys=(), backup=ID, states=STATES, changed=None):
    """Write a backup as the job does, a file for each state."""
    destination = Folder(folder)
    key = keys[0] if keys else None
    makers = [FileMaker(backup, "configuration", key, random.Random(1))]
    makers[0].add_configuration(CONFIGURATION)
    for number, state in enumerate(states):
        makers.append(FileMaker(backup, f"states-{number:06d}", key, random.Random(2)))
        makers[-1].add_states([state])
    files = []
    for maker in makers:
        file, data = maker.finish()
        destination.write(backup, file.name, data)
        files.append(file)
    fields = {
        "format": 1,
        "id": backup,
        "began_at": "",
        "ended_at": "",
        "service_version": "",
        "chart_version": "",
        "key_id": keys[0].id if keys else "",
        "nodes": [Source("node-0", "node-0~1", len(states))],
        "missed": [],
        "keys": len(states),
        "states": len(states),
        "configuration": sorted(CONFIGURATION),
        "files": files,
    }
    destination.publish(backup, encode_manifest(Manifest(**{**fields, **(changed or {})}), keys))
    return Archive(destination, keys)


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_a_backup_reads_back(tmp_path, keys):
    archive = write(tmp_path, keys)
    manifest = archive.verify(ID)
    assert [ID] == archive.destination.backups()
    assert STATES == [delta for part in archive.read_states(manifest) for delta in part]
    assert CONFIGURATION == archive.read_configuration(manifest)
    assert sum(file.stat().st_size for file in (tmp_path / ID).iterdir() if file.suffix == "") == manifest.size_bytes
    assert [ID] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_a_flipped_bit_anywhere_is_told(tmp_path, keys):
    archive = write(tmp_path, keys, states=STATES[:1])
    for path in sorted((tmp_path / ID).iterdir()):
        whole = path.read_bytes()
        for offset in range(len(whole)):
            data = bytearray(whole)
            data[offset] ^= 1 << offset % 8
            path.write_bytes(data)
            with pytest.raises(ServiceError) as caught:
                archive.verify(ID)
            # A flipped bit may name another format or key: told, too.
            assert isinstance(caught.value, DamagedBackupError) or path.name == "manifest.json"
        path.write_bytes(whole)
    archive.verify(ID)


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_a_file_that_is_cut_or_missing_is_told(tmp_path, keys):
    archive = write(tmp_path, keys, states=STATES[:1])
    for path in sorted((tmp_path / ID).iterdir()):
        whole = path.read_bytes()
        for size in range(0, len(whole), 3):
            path.write_bytes(whole[:size])
            with pytest.raises(DamagedBackupError):
                archive.verify(ID)
        path.unlink()
        with pytest.raises(DamagedBackupError, match="is missing"):
            archive.verify(ID)
        path.write_bytes(whole)
    archive.verify(ID)


def test_who_lacks_the_key_can_neither_leave_a_file_out_nor_swap_files(tmp_path):
    archive = write(tmp_path, [KEY])
    manifest = archive.read_manifest(ID)
    forged = encode_manifest(replace(manifest, files=manifest.files[:-1]), [OTHER])
    (tmp_path / ID / "manifest.json").write_bytes(forged)
    with pytest.raises(DamagedBackupError, match="altered"):
        archive.verify(ID)


def test_a_file_of_another_backup_cannot_stand_in(tmp_path):
    """Even with the manifest's key: a seal names its backup and its file."""
    write(tmp_path, [KEY])
    maker = FileMaker("20261128T010204Z", "states-000000", KEY, random.Random(3))
    maker.add_states(STATES[:1])
    file, data = maker.finish()
    with pytest.raises(DamagedBackupError, match="sealed as another"):
        list(read_states(data, ID, file, [KEY]))


def test_what_is_no_state_is_told_although_its_sums_are_right():
    for delta in (Delta("k", 1, 1, b"\xff"), Delta("k", 99, 1, b""), Delta("k", 1, 99, STATES[0].state)):
        maker = FileMaker(ID, "states-000000", None, random.Random(1))
        maker.add_states([delta])
        file, data = maker.finish()
        with pytest.raises(DamagedBackupError, match="no state"):
            list(read_states(data, ID, file, ()))
    maker = FileMaker(ID, "configuration", None, random.Random(1))
    maker.add_states(STATES)
    file, data = maker.finish()
    with pytest.raises(DamagedBackupError, match="no configuration"):
        read_configuration(data, ID, file, ())


def test_totals_that_are_not_those_of_the_files_are_told(tmp_path):
    for number, changed in enumerate(({"states": 2}, {"configuration": []}, {"id": "20261128T010200Z"})):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(DamagedBackupError):
            write(folder, changed=changed).verify(ID)


def test_a_sealed_backup_shows_nothing_and_names_the_key_it_needs(tmp_path):
    write(tmp_path, [KEY])
    held = b"".join(path.read_bytes() for path in (tmp_path / ID).iterdir())
    assert b"a: 1" not in held
    assert b"a~1" not in held
    for keys in ((), (OTHER,)):
        with pytest.raises(ConfigError, match=KEY.id):
            Archive(Folder(tmp_path), keys).verify(ID)
    Archive(Folder(tmp_path), (OTHER, KEY)).verify(ID)


def test_another_format_is_not_taken_for_damage(tmp_path):
    with pytest.raises(ConfigError, match="format 2 is unknown"):
        write(tmp_path, changed={"format": 2}).verify(ID)
    (tmp_path / ID / "manifest.json").write_bytes(b'{"format": 3, "colour": "blue"}')
    with pytest.raises(ConfigError, match="format 3 is unknown"):
        Archive(Folder(tmp_path)).verify(ID)


def test_a_backup_that_is_not_there_is_told_and_the_newest_is_found(tmp_path):
    archive = write(tmp_path)
    with pytest.raises(ConfigError, match="no backup 20200101T000000Z"):
        archive.find("20200101T000000Z", print)
    write(tmp_path, backup="20261128T020000Z")
    archive = dataclasses.replace(archive, clock=NOW.timestamp)
    assert ["20261128T020000Z", ID] == [archive.find("", print), archive.find(ID, print)]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no backup"):
        Archive(Folder(tmp_path / "empty")).find("", print)


def test_a_backup_of_the_future_is_taken_only_by_its_name(tmp_path):
    said = []
    late, later, latest = ids(-2, -3, -4)
    archive = dataclasses.replace(write(tmp_path, backup=late), clock=NOW.timestamp)
    with pytest.raises(ConfigError, match=f"{late} is of the future.*--backup"):
        archive.find("", said.append)
    present, drifted = ids(0, -59 / 3600)
    for backup in (later, latest, present, drifted):
        write(tmp_path, backup=backup)
    assert (drifted, late) == (archive.find("", said.append), archive.find(late, said.append))
    assert [late, later, latest] == [each.id for each in archive.manifests(said.append)][2:]
    assert [
        f"the backup {late} is of the future: none of them is taken unless --backup names it",
        f"3 backups are of the future, {late} to {latest}: none of them is taken unless --backup names it",
        f"3 backups are of the future, {late} to {latest}",
    ] == said


def test_what_a_kill_left_behind_is_no_backup_and_goes_with_the_next(tmp_path):
    destination = Folder(tmp_path)
    destination.write(ID, "states-000000", b"half")
    (tmp_path / f".{ID}.gone").mkdir()
    (tmp_path / "lost+found").mkdir()
    assert [] == destination.backups()
    with destination.lock():
        pass
    assert ["lock", "lost+found"] == sorted(path.name for path in tmp_path.iterdir())


def test_what_others_put_beside_backups_is_named_and_left_alone(tmp_path, caplog):
    archive = write(tmp_path)
    for name in (".rsync.part", f".{ID}x.gone", "20261128T010204Z", "notes"):
        (tmp_path / name).write_bytes(b"theirs")
    (tmp_path / ".theirs.gone").mkdir()
    names = {path.name for path in tmp_path.iterdir()}
    with archive.destination.lock():
        pass
    assert {*names, "lock"} == {path.name for path in tmp_path.iterdir()}
    theirs = f".{ID}x.gone, .rsync.part, .theirs.gone, 20261128T010204Z, notes"
    assert [f"{tmp_path}: left alone, for they are no backups: {theirs}"] == [
        each.getMessage() for each in caplog.records
    ]


def test_two_at_once_are_refused_and_a_backup_is_never_replaced(tmp_path):
    archive = write(tmp_path)
    with archive.destination.lock(), pytest.raises(ServiceError, match="another backup"), Folder(tmp_path).lock():
        pass
    with pytest.raises(ConfigError, match="already"):
        write(tmp_path)
    archive.verify(ID)


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(ConfigError, match="missing"), Folder(tmp_path / "missing").lock():
        pass
    with pytest.raises(ConfigError, match="missing"):
        Folder(tmp_path / "missing").backups()


def drain(merge):
    async def collect():
        return [delta async for part in merge for delta in part]

    return asyncio.run(collect())


async def stream(states, size):
    for start in range(0, len(states), size):
        yield states[start : start + size]
    yield []


def join(states):
    hybrid = HybridClock(FakeClock())
    store = Store(hybrid)
    for delta in states:
        batch = Batch(store, hybrid, "r~1")
        batch.restore(delta)
        batch.install()
    return {address: store.encode(address) for part in store.slices(1) for address in part}


keys = some.sampled_from([f"key-{number}" for number in range(6)])
writes = some.lists(some.tuples(keys, some.sampled_from(["a~1", "b~1"])), max_size=8)


@given(some.lists(some.tuples(writes, some.integers(1, 4)), max_size=4), some.booleans())
def test_the_merge_restores_to_the_join_of_all_replicas(replicas, is_ordered):
    """Whatever each holds, in however many parts it comes, and even if slots are not in order."""
    held = []
    for made, size in replicas:
        states = [delta for key, replica in made for delta in make_states(replica, key)]
        held.append((sorted(states, key=lambda delta: slot_of(delta.key)) if is_ordered else states, size))
    merge = Merge([stream(states, size) for states, size in held])
    merged = drain(merge)
    everything = [delta for states, _ in held for delta in states]
    assert join(everything) == join(merged)
    assert len(merged) == merge.states
    if is_ordered:
        assert len(set(everything)) == len(merged)
        assert len({delta.key for delta in everything}) == merge.keys


def test_replicas_that_agree_cost_the_room_of_one_and_jarvis_own_keys_are_left_out():
    own = make_states("a~1", f"{RESERVED_PREFIX}rate-limits")
    merge = Merge([stream(sorted([*STATES, *own], key=lambda delta: slot_of(delta.key)), 2) for _ in range(3)])
    assert set(STATES) == set(drain(merge))
    assert (3, 3) == (merge.keys, merge.states)


def make_reading(node_id):
    return Reading(node_id, f"{node_id}~1", None, "b")


def test_slots_that_no_owner_covers_are_refused_and_who_is_missed_is_named():
    members = {f"node-{number}": "" for number in range(4)}
    channels = dict.fromkeys(members)
    nodes = Nodes(channels, {}, [], Placement(members, 2), is_clustered=True)
    nodes.check_covered(list(members))
    nodes.check_covered(["node-0", "node-1", "node-2"])
    with pytest.raises(ServiceError, match="node-2, node-3"):
        nodes.check_covered(["node-0", "node-1"])
    with pytest.raises(ServiceError, match="1024 of 1024"):
        Nodes({}, {}, ["h:1"], Placement({}, 2), is_clustered=True).check_covered([])
    alone = Nodes({"node-0": None}, {}, ["h:1"], Placement({"node-0": ""}, 1), is_clustered=False)
    with pytest.raises(ServiceError, match="h:1"):
        alone.check_covered(["node-0"])


def test_what_was_read_while_slots_were_handed_over_is_refused():
    readings = [make_reading("node-0"), make_reading("node-1")]
    check_unmoved(readings)
    readings[1].dropped_at_end = 1
    with pytest.raises(ServiceError, match="node-1 handed slots over"):
        check_unmoved(readings)


NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


def ids(*hours_ago):
    return [make_id((NOW - timedelta(hours=each)).timestamp()) for each in hours_ago]


def test_the_newest_of_each_hour_day_and_week_stay():
    hourly = ids(*range(24 * 30))
    assert set(ids(0, 1, 2)) == choose_kept(hourly, Retention(3, 0, 0))
    assert set(ids(0, 13, 37)) == choose_kept(hourly, Retention(0, 3, 0))
    # The 28th is a Saturday: weeks end on Sundays at midnight, 133 hours ago.
    assert set(ids(0, 133, 133 + 168)) == choose_kept(hourly, Retention(0, 0, 3))
    assert set(ids(0, 1, 13, 133)) == choose_kept(hourly, Retention(2, 2, 2))


@given(
    some.lists(some.integers(0, 24 * 400), unique=True, min_size=1, max_size=40),
    some.builds(Retention, *[some.integers(0, 5)] * 3),
)
def test_the_newest_stays_and_no_more_than_asked_for(hours, retention):
    backups = ids(*hours)
    kept = choose_kept(backups, retention)
    assert max(backups) in kept
    assert kept <= set(backups)
    assert len(kept) <= max(1, retention.hourly + retention.daily + retention.weekly)
    assert kept == choose_kept(kept, retention)


def prune(archive, *retention, taken=""):
    said = []
    dataclasses.replace(archive, clock=NOW.timestamp).prune(Retention(*retention), said.append, taken=taken)
    return said


@pytest.mark.parametrize("hours_ahead", [2, 24, 24 * 3650])
def test_backups_of_a_clock_that_was_ahead_count_towards_no_period_and_stay_until_their_time_has_come(
    tmp_path, hours_ahead
):
    old, present, *future = ids(1, 0, -hours_ahead, -hours_ahead - 1)
    for backup in (old, present, *future):
        archive = write(tmp_path, backup=backup)
    told = f"2 backups are of the future, {future[0]} to {future[1]}: they count towards no period, and are not removed"
    assert [told, f"removed {old}"] == prune(archive, 1, 0, 0, taken=present)
    assert [present, *future] == archive.destination.backups()


def test_a_job_does_not_remove_the_backup_that_it_has_taken_though_its_clock_went_back_meanwhile(tmp_path):
    newest, older, taken = ids(0, 1, 5)
    for backup in (newest, older, taken):
        archive = write(tmp_path, backup=backup)
    assert [f"removed {older}"] == prune(archive, 1, 0, 0, taken=taken)
    assert [taken, newest] == archive.destination.backups()


def test_pruning_removes_the_others_but_never_the_newest_whole_one(tmp_path):
    first, second, third = ids(2, 1, 0)
    for backup in (first, second, third):
        archive = write(tmp_path, [KEY], backup)
    (tmp_path / third / "states-000000").write_bytes(b"")
    assert [f"removed {first}"] == prune(archive, 1, 0, 0)
    assert [second, third] == archive.destination.backups()
    (tmp_path / second / "states-000000").write_bytes(b"")
    with pytest.raises(DamagedBackupError, match=third):
        prune(archive, 1, 0, 0)
    assert [second, third] == archive.destination.backups()


def test_a_backup_that_loses_its_key_removes_none(tmp_path):
    first, second = ids(1, 0)
    write(tmp_path, [KEY], first)
    archive = write(tmp_path, [KEY], second)
    with pytest.raises(ConfigError, match="encrypted"):
        prune(Archive(archive.destination, [OTHER]), 1, 0, 0)
    assert [first, second] == archive.destination.backups()


def test_an_id_is_a_time():
    assert [True, False, False, False] == [is_id(text) for text in (ID, "20261328T010203Z", ID + "x", "lost+found")]
    assert ID == make_id(datetime(2026, 11, 28, 1, 2, 3, tzinfo=UTC).timestamp())


def test_a_full_disk_leaves_no_backup(tmp_path, monkeypatch):
    destination = Folder(tmp_path)

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        destination.write(ID, "states-000000", b"data")
    destination.abandon(ID)
    assert [] == list(tmp_path.iterdir())
