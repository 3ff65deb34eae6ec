"""What a client of a backend has written or read it sees from then on, though no node hears of another."""

import asyncio
import contextlib
import time
from types import SimpleNamespace

import pytest

from crdt_service.api.proximity import Proximity
from crdt_service.api.router import Router
from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.slot import slot_of
from crdt_service.wire.message import Concern, ReadRequest, WriteItem, WriteRequest
from tests.unit.service.test_handoff import ChannelTo, Node

NAMES = "abc"
KEY = "k"
# Type, what fills the key, what empties it (None: its deletion), and what is shown then (nothing: it is missing).
EMPTYING = [
    ("ew_flag", b'{"enable":true}', b'{"disable":true}', b"false"),
    ("ew_flag", b'{"enable":true}', None, b""),
    ("aw_set", b'{"add":"x"}', b'{"remove":"x"}', b"[]"),
    ("map", b'{"update":{"f":{"type":"pn_counter","op":{"increment":1}}}}', b'{"remove":"f"}', b"{}"),
    ("map", b'{"update":{"f":{"type":"pn_counter","op":{"increment":1}}}}', None, b""),
    ("lww_register", b'{"assign":1}', None, b""),
    ("mv_register", b'{"assign":1}', None, b""),
]
ADD = ("aw_set", b'{"add":"x"}')


class Way(ChannelTo):
    """A channel to a node that may be slow, or refuse some requests."""

    def __init__(self, node):
        super().__init__(node, node)
        self.late_seconds = 0.0
        self.refused = ()
        self.asked = []

    async def request(self, build):
        self.asked.append(type(build(1)))
        if isinstance(build(1), self.refused):
            raise ServiceError("storage_full", "", "")
        await asyncio.sleep(self.late_seconds)
        return await super().request(build)


@contextlib.asynccontextmanager
async def apart():
    """Three owners of every key that never hear of each other, and a backend that reaches them all."""
    nodes = [Node(name) for name in NAMES]
    tasks = [asyncio.create_task(node.committer.run()) for node in nodes]
    for node in nodes:
        await node.seat(NAMES, 3)
    proximity = Proximity("")
    ways = {node.node_id: Way(node) for node in nodes}
    directory = SimpleNamespace(channels=ways, peers=list)
    cluster = SimpleNamespace(placement=nodes[0].exchange.ownership, members=list)
    router = Router(directory, cluster, proximity)
    order = cluster.placement.owners(slot_of(KEY))
    try:
        yield SimpleNamespace(router=router, proximity=proximity, nodes=nodes, ways=[ways[name] for name in order])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def write_everywhere(world, type_name, op):
    """Have every node hold one and the same write."""
    await world.nodes[0].committer.write(KEY, type_name, op)
    for node in world.nodes[1:]:
        await node.committer.join_states(world.nodes[0].store.encode_key(KEY))


async def empty(world, type_name, op):
    if op is None:
        await world.router.delete(KEY, None)
    else:
        await world.router.write(KEY, type_name, op, None)


async def show(world):
    """All that the backend shows of the key, by each way to ask."""
    one = (await world.router.read(KEY, None))[1].value
    explained = (await world.router.explain(KEY, None))[1].value
    [(_, batch)] = await world.router.read_many([KEY], None)
    page = await world.router.list_keys("", "", 10)
    return one, explained, batch.value, [listed.key for listed in page.keys]


def find_slow(world, way):
    for each in world.ways:
        for kind in ("read", "write"):
            world.proximity.observe(kind, each.node_id, 9.0 if each is way else 0.001, time.monotonic())


@pytest.mark.parametrize("slow", [None, 0, 1, 2])
@pytest.mark.parametrize(("type_name", "fill", "drain", "left"), EMPTYING)
async def test_what_was_emptied_stays_so(type_name, fill, drain, left, slow):
    async with apart() as world:
        await write_everywhere(world, type_name, fill)
        assert not {b"", left}.intersection((await show(world))[:3])
        await empty(world, type_name, drain)
        if slow is not None:
            find_slow(world, world.ways[slow])
        assert (left, left, left, [KEY] if left else []) == await show(world)


async def test_a_node_that_knows_that_a_key_is_empty_is_believed_and_one_that_never_heard_of_it_is_not():
    async with apart() as world:
        await write_everywhere(world, *ADD)
        first, second, third = (world.router._directory.channels[way.node_id]._node for way in world.ways)
        await first.committer.write_many([WriteItem(KEY, "", b"", is_delete=True)])
        reply = (await world.router.read(KEY, None))[1]
        assert ("", first.store.emptied(KEY)) == (reply.type_name, reply.digest)
        await third.committer.write("new", *ADD)
        assert b'["x"]' == (await world.router.read("new", None))[1].value
        assert (b'["x"]', b"") == (second.store.read(KEY).value, second.store.emptied("never"))


async def test_a_late_node_is_not_overtaken_by_one_that_holds_less():
    async with apart() as world:
        await write_everywhere(world, "ew_flag", b'{"enable":true}')
        await world.router.write(KEY, "ew_flag", b'{"disable":true}', None)
        for way in world.ways:
            for _ in range(50):
                world.proximity.observe("read", way.node_id, 0.001, time.monotonic())
        world.ways[0].late_seconds = 0.05
        assert b"false" == (await world.router.read(KEY, None))[1].value
        assert ReadRequest in world.ways[1].asked  # It was, and said something else.


