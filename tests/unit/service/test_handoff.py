"""Two nodes with real committers and exchanges, whose journals are held up when told so."""

import asyncio
import random
import threading

import pytest

from crdt_service.kernel.clock import HybridClock
from crdt_service.loops.answer import Answerer
from crdt_service.loops.commit import Committer
from crdt_service.loops.exchange import Exchange
from crdt_service.loops.garbage import Collector
from crdt_service.loops.placing import Placer
from crdt_service.loops.transfer import Transfer
from crdt_service.membership import document
from crdt_service.membership.ownership import follow_members
from crdt_service.replication.replica import Replica
from crdt_service.store.store import Store
from crdt_service.wire.message import (
    PROTOCOL,
    DecisionRequest,
    OwnershipRequest,
    Placed,
    Seat,
    decode_reply,
    decode_request,
    decode_step,
    encode_message,
)
from tests.unit.service.double import FakeClock, NullObserver

ON_A, ON_B = follow_members({"a": ""}, 1), follow_members({"b": ""}, 1)


class DropsWait:
    """A journal on which drops wait until `may_drop` is set."""

    log_bytes = 0

    def __init__(self):
        self.is_dropping = False
        self.may_drop = threading.Event()

    def append(self, payload):
        if decode_step(payload).dropped:
            self.is_dropping = True
            self.may_drop.wait()

    def rest(self):
        """There is no mark."""


class Node:
    """A node without sockets."""

    def __init__(self, node_id):
        clock = FakeClock()
        hybrid = HybridClock(clock)
        self.node_id = node_id
        self.store = Store(hybrid)
        self.journal = DropsWait()
        self.replica = Replica(f"{node_id}~478f0fb3")
        self.committer = Committer(
            self.store,
            self.journal,
            replica=self.replica,
            clock=clock,
            hybrid=hybrid,
            observer=NullObserver(),
            log_bytes_max=1 << 20,
        )
        randomness = random.Random(node_id)
        self.exchange = Exchange(node_id, self.committer, self.replica, ownership=ON_A, randomness=randomness)
        self.transfer = Transfer(
            node_id,
            self.store,
            self.committer,
            self.replica,
            self.exchange,
            observer=NullObserver(),
            sync_interval_seconds=0.01,
            randomness=randomness,
        )
        self.placer = Placer(
            node_id,
            zone="",
            node_count=2,
            factor=2,
            store=self.store,
            replica=self.replica,
            committer=self.committer,
            exchange=self.exchange,
            transfer=self.transfer,
            zones=dict,
            randomness=randomness,
            on_objection=pytest.fail,
        )
        parts = {
            "committer": self.committer,
            "replica": self.replica,
            "exchange": self.exchange,
            "transfer": self.transfer,
        }
        self.collector = Collector(
            node_id,
            self.store,
            clock=clock,
            observer=NullObserver(),
            randomness=randomness,
            is_complete=lambda: True,
            on_rebuilt=self.transfer.refill,
            **parts,
        )
        self.answerer = Answerer(node_id, self.store, placer=self.placer, collector=self.collector, epoch=1, **parts)
        self.asked_for_ownership = 0

    def place(self, ownership):
        """Follow live members, as in the release before."""
        self.exchange.place(ownership)
        self.transfer.place(ownership)

    async def seat(self, names, factor):
        """Take up the first placement of a new cluster of these nodes; the committer must run."""
        seats = [Seat(name, f"{name}~478f0fb3", "") for name in names]
        await self.placer._take_up(document.first(seats, factor, len(seats), names[0], is_new=True))

    async def request(self, build):
        """As a client asks."""
        return (await self.request_placed(0, build)).message

    async def request_placed(self, epoch, build):
        request = decode_request(encode_message(build(1)))
        self.asked_for_ownership += isinstance(request, OwnershipRequest)
        reply = self.answerer.answer(request, epoch)
        reply = decode_reply(encode_message(await reply if asyncio.iscoroutine(reply) else reply))
        return reply if isinstance(reply, Placed) else Placed(0, reply)


class ChannelTo:
    """What one node has of another."""

    protocol = PROTOCOL
    unreachable = frozenset()

    def __init__(self, node, asker):
        self.node_id = node.node_id
        self.replica = node.replica.id
        self._node = node
        self._asker = asker

    async def request(self, build):
        return (await self.request_placed(0, build)).message

    async def request_placed(self, epoch, build):
        request = build(1)
        if isinstance(request, DecisionRequest):
            asker = self._asker
            return Placed(0, await self._node.placer.answer(asker.node_id, asker.replica.id, request))
        return await self._node.request_placed(epoch, build)


@pytest.fixture
async def nodes():
    both = a, b = Node("a"), Node("b")
    running = [node.committer.run() for node in both] + [
        a.exchange.run(ChannelTo(b, a)),
        b.exchange.run(ChannelTo(a, b)),
    ]
    tasks = [asyncio.create_task(each) for each in running]
    yield both
    for node in both:
        node.journal.may_drop.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(is_met):
    while not is_met():  # noqa: ASYNC110 - it waits for what real loops and threads do.
        await asyncio.sleep(0.001)


async def test_what_is_being_forgotten_confirms_nothing(nodes):
    a, b = nodes
    b.journal.may_drop.set()
    await a.committer.write("k", "pn_counter", b'{"increment": 1}')
    for node in nodes:
        node.place(ON_B)
    await until(lambda: a.journal.is_dropping)
    for node in nodes:
        node.place(ON_A)
    # Whoever asks a third time has drawn its conclusions from the two answers before.
    before = a.asked_for_ownership
    await until(lambda: a.asked_for_ownership >= before + 3 or not b.transfer.surplus)
    a.journal.may_drop.set()
    await until(lambda: a.replica.origin != a.replica.id)
    await until(lambda: b.transfer.surplus == frozenset())
    reading = a.store.read("k")
    assert ("pn_counter", b"1") == (reading.type, reading.value)
