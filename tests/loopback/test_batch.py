"""Batches, named and conditional writes, listing and changes on real nodes, spoken to as a backend does."""

import asyncio
import contextlib
from functools import partial

import pytest

from crdt_service.api.feed.hub import ask_changes
from crdt_service.api.router import Router
from crdt_service.kernel.error import ServiceError
from crdt_service.membership.placement import Placement
from crdt_service.net.cluster import ClusterIdentity
from crdt_service.net.dial import open_channel
from crdt_service.net.handshake import BACKEND, Identity
from crdt_service.wire.message import Concern, ReadRequest, WriteItem

ADD = b'{"increment": 1}'


@contextlib.asynccontextmanager
async def routing(cluster):
    """A router over channels of its own to all nodes, and how to ask one of them."""
    identity, channels = ClusterIdentity.of_files(cluster.secret_file, cluster.name), {}
    for name, (port, _) in cluster.ports.items():
        _, channels[name] = await open_channel("127.0.0.1", port, identity, Identity(BACKEND, "test", ""))

    class Nodes:
        placement = Placement({name: f"zone-{name[-1]}" for name in cluster.node_ids}, len(cluster.node_ids))

        def __init__(self):
            self.channels = channels

        def peers(self):
            return []

        def members(self):
            return []

    try:
        yield Router(Nodes(), Nodes()), channels
    finally:
        for channel in channels.values():
            channel.close()


def count(key):
    return WriteItem(key, "pn_counter", ADD)


async def read(channel, key):
    return (await channel.request(partial(ReadRequest, key=key))).value


async def read_all(router, keys, name, expected):
    """What a node shows of these keys, once that is as expected or a minute has passed."""
    for _ in range(600):
        found = {reply.value for _, reply in await router.read_many(keys, name)}
        if found == expected:
            break
        await asyncio.sleep(0.1)
    return found


async def test_a_batch_is_applied_once_and_read_everywhere(cluster):
    async with routing(cluster) as (router, channels):
        items = [count(f"batch-{number % 100}") for number in range(200)]
        for is_replay in (False, True):
            outcomes = await router.write_many(items, idempotency_key="once")
            assert {is_replay} == {reply.is_replay for _, reply in outcomes}
        keys = [f"batch-{number}" for number in range(100)]
        for name in channels:
            assert {b"2"} == await read_all(router, keys, name, {b"2"})


async def test_a_write_sent_again_through_another_node_counts_once(cluster):
    async with routing(cluster) as (router, channels):
        for node_id in channels:
            _, reply = await router.write(
                "named", "pn_counter", ADD, node_id, concern=Concern.MAJORITY, is_read=True, idempotency_key="x"
            )
            assert b"1" == reply.value
        with pytest.raises(ServiceError) as refused:
            await router.write("named", "pn_counter", b'{"increment": 2}', None, idempotency_key="x")
        assert refused.value.code == "idempotency_mismatch"
        assert {b"1"} == {await read(channel, "named") for channel in channels.values()}


async def test_a_write_sent_again_after_kill_9_counts_once(cluster):
    async with routing(cluster) as (router, _):
        await router.write("killed", "pn_counter", ADD, "node-1", idempotency_key="x")
    cluster.kill("node-1")
    cluster.start_node("node-1")
    cluster.wait_ready("node-1")
    async with routing(cluster) as (router, _):
        # Alone, it may still be comparing what it holds with the others.
        for _ in range(600):
            with contextlib.suppress(ServiceError):
                _, reply = await router.write("killed", "pn_counter", ADD, "node-1", is_read=True, idempotency_key="x")
                break
            await asyncio.sleep(0.1)
        assert (b"1", True) == (reply.value, reply.is_replay)


async def test_a_conditional_write_is_refused_once_the_key_has_changed(cluster):
    async with routing(cluster) as (router, channels):
        write = partial(router.write, "guarded", "lww_register", node_id=None, concern=Concern.ALL, is_read=True)
        _, first = await write(b'{"assign": 1}', if_match=b"")
        for name in channels:
            assert first.digest == (await router.read("guarded", name))[1].digest
        _, second = await write(b'{"assign": 2}', if_match=first.digest)
        for stale in (b"", first.digest):
            with pytest.raises(ServiceError) as refused:
                await write(b'{"assign": 3}', if_match=stale)
            assert refused.value.code == "precondition_failed"
        assert (b"2", second.digest) == (second.value, (await router.read("guarded", None))[1].digest)
        with pytest.raises(ServiceError):
            await router.delete("guarded", None, if_match=first.digest)
        await router.delete("guarded", None, Concern.ALL, if_match=second.digest)
        assert "" == (await router.read("guarded", None))[1].type_name


async def test_pages_of_keys_make_the_whole_in_order(cluster):
    async with routing(cluster) as (router, _):
        names = [f"listed/{number:03}" for number in range(120)]
        await router.write_many([count(name) for name in names], concern=Concern.ALL)
        found, after = [], ""
        while after is not None:
            page = await router.list_keys("listed/", after, 50)
            assert [] == page.unanswered
            found += [listed.key for listed in page.keys]
            after = page.after
        assert names == found


async def test_a_change_wakes_its_reader_on_each_node(cluster):
    async with routing(cluster) as (router, channels):
        starts = {name: await ask_changes(channels[name], (0, 0), 1, 0) for name in channels}
        assert {True} == {start.is_gap for start in starts.values()}

        async def find(name):
            epoch, upto = starts[name].epoch, starts[name].upto
            while True:
                reply = await ask_changes(channels[name], (epoch, upto), 1000, 5000)
                assert not reply.is_gap
                upto = reply.upto
                for change in reply.changes:
                    if change.key == "watched":
                        return change.type_name

        readers = [asyncio.create_task(find(name)) for name in channels]
        await router.write("watched", "pn_counter", ADD, None)
        assert ["pn_counter"] * len(channels) == await asyncio.gather(*readers)
