"""The door to the store: what is acknowledged, seen and pushed is on disk."""

import asyncio
import contextlib
import random
import threading
from unittest import mock

import msgspec
import pytest

from crdt_service.disk.journal import Journal
from crdt_service.kernel.clock import STAMP_MAX, HybridClock
from crdt_service.kernel.error import OperationError, StorageFullError
from crdt_service.loops import commit
from crdt_service.loops.commit import REST_SECONDS, Committer
from crdt_service.replication.replica import Replica
from crdt_service.store.store import Store
from crdt_service.wire.message import Delta, PushRequest, Step, decode_step, encode_step
from tests.dump import dump
from tests.unit.service.double import FakeClock, FaultyDisk, NullObserver


class Member:
    """A committer over a real journal on a disk that can fail."""

    def __init__(self, directory, node_id="node-0", log_bytes_max=1 << 20):
        self.disk = FaultyDisk(directory)
        self.clock = FakeClock()
        self.hybrid = HybridClock(self.clock)
        self.store = Store(self.hybrid)
        self.observer = NullObserver()
        self.journal = Journal(self.disk, node_id, random.Random(1))
        self.replica = Replica(self.journal.replica)
        self.replica.replay(self.store, self.hybrid, self.journal.recover())
        self.committer = Committer(
            self.store,
            self.journal,
            replica=self.replica,
            clock=self.clock,
            hybrid=self.hybrid,
            observer=self.observer,
            log_bytes_max=log_bytes_max,
        )

    @property
    def pushed(self):
        return self.replica.commits.take(0).deltas

    async def write(self, *write):
        await self.committer.write(*write)
        return self.store.read(write[0])

    async def join(self, deltas):
        return await self.committer.join(PushRequest(0, "", 0, 0, 0.0, deltas))

    def dump(self):
        return dump(self.store)


@contextlib.asynccontextmanager
async def running(directory, **options):
    replica = Member(directory, **options)
    task = asyncio.create_task(replica.committer.run())
    try:
        yield replica
    finally:
        replica.committer.stop()
        await asyncio.gather(task, return_exceptions=True)
        replica.journal.close()


async def test_acknowledged_writes_are_read_back_after_a_crash(tmp_path):
    async with running(tmp_path) as replica:
        await asyncio.gather(*(replica.committer.write("c", "pn_counter", b'{"increment": 1}') for _ in range(100)))
        await replica.committer.write("r", "lww_register", b'{"assign": [1]}')
        await replica.committer.write("s", "aw_set", b'{"add": "x"}')
        before = replica.dump()
    async with running(tmp_path) as replica:
        assert replica.dump() == before
        assert replica.store.read("c").value == b"100"


async def test_concurrent_writes_share_a_sync_and_a_record(tmp_path):
    async with running(tmp_path) as replica:
        await asyncio.gather(*(replica.committer.write("c", "pn_counter", b'{"increment": 1}') for _ in range(50)))
        assert len(replica.pushed) == 1


async def test_nothing_is_seen_or_pushed_before_it_is_on_disk(tmp_path):
    async with running(tmp_path) as replica:
        seen = []
        real_sync = replica.disk.sync
        replica.disk.sync = lambda descriptor: (
            seen.append((replica.dump(), list(replica.pushed))),
            real_sync(descriptor),
        )
        await replica.committer.write("s", "aw_set", b'{"add": "x"}')
        assert seen == [({}, [])]
        assert len(replica.pushed) == 1


async def test_a_crash_between_write_and_sync_reuses_no_dot_that_a_peer_knows(tmp_path):
    directory, peer_directory = tmp_path / "a", tmp_path / "b"
    async with running(directory) as replica, running(peer_directory, node_id="node-1") as peer:
        await replica.committer.write("s", "aw_set", b'{"add": "kept"}')
        await peer.join(replica.pushed)
        replica.disk.is_broken = True
        lost = asyncio.create_task(replica.committer.write("s", "aw_set", b'{"add": "lost"}'))
        await asyncio.wait([lost], timeout=0.2)
        assert len(replica.pushed) == 1
        lost.cancel()
        log = directory / "log-00000001"
        log.write_bytes(log.read_bytes()[: replica.journal.log_bytes])  # What was not synced is gone.
    async with running(directory) as replica, running(peer_directory, node_id="node-1") as peer:
        await replica.committer.write("s", "aw_set", b'{"add": "other"}')
        await peer.join(replica.pushed)
        assert peer.store.read("s").value == b'["kept","other"]'
        assert peer.dump() == replica.dump()


