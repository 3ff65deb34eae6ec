"""Membership's loop over direct channels in virtual time; and what a node refuses to be told."""

import asyncio
import math
import random

import pytest

from crdt_service.kernel.error import MalformedError, OutcomeUnknownError, ServiceError
from crdt_service.loops.gossip import FOLLOW_SECONDS, Follower, Gossip
from crdt_service.membership.swim import Swim
from crdt_service.wire.message import (
    PROTOCOL,
    IndirectPingRequest,
    MemberUpdate,
    PingRequest,
    PlacementReply,
    PlacementRequest,
    PlacementWord,
    TableRequest,
    decode_reply,
    decode_request,
    encode_message,
)
from crdt_service.wire.message import Gossip as News
from tests.sim.loop import VirtualLoop
from tests.sim.membership import update_of

NAMES = ("node-0", "node-1", "node-2")
ALL_ALIVE = dict.fromkeys(NAMES, "alive")


class Link:
    """A channel that carries bytes to another gossip's `answer`, while `is_cut` is false."""

    protocol = PROTOCOL

    def __init__(self, sender, node_id, nodes):
        self.node_id = self.replica = node_id
        self.is_cut = False
        self._sender = sender
        self._nodes = nodes

    async def request(self, build):
        await asyncio.sleep(0.01)
        if self.is_cut:
            await asyncio.sleep(10)
            raise OutcomeUnknownError(self.node_id)
        request = decode_request(encode_message(build(1)))
        if isinstance(request, PlacementRequest):
            return PlacementReply(request.id, PlacementWord(0))
        return decode_reply(encode_message(await self._nodes[self.node_id].answer(self._sender, request)))


class Cluster:
    """Three nodes with a link between any two, and a backend."""

    def __init__(self, interval_seconds):
        clock = asyncio.get_running_loop().time
        self.nodes, self.swims, self.tasks = {}, {}, []
        self.links = {name: {to: Link(name, to, self.nodes) for to in NAMES if to != name} for name in NAMES}
        for name in NAMES:
            self.swims[name] = Swim(
                update_of(name),
                interval_seconds=interval_seconds,
                fanout=3,
                randomness=random.Random(name),
                now=clock(),
            )
            self.nodes[name] = Gossip(self.swims[name], self.links[name], clock)
        self.follower = Follower({n: Link("", n, self.nodes) for n in NAMES}, 2, clock, random.Random(0))

    def start(self):
        running = [node.run() for node in (*self.nodes.values(), self.follower)]
        self.tasks = [asyncio.create_task(coroutine) for coroutine in running]
        for name in NAMES:
            for link in self.links[name].values():
                self.nodes[name].opened(link)

    def states(self, name):
        return {member.id: member.state for member in self.swims[name].members()}

    async def until(self, condition, seconds_max=60):
        async with asyncio.timeout(seconds_max):  # Of virtual time.
            while not condition():  # noqa: ASYNC110 - it is virtual, too.
                await asyncio.sleep(0.05)


def in_virtual_time(scenario, interval_seconds=1.0):
    loop = VirtualLoop(None)

    async def run():
        cluster = Cluster(interval_seconds)
        cluster.start()
        try:
            await scenario(cluster)
        finally:
            for task in cluster.tasks:
                task.cancel()
            await asyncio.gather(*cluster.tasks, return_exceptions=True)

    try:
        loop.run_until_complete(run())
    finally:
        loop.close()


def test_nodes_and_backend_learn_all_members_and_where_they_are():
    async def scenario(cluster):
        changes = []
        cluster.nodes["node-0"].subscribe(lambda: changes.append(cluster.swims["node-0"].placement_members()))
        await cluster.until(lambda: all(ALL_ALIVE == cluster.states(name) for name in NAMES))
        await asyncio.sleep(FOLLOW_SECONDS)
        zones = {name: f"zone-{name[-1]}" for name in NAMES}
        assert (zones, zones) == (changes[-1], cluster.follower.placement.members)
        assert 2048 == sum(cluster.follower.placement.count().values())
        assert ALL_ALIVE == {member.id: member.state for member in cluster.follower.members()}
        endpoints = {name: (f"10.0.0.{name[-1]}", 8001) for name in NAMES}
        assert endpoints == cluster.follower.endpoints()
        assert {name: endpoints[name] for name in NAMES[1:]} == cluster.nodes["node-0"].endpoints()

    in_virtual_time(scenario)


