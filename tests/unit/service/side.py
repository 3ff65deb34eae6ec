"""A node without disk and sockets: its store behind what a repair needs of a committer and a channel."""

from functools import partial

from crdt_service.kernel.clock import HybridClock
from crdt_service.loops.anti_entropy import AntiEntropy, refresh
from crdt_service.replication import repair
from crdt_service.replication.snapshot import Snapshots
from crdt_service.store.batch import Batch
from crdt_service.store.store import Store
from crdt_service.wire.message import (
    FetchRequest,
    PushRequest,
    RootRequest,
    SumRequest,
    decode_reply,
    decode_request,
    encode_message,
)
from tests.dump import dump
from tests.unit.service.double import FakeClock, NullObserver


class Side:
    """One of two nodes.

    Attributes:
        requests: What it was asked.
        snapshots: Large keys whose parts it serves.
        pushed: The deltas that were pushed to it.
        moved_bytes: Of requests, their replies and pushes.
        largest_bytes: Of the largest reply or push.
    """

    def __init__(self, node_id):
        self.node_id = node_id
        self.hybrid = HybridClock(FakeClock())
        self.store = Store(self.hybrid)
        self.requests = []
        self.pushed = []
        self.moved_bytes = 0
        self.largest_bytes = 0
        self.snapshots = Snapshots()
        self._answers = {
            RootRequest: partial(repair.answer_root, self.store),
            SumRequest: partial(repair.answer_sums, self.store),
            FetchRequest: partial(repair.answer_fetch, self.store, self.snapshots),
        }

    def write(self, key, type_name, op):
        batch = Batch(self.store, self.hybrid, f"{self.node_id}~478f0fb3")
        batch.write(key, type_name, op)
        batch.install()

    def write_all(self, registers):
        """Assign a value of bytes to each key of pairs; return the deltas."""
        registers = dict(registers)
        batch = Batch(self.store, self.hybrid, f"{self.node_id}~478f0fb3")
        for key, value in registers.items():
            batch.write(key, "lww_register", b'{"assign": "%s"}' % value.hex().encode())
        batch.install()
        return [delta for key in registers for delta in self.store.encode_key(key)]

    async def join(self, deltas):
        batch = Batch(self.store, self.hybrid, f"{self.node_id}~478f0fb3")
        for delta in deltas:
            batch.join(delta)
        batch.install()
        return 0

    async def request(self, build):
        """As the Channel protocol says, with the real answers in real bytes."""
        data = encode_message(build(len(self.requests)))
        request = decode_request(data)
        self.requests.append(request)
        if isinstance(request, RootRequest):
            await refresh(self.store)
        reply = encode_message(self._answers[type(request)](request))
        self.moved_bytes += len(data) + len(reply)
        self.largest_bytes = max(self.largest_bytes, len(reply))
        return decode_reply(reply)

    async def push(self, deltas):
        self.pushed += deltas
        size = len(encode_message(PushRequest(0, "", 0, 0, 0.0, deltas)))
        self.moved_bytes += size
        self.largest_bytes = max(self.largest_bytes, size)
        await self.join(deltas)
        return 0

    def dump(self):
        return dump(self.store)


def repairer(one, observer=None):
    """Return what repairs from one side."""
    return AntiEntropy(
        one.store, observer or NullObserver(), join=one.join, push=lambda channel, deltas: channel.push(deltas)
    )