async def test_a_full_disk_refuses_writes_serves_reads_and_recovers(tmp_path):
    async with running(tmp_path) as replica:
        await replica.committer.write("s", "aw_set", b'{"add": "x"}')
        replica.disk.is_full = True
        with pytest.raises(StorageFullError):
            await replica.committer.write("s", "aw_set", b'{"add": "y"}')
        assert replica.store.read("s").value == b'["x"]'
        replica.disk.is_full = False
        assert (await replica.write("s", "aw_set", b'{"add": "z"}')).value == b'["x","z"]'


async def test_a_broken_disk_ends_the_loop_and_acknowledges_nothing(tmp_path):
    replica = Member(tmp_path)
    task = asyncio.create_task(replica.committer.run())
    replica.disk.is_broken = True
    write = asyncio.create_task(replica.committer.write("s", "aw_set", b'{"add": "x"}'))
    with pytest.raises(OSError, match="Input/output"):
        await task
    assert not write.done()
    write.cancel()


async def test_a_large_log_is_checkpointed_and_recovers_the_same(tmp_path):
    async with running(tmp_path, log_bytes_max=2000) as replica:
        for number in range(300):
            await replica.committer.write(f"k{number % 40}", "lww_register", b'{"assign": %d}' % number)
        before = replica.dump()
    async with running(tmp_path) as replica:
        assert replica.dump() == before
        assert [path for path in tmp_path.iterdir() if path.name.startswith("snapshot-")]


@pytest.mark.parametrize("error", [OSError(30, "Read-only file system"), ValueError("no such number")])
async def test_a_checkpoint_that_fails_for_any_reason_is_told_until_one_succeeds(tmp_path, monkeypatch, error):
    async with running(tmp_path, log_bytes_max=200) as replica:

        async def fill():
            for number in range(20):
                await replica.committer.write("k", "lww_register", b'{"assign": %d}' % number)
            if replica.committer._checkpoint is not None:
                await replica.committer._checkpoint

        with monkeypatch.context() as failing:
            failing.setattr(replica.journal, "write_snapshot", mock.Mock(side_effect=error))
            await fill()
        assert f"{type(error).__name__}: {error}" == replica.committer.checkpoint_error
        await fill()
        assert "" == replica.committer.checkpoint_error
        assert [path for path in tmp_path.iterdir() if path.name.startswith("snapshot-")]


@pytest.mark.parametrize("offset", [-7200, 61, 600, 7200, 10 * 365 * 24 * 3600])
@pytest.mark.parametrize(
    ("type_name", "op"),
    [
        ("lww_register", b'{"assign": 1}'),
        ("mv_register", b'{"assign": 1}'),
        ("map", b'{"update": {"f": {"type": "lww_register", "op": {"assign": 1}}}}'),
        ("time_series", b'{"append": {"at": 5, "value": 1}}'),
        ("workflow", b'{"create": {"initial": "a", "states": ["a", "b"], "transitions": [["a", "b"]]}}'),
    ],
)
async def test_a_write_of_a_wrong_clock_is_taken_and_a_later_one_wins_over_it(tmp_path, type_name, op, offset):
    async with running(tmp_path / "a") as wrong, running(tmp_path / "b", node_id="node-1") as right:
        wrong.clock.seconds += offset
        await wrong.write("k", type_name, op)
        assert 0 == await right.join(wrong.pushed)
        assert wrong.dump() == right.dump()
        stamp = right.hybrid.newest
        assert stamp >= wrong.hybrid.newest > 0
        await right.write("later", "lww_register", b'{"assign": 2}')
        assert right.hybrid.newest > stamp
        wrong.clock.seconds -= offset
        assert 0 == await wrong.join(right.pushed)
        assert wrong.dump() == right.dump()


async def test_a_later_write_wins_over_one_of_a_clock_that_was_ahead_after_all_have_started_again(tmp_path):
    async with running(tmp_path / "a") as replica:
        replica.clock.seconds += 7200
        await replica.write("r", "lww_register", b'{"assign": "ahead"}')
    async with running(tmp_path / "a") as replica, running(tmp_path / "b", node_id="node-1") as other:
        assert b'"new"' == (await replica.write("r", "lww_register", b'{"assign": "new"}')).value
        assert 0 == await other.join(replica.pushed)
        assert b'"new"' == other.store.read("r").value


async def test_a_stamp_that_no_clock_made_is_refused_and_counted(tmp_path):
    async with running(tmp_path) as replica:
        state = msgspec.msgpack.encode((STAMP_MAX, "a~1", b"1"))
        assert 1 == await replica.join([Delta("r", 2, 1, state)])
        assert (None, 0) == (replica.store.read("r"), replica.hybrid.newest)
        assert ("on_impossible_stamps", 1) in replica.observer.calls