def test_a_cut_link_between_two_makes_no_suspect_since_the_third_vouches():
    async def scenario(cluster):
        await cluster.until(lambda: all(ALL_ALIVE == cluster.states(name) for name in NAMES))
        cluster.links["node-0"]["node-1"].is_cut = cluster.links["node-1"]["node-0"].is_cut = True
        for _ in range(600):
            await asyncio.sleep(0.1)
            assert [ALL_ALIVE] * 3 == [cluster.states(name) for name in NAMES]

    in_virtual_time(scenario)


def test_an_unreachable_node_is_dead_until_it_is_reached_again():
    async def scenario(cluster):
        await cluster.until(lambda: all(ALL_ALIVE == cluster.states(name) for name in NAMES))
        around = [*cluster.links["node-2"].values(), *(cluster.links[name]["node-2"] for name in NAMES[:2])]
        for link in around:
            link.is_cut = True
        seen = {**ALL_ALIVE, "node-2": "dead"}
        await cluster.until(lambda: seen == cluster.states("node-0") == cluster.states("node-1"))
        for link in around:
            link.is_cut = False
        await cluster.until(lambda: all(ALL_ALIVE == cluster.states(name) for name in NAMES))

    in_virtual_time(scenario)


def test_without_a_channel_a_node_is_suspected_soon_though_rounds_are_rare():
    async def scenario(cluster):
        await cluster.until(lambda: all(ALL_ALIVE == cluster.states(name) for name in NAMES))
        for name in NAMES[:2]:
            cluster.nodes[name].closed(cluster.links[name].pop("node-2"))
        await cluster.until(lambda: "suspect" == cluster.states("node-0")["node-2"], seconds_max=1.5)

    in_virtual_time(scenario, interval_seconds=3600.0)


@pytest.mark.parametrize("interval_seconds", [1.0, 3600.0, math.inf])
def test_a_node_that_leaves_says_so(interval_seconds):
    async def scenario(cluster):
        await cluster.until(lambda: all(ALL_ALIVE == cluster.states(name) for name in NAMES))
        await cluster.nodes["node-2"].leave()
        assert [{**ALL_ALIVE, "node-2": "leaving"}] * 3 == [cluster.states(name) for name in NAMES]
        await cluster.nodes["node-2"].depart()
        assert ["left"] * 3 == [cluster.states(name)["node-2"] for name in NAMES]

    in_virtual_time(scenario, interval_seconds)


def test_what_nobody_may_say_is_refused_and_changes_nothing():
    async def scenario(cluster):
        node, swim = cluster.nodes["node-0"], cluster.swims["node-0"]
        await cluster.until(lambda: all(ALL_ALIVE == cluster.states(name) for name in NAMES))
        before = swim.members()
        good, bad = update_of("node-7"), MemberUpdate("node-8", "", "", "", 0, False, 0)
        with pytest.raises(MalformedError):
            await node.answer("node-1", TableRequest(1, [good, bad]))
        with pytest.raises(MalformedError):
            await node.answer("node-1", PingRequest(1, News(bytes(8), [good, bad])))
        for request in (
            TableRequest(1, [good]),
            PingRequest(1, News(bytes(8), [])),
            IndirectPingRequest(1, "node-1"),
        ):
            with pytest.raises(ServiceError) as refused:
                await node.answer("", request)
            assert "wrong_role" == refused.value.code
        assert before == swim.members()
        assert 3 == len((await node.answer("", TableRequest(1, []))).updates)

    in_virtual_time(scenario)


def test_an_indirect_ping_says_whether_the_target_answered():
    async def scenario(cluster):
        node = cluster.nodes["node-0"]
        assert (await node.answer("node-1", IndirectPingRequest(1, "node-2"))).is_reached
        assert not (await node.answer("node-1", IndirectPingRequest(1, "nobody"))).is_reached
        cluster.links["node-0"]["node-2"].is_cut = True
        assert not (await node.answer("node-1", IndirectPingRequest(1, "node-2"))).is_reached

    in_virtual_time(scenario)
