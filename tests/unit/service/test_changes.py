"""Which keys changed on a node since a position: all of them, or a gap that is told."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from crdt_service.kernel.slot import slot_of
from crdt_service.loops.changes import ChangeStream
from crdt_service.store import changes
from crdt_service.store.changes import Changes
from crdt_service.store.store import Store
from crdt_service.wire.message import ChangesReply, ChangesRequest, WriteItem
from tests.unit.service.test_batch import Node, ask, running

ADD = b'{"add": "x"}'


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=4, unique=True), max_size=12), st.integers(1, 5))
def test_a_reader_sees_every_key_after_its_last_change(commits, count):
    ring = Changes()
    seen, position = [], 0
    for keys in commits:
        ring.append({(key, 1): None for key in keys})
        upto, numbers = ring.take(position, count)
        assert (True, sorted(numbers.values())) == (ring.reaches(position), list(numbers.values()))
        seen += numbers
        position = upto
    while position < ring.newest:
        position, numbers = ring.take(position, count)
        seen += numbers
    flat = [key for keys in commits for key in keys]
    assert (len(flat), set(flat)) == (ring.newest, set(seen))


def test_the_ring_forgets_the_oldest_and_says_so(monkeypatch):
    monkeypatch.setattr(changes, "RING_MAX", 4)
    ring = Changes()
    for number in range(10):
        ring.append([(f"k{number}", 1)])
    assert [False, True, True, False] == [ring.reaches(after) for after in (5, 6, 10, 11)]
    assert (8, {"k6": 7, "k7": 8}) == ring.take(6, 2)


async def changes_of(node, after, epoch=1, limit=1000, wait_ms=0):
    return await ask(node, ChangesRequest, epoch=epoch, after=after, limit=limit, wait_ms=wait_ms)


async def test_writes_joins_and_deletions_appear_with_what_a_read_shows():
    a, b = Node("a"), Node("b")
    async with running(a, b):
        await a.committer.write("k", "aw_set", ADD)
        await a.committer.write("k", "aw_set", b'{"add": "y"}')
        await a.committer.write("l", "pn_counter", b'{"increment": 1}')
        reply = await changes_of(b, 0, wait_ms=5000)
        while reply.upto < b.store.changes.newest or b.store.find("l") is None:
            await asyncio.sleep(0.001)
            reply = await changes_of(b, 0)
        expected = [("k", "aw_set", a.store.etag("k")), ("l", "pn_counter", a.store.etag("l"))]
        assert expected == [(each.key, each.type_name, each.digest) for each in reply.changes]
        position = (await changes_of(a, 0)).upto
        await a.committer.write_many([WriteItem("k", "", b"", is_delete=True)])
        [change] = (await changes_of(a, position)).changes
        assert ("k", "", b"") == (change.key, change.type_name, change.digest)


async def test_a_position_of_another_epoch_or_beyond_the_ring_is_a_gap():
    a = Node("a")
    async with running(a):
        await a.committer.write("k", "aw_set", ADD)
        gap = ChangesReply(1, 1, 1, [], True)
        assert [gap] * 3 == [
            await changes_of(a, 0, epoch=0),
            await changes_of(a, 1, epoch=7),
            await changes_of(a, 2),
        ]
        assert ChangesReply(1, 1, 1, [], False) == await changes_of(a, 1)


async def test_who_waits_is_woken_by_the_next_change_and_costs_nothing_after():
    a = Node("a")
    async with running(a):
        assert None is a.store.changes.on_change
        waiting = [asyncio.create_task(changes_of(a, 0, wait_ms=5000)) for _ in range(3)]
        while a.store.changes.on_change is None:  # noqa: ASYNC110 - the readers do it.
            await asyncio.sleep(0)
        await a.committer.write("k", "aw_set", ADD)
        assert [["k"]] * 3 == [[each.key for each in (await task).changes] for task in waiting]
        assert None is a.store.changes.on_change


async def test_a_wait_ends_without_a_change(monkeypatch):
    stream = ChangeStream(Store(None), 1)
    assert ChangesReply(1, 1, 0, [], False) == await stream.answer(ChangesRequest(1, 1, 0, 10, 1))


async def test_a_reader_that_gives_up_leaves_the_others_waiting():
    a = Node("a")
    async with running(a):
        first, second = (asyncio.create_task(changes_of(a, 0, wait_ms=5000)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        await a.committer.write("k", "aw_set", ADD)
        assert ["k"] == [each.key for each in (await second).changes]


async def test_a_key_that_went_to_other_nodes_does_not_look_deleted():
    a = Node("a")
    async with running(a):
        await a.committer.write("k", "aw_set", ADD)
        await a.committer.write("l", "aw_set", ADD)
        a.store.drop(slot_of("k"))
        assert (["l"], 2) == ([each.key for each in (await changes_of(a, 0)).changes], (await changes_of(a, 0)).upto)
