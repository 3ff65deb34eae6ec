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
from crdt_service.membership.placement import Placement
from crdt_service.replication.replica import Replica
from crdt_service.store.store import Store
from crdt_service.wire.message import (
    OwnershipRequest,
    decode_reply,
    decode_request,
    decode_step,
    encode_message,
)
from tests.unit.service.double import FakeClock, NullObserver

ON_A, ON_B = Placement({"a": ""}, 1), Placement({"b": ""}, 1)


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


class Node:
    """A node; to others it is the channel to it, too."""

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
        self.exchange = Exchange(
            node_id,
            self.store,
            self.committer,
            self.replica,
            placement=ON_A,
            observer=NullObserver(),
            sync_interval_seconds=0.01,
            randomness=random.Random(node_id),
        )
        self.collector = Collector(
            node_id,
            self.store,
            self.committer,
            self.replica,
            self.exchange,
            clock=clock,
            observer=NullObserver(),
            randomness=random.Random(node_id),
            is_complete=lambda: True,
        )
        self.answerer = Answerer(
            node_id, self.store, self.committer, self.replica, self.exchange, collector=self.collector, epoch=1
        )
        self.asked_for_ownership = 0

    async def request(self, build):
        request = decode_request(encode_message(build(1)))
        self.asked_for_ownership += isinstance(request, OwnershipRequest)
        reply = self.answerer.answer(request)
        return decode_reply(encode_message(await reply if asyncio.iscoroutine(reply) else reply))


@pytest.fixture
async def nodes():
    both = a, b = Node("a"), Node("b")
    running = [node.committer.run() for node in both] + [a.exchange.run(b), b.exchange.run(a)]
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
        node.exchange.place(ON_B)
    await until(lambda: a.journal.is_dropping)
    for node in nodes:
        node.exchange.place(ON_A)
    # Whoever asks a third time has drawn its conclusions from the two answers before.
    before = a.asked_for_ownership
    await until(lambda: a.asked_for_ownership >= before + 3 or not b.exchange.surplus)
    a.journal.may_drop.set()
    await until(lambda: a.replica.origin != a.replica.id)
    await until(lambda: b.exchange.surplus == frozenset())
    reading = a.store.read("k")
    assert ("pn_counter", b"1") == (reading.type, reading.value)
