"""States that no message and no record could hold whole travel and rest in parts, while they go on growing."""

import asyncio

import msgspec
import pytest

from crdt_service.datatypes.registry import find_type
from crdt_service.kernel.error import MalformedError, ServiceError
from crdt_service.kernel.slot import name_of
from crdt_service.loops import anti_entropy, backup, commit
from crdt_service.loops.backup import BackupSource
from crdt_service.replication import repair, snapshot
from crdt_service.replication.commits import PUSH_BYTES_MAX
from crdt_service.replication.snapshot import SNAPSHOTS_MAX, Snapshots
from crdt_service.store.batch import Batch
from crdt_service.store.store import Address
from crdt_service.wire.frame import FRAME_BYTES_MAX
from crdt_service.wire.message import BackupRequest, FetchReply, FetchRequest, decode_step
from tests.unit.service.double import FakeClock
from tests.unit.service.side import Side, repairer

NAME = name_of("k")
SET = find_type("aw_set")


def element(side, number, size=20):
    return f"{side.node_id}-{number}-".ljust(size, "x")


def fill(side, count, size=20, key="k"):
    for number in range(count):
        side.write(key, "aw_set", msgspec.json.encode({"add": element(side, number, size)}))
    while side.store.refresh_digests(100):
        pass


def fetch(side, snapshot_id=0, part=0):
    return repair.answer_fetch(side.store, side.snapshots, FetchRequest(1, NAME, snapshot_id, part))


@pytest.fixture()
def small_parts(monkeypatch):
    for module in (repair, snapshot):
        monkeypatch.setattr(module, "PUSH_BYTES_MAX", 500)


def test_replicas_that_filled_a_key_beyond_a_frame_converge():
    sides = [Side("a"), Side("b")]
    for side in sides:
        for writer in range(4):
            other = Side(f"{side.node_id}{writer}")
            fill(other, 9900, 250)
            asyncio.run(side.join(other.store.encode_key("k")))
    one, two = sides
    assert 2 * len(one.store.encode(Address("k", SET.tag)).state) > FRAME_BYTES_MAX
    asyncio.run(repairer(one).repair(two, None))
    assert one.dump() == two.dump()
    assert len(one.store.encode(Address("k", SET.tag)).state) > FRAME_BYTES_MAX
    assert two.largest_bytes < 2 * PUSH_BYTES_MAX


@pytest.mark.usefixtures("small_parts")
def test_parts_hold_all_that_was_there_when_the_fetch_began_though_the_key_changes_amid_them():
    one, two = Side("a"), Side("b")
    fill(two, 100)
    before = set(msgspec.json.decode(two.store.read("k").value))
    reply = fetch(two)
    part = 0
    while reply.snapshot:
        assert 0 == reply.served
        asyncio.run(one.join(reply.deltas))
        part += 1
        two.write("k", "aw_set", msgspec.json.encode({"remove": element(two, part)}))
        two.write("k", "aw_set", b'{"add": "new-%d"}' % part)
        reply = fetch(two, reply.snapshot, part)
    asyncio.run(one.join(reply.deltas))
    assert 1 == reply.served
    assert part > 3
    assert before == set(msgspec.json.decode(one.store.read("k").value))
    assert 0 == len(two.snapshots)


@pytest.mark.usefixtures("small_parts")
def test_a_snapshot_that_is_gone_begins_anew_only_if_its_key_changed():
    side = Side("a")
    fill(side, 100)
    first = fetch(side)
    expected = fetch(side, first.snapshot, 1)
    side.snapshots = Snapshots()
    assert expected == fetch(side, first.snapshot, 1)
    side.snapshots = Snapshots()
    side.write("k", "aw_set", b'{"add": "y"}')
    anew = fetch(side, first.snapshot, 1)
    assert anew.snapshot not in {0, first.snapshot}
    assert anew == fetch(side)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("part", [10**3, 2**53])
def test_parts_that_do_not_exist_are_refused(part):
    side = Side("a")
    fill(side, 100)
    with pytest.raises(MalformedError):
        fetch(side, fetch(side).snapshot, part)


@pytest.mark.usefixtures("small_parts")
def test_few_snapshots_are_kept():
    side = Side("a")
    for number in range(SNAPSHOTS_MAX + 3):
        fill(side, 100 + number)
        assert fetch(side).snapshot
        fetch(side, 10**9 + number, 1)
    assert SNAPSHOTS_MAX == len(side.snapshots)


class Forgetful(Side):
    """Keeps no snapshot, and is written between any two parts."""

    forgets_max = 10**9

    async def request(self, build):
        if isinstance(build(0), FetchRequest) and self.forgets_max:
            self.forgets_max -= 1
            self.snapshots.__init__()
            self.write("k", "aw_set", b'{"add": "%d"}' % self.forgets_max)
        return await super().request(build)


@pytest.mark.usefixtures("small_parts")
async def test_a_peer_that_restarts_between_parts_is_asked_from_the_beginning():
    one, two = Side("a"), Forgetful("b")
    two.forgets_max = anti_entropy.SNAPSHOTS_BEGUN_MAX
    fill(two, 100)
    await repairer(one).repair(two, None)
    assert one.dump() == two.dump()


@pytest.mark.usefixtures("small_parts")
async def test_a_peer_that_begins_anew_for_ever_is_left():
    one, two = Side("a"), Forgetful("b")
    fill(two, 100)
    with pytest.raises(ServiceError) as raised:
        await repairer(one).repair(two, None)
    assert "repair_postponed" == raised.value.code
    assert anti_entropy.SNAPSHOTS_BEGUN_MAX + 1 == sum(isinstance(request, FetchRequest) for request in two.requests)


async def test_a_part_without_states_ends_the_repair():
    class Empty(Side):
        async def request(self, build):
            reply = await super().request(build)
            return FetchReply(reply.id, 0, [], 7) if isinstance(reply, FetchReply) else reply

    one, two = Side("a"), Empty("b")
    fill(two, 1)
    with pytest.raises(MalformedError):
        await repairer(one).repair(two, None)


def test_steps_of_a_checkpoint_are_bounded_and_restore_everything(monkeypatch):
    monkeypatch.setattr(commit, "CHECKPOINT_SLICE_BYTES", 500)
    one, two = Side("a"), Side("a")
    for key in ("k", "l"):
        fill(one, 100, key=key)
    payloads = list(commit.encode_states(one.store))
    assert max(map(len, payloads)) < 600
    for payload in payloads:
        batch = Batch(two.store, two.hybrid, "a~1")
        for delta in decode_step(payload).joined:
            batch.restore(delta)
        batch.install()
    assert one.dump() == two.dump()


def test_parts_of_a_backup_are_bounded_and_restore_everything(monkeypatch):
    monkeypatch.setattr(backup, "PART_BYTES_MAX", 500)
    one, two = Side("a"), Side("b")
    fill(one, 200)
    source = BackupSource(one.store, FakeClock(), lambda: 0.0, is_synced=lambda: True, surplus=list)
    expected, part, is_last = one.dump(), 0, False
    while not is_last:
        reply = source.answer(BackupRequest(1, "b", part))
        assert sum(len(delta.state) for delta in reply.deltas) < 1000
        asyncio.run(two.join(reply.deltas))
        part, is_last = part + 1, reply.is_last
        one.write("k", "aw_set", b'{"add": "later"}')
    assert part > 5
    assert expected == two.dump()
