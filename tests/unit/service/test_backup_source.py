"""How a node serves the parts of a backup."""

import pytest

from crdt_service.kernel.clock import HybridClock
from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.slot import slot_of
from crdt_service.loops import backup as source_room
from crdt_service.loops.backup import IDLE_SECONDS_MAX, BackupSource
from crdt_service.store.batch import Batch
from crdt_service.store.store import Store
from crdt_service.wire.message import BackupRequest
from tests.unit.service.double import FakeClock


def make_source(count, surplus=()):
    clock = FakeClock()
    hybrid = HybridClock(clock)
    store = Store(hybrid)
    batch = Batch(store, hybrid, "node-0~1")
    for number in range(count):
        batch.write(f"key-{number}", "pn_counter", b'{"increment": 1}')
    batch.install()
    source = BackupSource(store, clock, clock.now_seconds, is_synced=lambda: True, surplus=lambda: surplus)
    return source, store, hybrid, clock


def increment(store, hybrid, key):
    batch = Batch(store, hybrid, "node-0~1")
    batch.write(key, "pn_counter", b'{"increment": 1}')
    batch.install()


def test_all_that_was_there_when_it_began_comes_slot_by_slot_in_bounded_parts_while_writes_go_on(monkeypatch):
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
    assert {4} == {len(keys) for keys in found[:-1]}
    assert len(found[-1]) <= 4
    keys = [key for keys in found for key in keys]
    assert {f"key-{number}" for number in range(10)} <= set(keys)
    assert sorted(map(slot_of, keys)) == [*map(slot_of, keys)]
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
    for name, part in (("first", 1), ("second", 2)):
        with pytest.raises(ServiceError):
            source.answer(BackupRequest(4, name, part))
    source.answer(BackupRequest(5, "second", 1))
    assert source.answer(BackupRequest(6, "second", 2)).is_last
    source.answer(BackupRequest(7, "third", 0))


def test_a_backup_may_begin_anew_and_holds_all_again(monkeypatch):
    monkeypatch.setattr(source_room, "PART_KEYS_MAX", 2)
    source, *_ = make_source(4)
    first = source.answer(BackupRequest(1, "b", 0))
    source.answer(BackupRequest(2, "b", 1))
    assert first == source.answer(BackupRequest(1, "b", 0))


def test_each_part_tells_whether_the_node_was_synced_at_the_start(monkeypatch):
    monkeypatch.setattr(source_room, "PART_KEYS_MAX", 1)
    _, store, _, clock = make_source(3)
    is_synced = [False, True]
    source = BackupSource(store, clock, clock.now_seconds, is_synced=lambda: is_synced.pop(0), surplus=list)
    parts = source.answer(BackupRequest(1, "b", 0)), source.answer(BackupRequest(2, "b", 1))
    assert [False, False] == [each.is_synced for each in parts]


def read_rest(source, part=1):
    replies = [source.answer(BackupRequest(1, "b", part))]
    while not replies[-1].is_last:
        part += 1
        replies.append(source.answer(BackupRequest(1, "b", part)))
    return [delta.key for reply in replies for delta in reply.deltas], replies[-1].dropped


def test_a_slot_that_is_forgotten_after_it_was_read_or_that_was_empty_is_not_lost(monkeypatch):
    monkeypatch.setattr(source_room, "PART_KEYS_MAX", 1)
    source, store, hybrid, _ = make_source(3)
    first = source.answer(BackupRequest(1, "b", 0)).deltas[0].key
    later = next(f"new-{n}" for n in range(9999) if slot_of(f"new-{n}") > max(slot_of(f"key-{k}") for k in range(3)))
    increment(store, hybrid, later)
    for key in (first, later):
        store.drop(slot_of(key))
    keys, dropped = read_rest(source)
    assert ({"key-0", "key-1", "key-2"} - {first}, 0) == (set(keys), dropped)


def test_a_slot_that_is_forgotten_before_it_was_read_is_lost_and_one_of_others_is_kept(monkeypatch):
    monkeypatch.setattr(source_room, "PART_KEYS_MAX", 1)
    keys = sorted((f"key-{number}" for number in range(4)), key=slot_of)
    lost, kept = keys[2:]
    source, store, *_ = make_source(4, surplus=[slot_of(kept)])
    source.answer(BackupRequest(1, "b", 0))
    for key in (lost, kept):
        store.drop(slot_of(key))
    assert ([keys[1], kept], 1) == read_rest(source)


def test_what_is_handed_over_between_both_rounds_of_beginning_is_kept_or_lost(monkeypatch):
    monkeypatch.setattr(source_room, "PART_KEYS_MAX", 1)
    keys = sorted((f"key-{number}" for number in range(4)), key=slot_of)
    source, store, hybrid, _ = make_source(4, surplus=[slot_of(keys[3])])
    assert 0 == source.answer(BackupRequest(1, "b", 0)).dropped
    for key in keys[2:]:
        store.drop(slot_of(key))
    increment(store, hybrid, keys[3])
    again = source.answer(BackupRequest(1, "b", 0))
    assert ([keys[0]], 0) == ([delta.key for delta in again.deltas], again.dropped)
    store.drop(slot_of(keys[3]))
    assert ([keys[1], keys[3], keys[3]], 1) == read_rest(source)


def test_no_more_is_kept_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(source_room, "PART_KEYS_MAX", 1)
    monkeypatch.setattr(source_room, "KEPT_BYTES_MAX", 0)
    keys = sorted((f"key-{number}" for number in range(3)), key=slot_of)
    source, store, *_ = make_source(3, surplus=[slot_of(keys[2])])
    source.answer(BackupRequest(1, "b", 0))
    store.drop(slot_of(keys[2]))
    assert ([keys[1]], 1) == read_rest(source)