async def test_a_late_node_is_overtaken_by_one_that_holds_the_same():
    async with apart() as world:
        await write_everywhere(world, *ADD)
        assert world.ways[0].node_id == (await world.router.read(KEY, None))[0]
        for way in world.ways:
            for _ in range(50):
                world.proximity.observe("read", way.node_id, 0.001, time.monotonic())
        world.ways[0].late_seconds = 60
        assert (world.ways[1].node_id, b'["x"]') == await read(world)


async def test_writes_follow_what_was_read_to_its_node():
    async with apart() as world:
        world.ways[0].refused = (WriteRequest,)
        taker, _ = await world.router.write(KEY, *ADD, None)
        world.ways[0].refused = ()
        assert world.ways[1].node_id == taker
        assert taker == (await world.router.write(KEY, "aw_set", b'{"remove":"x"}', None))[0]
        [(batch_taker, _)] = await world.router.write_many([WriteItem(KEY, *ADD)])
        assert (taker, taker) == (batch_taker, (await world.router.read(KEY, None))[0])


@pytest.mark.parametrize("way", ["write", "batch", "delete"])
async def test_a_slow_node_that_alone_holds_what_was_read_takes_what_follows(way):
    async with apart() as world:
        await world.router.write(KEY, *ADD, None)
        find_slow(world, world.ways[0])
        remove = b'{"remove":"x"}'
        if way == "batch":
            await world.router.write_many([WriteItem(KEY, "aw_set", remove)])
        else:
            await empty(world, "aw_set", remove if way == "write" else None)
        left = b"" if way == "delete" else b"[]"
        assert (left, left, left, [KEY] if left else []) == await show(world)


async def test_a_type_of_a_key_is_looked_for_at_owners_that_heard_of_it():
    async with apart() as world:
        await write_everywhere(world, *ADD)
        third = world.ways[2]._node
        await third.committer.join_states(await hold_alone("ew_flag", b'{"enable":true}'))
        assert (third.node_id, b"true") == await read_type(world, "ew_flag")
        [(taker, batch)] = await world.router.read_many([KEY], None, type_name="ew_flag")
        assert (third.node_id, b"true") == (taker, batch.value)
        assert b"" == (await read_type(world, "pn_counter"))[1]


async def test_what_was_deleted_of_one_type_stays_so_and_the_other_type_stays():
    async with apart() as world:
        await write_everywhere(world, *ADD)
        for node in world.nodes:
            await node.committer.join_states(await hold_alone("ew_flag", b'{"enable":true}'))
        assert b"true" == (await read_type(world, "ew_flag"))[1]
        taker, _ = await world.router.delete(KEY, None, type_name="ew_flag")
        find_slow(world, next(way for way in world.ways if way.node_id == taker))
        assert (taker, b"") == await read_type(world, "ew_flag")
        assert b'["x"]' == (await read_type(world, "aw_set"))[1]
        [(_, batch)] = await world.router.read_many([KEY], None, type_name="ew_flag")
        listed = (await world.router.list_keys("", "", 10)).other_types
        assert (b"", {}) == (batch.value, listed)


@pytest.mark.parametrize("is_purged", [False, True])
async def test_a_type_that_was_never_heard_of_is_told_from_one_that_was_emptied(is_purged):
    async with apart() as world:
        await write_everywhere(world, *ADD)
        node = world.nodes[0]
        assert (node.store.etag(KEY), b"") == (node.store.emptied(KEY, "aw_set"), node.store.emptied(KEY, "ew_flag"))
        await node.committer.write_many([WriteItem(KEY, "", b"", is_delete=True)])
        if is_purged:
            await node.committer.purge(lambda: [KEY], 7)
        assert (node.store.emptied(KEY), b"") == (node.store.emptied(KEY, "aw_set"), node.store.emptied(KEY, "ew_flag"))


async def test_who_is_away_is_not_waited_for():
    async with apart() as world:
        await write_everywhere(world, *ADD)
        await world.router.delete(KEY, None)
        del world.router._directory.channels[world.ways[0].node_id]
        assert (world.ways[1].node_id, b'["x"]') == await read(world)
        assert (world.ways[1].node_id, b'["x"]') == await read(world)


async def hold_alone(type_name, op):
    """Return the states of the key as a node holds them that heard of nothing else."""
    node = Node("z")
    committing = asyncio.create_task(node.committer.run())
    await node.seat(NAMES, 3)
    await node.committer.write(KEY, type_name, op)
    committing.cancel()
    return node.store.encode_key(KEY)


async def read_type(world, type_name):
    node_id, reply = await world.router.read(KEY, None, type_name=type_name)
    return node_id, reply.value


async def read(world, concern=Concern.ONE):
    node_id, reply = await world.router.read(KEY, None, concern)
    return node_id, reply.value


async def test_what_a_pinned_write_did_is_seen_without_a_pin():
    async with apart() as world:
        await world.router.write(KEY, *ADD, world.ways[2].node_id)
        assert (world.ways[2].node_id, b'["x"]') == await read(world)


async def test_a_purged_key_is_known_to_be_empty_and_by_the_same_digest():
    async with apart() as world:
        await write_everywhere(world, *ADD)
        first = world.ways[0]._node
        await world.router.delete(KEY, None)
        before = first.store.emptied(KEY)
        await first.committer.purge(lambda: [KEY], 7)
        assert (False, before) == (first.store.holds(KEY), first.store.emptied(KEY))
        assert (b"", b"", b"", []) == await show(world)