async def test_hostile_deltas_are_left_out_and_good_ones_beside_them_kept(tmp_path):
    async with running(tmp_path) as replica:
        good = Delta("c", 1, 1, b"\x91\x93\xa3a~1\x05\x00")
        bad = [Delta("c", 99, 1, b""), Delta("", 1, 1, b"\x90"), Delta("c", 1, 1, b"junk"), Delta("c", 1, 9, b"\x90")]
        assert await replica.join([*bad, good]) == 4
        assert replica.store.read("c").value == b"5"


async def test_a_key_keeps_its_type_even_within_one_batch(tmp_path):
    async with running(tmp_path) as replica:
        writes = [("pn_counter", b'{"increment": 1}'), ("aw_set", b'{"add": "x"}')]
        results = await asyncio.gather(
            *(replica.committer.write("k", *write) for write in writes), return_exceptions=True
        )
        assert isinstance(results[1], OperationError)
        assert results[1].code == "type_conflict"


async def test_two_types_created_concurrently_read_alike_everywhere(tmp_path):
    async with running(tmp_path / "a") as one, running(tmp_path / "b", node_id="node-1") as two:
        await one.committer.write("k", "aw_set", b'{"add": "x"}')
        await two.committer.write("k", "pn_counter", b'{"increment": 1}')
        await one.join(two.pushed)
        await two.join(one.pushed)
        assert one.store.read("k") == two.store.read("k")
        assert one.dump() == two.dump()


def test_steps_round_trip():
    delta = Delta("k", 1, 1, b"\x90")
    step = Step(7, [delta], [delta], {"node-1~1": 3}, [5], "node-0~2")
    assert decode_step(encode_step(step)) == step


async def test_a_checkpoint_under_way_lets_go_of_the_files_before_the_committer_ends(tmp_path):
    replica = Member(tmp_path, log_bytes_max=1)
    begun, go_on = threading.Event(), threading.Event()
    slices = []

    def write_slowly(number, payloads, *, last):
        begun.set()
        go_on.wait()
        slices.append(last)

    replica.journal.write_snapshot = write_slowly
    task = asyncio.create_task(replica.committer.run())
    await replica.committer.write("c", "pn_counter", b'{"increment": 1}')
    await asyncio.to_thread(begun.wait)
    replica.committer.stop()
    ended, _ = await asyncio.wait([task], timeout=0.1)
    go_on.set()
    await task
    written = list(slices)
    await asyncio.sleep(0.05)
    replica.journal.close()

    assert not ended
    assert written == slices


def count_rests(replica):
    """Note each rest of the journal, and wake who waits for the next one."""
    rests, rested = [], asyncio.Event()
    real, loop = replica.journal.rest, asyncio.get_running_loop()

    def rest():
        real()
        rests.append(threading.current_thread().name)
        loop.call_soon_threadsafe(rested.set)

    replica.journal.rest = rest
    return rests, rested


async def test_the_journal_rests_once_after_writes_have_ceased(tmp_path):
    async with running(tmp_path) as replica:
        rests, rested = count_rests(replica)
        for _ in range(3):
            rested.clear()
            before = len(rests)
            await replica.committer.write("c", "pn_counter", b'{"increment": 1}')
            await asyncio.wait_for(rested.wait(), 30)
            await asyncio.sleep(3 * REST_SECONDS)
            assert before + 1 == len(rests)
    assert {"log_0"} == set(rests)
    assert 3 == len(rests)


async def test_the_journal_rests_while_writes_go_on_for_ever(tmp_path):
    async with running(tmp_path) as replica:
        rests, _ = count_rests(replica)
        writes = 0
        while len(rests) < 3:
            await replica.committer.write("c", "pn_counter", b'{"increment": 1}')
            writes += 1
        assert writes > len(rests)


async def test_the_journal_rests_before_the_committer_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(commit, "REST_SECONDS", 3600)
    async with running(tmp_path) as replica:
        rests, _ = count_rests(replica)
        await replica.committer.write("c", "pn_counter", b'{"increment": 1}')
        assert [] == rests
    assert 1 == len(rests)


async def test_a_disk_that_breaks_at_rest_ends_the_loop(tmp_path):
    replica = Member(tmp_path)
    task = asyncio.create_task(replica.committer.run())
    await replica.committer.write("s", "aw_set", b'{"add": "x"}')
    replica.disk.is_broken = True
    with pytest.raises(OSError, match="Input/output"):
        await asyncio.wait_for(task, 30)
    replica.journal.close()
