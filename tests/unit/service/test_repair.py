import random

from crdt_service.kernel.clock import HybridClock
from crdt_service.loops.exchange import Exchange
from crdt_service.replication import repair
from crdt_service.replication.outbox import OUTBOX_BYTES_MAX, Outbox
from crdt_service.store.batch import Batch
from crdt_service.store.store import Store
from crdt_service.wire.message import BucketRequest, Delta, FetchRequest, PushReply, PushRequest, RootRequest
from tests.unit.service.double import FakeClock, NullObserver


class Side:
    """A store behind the committer's and the channel's interfaces, counting messages."""

    def __init__(self, node_id):
        self.node_id = node_id
        self.hybrid = HybridClock(FakeClock())
        self.store = Store(self.hybrid)
        self.requests = []

    def write(self, key, type_name, op):
        batch = Batch(self.store, self.hybrid, f"{self.node_id}~1")
        batch.write(key, type_name, op)
        batch.install()

    def subscribe(self, publish):
        pass

    async def join(self, deltas, _):
        batch = Batch(self.store, self.hybrid, f"{self.node_id}~1")
        for delta in deltas:
            batch.join(delta)
        batch.install()
        return 0

    async def request(self, build):
        request = build(1)
        self.requests.append(request)
        if isinstance(request, PushRequest):
            return PushReply(1, await self.join(request.deltas, 0))
        while self.store.refresh_digests(100):
            pass
        answers = {
            RootRequest: repair.answer_root,
            BucketRequest: repair.answer_bucket,
            FetchRequest: repair.answer_fetch,
        }
        return answers[type(request)](self.store, request)

    def dump(self):
        return {address: self.store.encode(address).state for address in self.store.states}


async def repair_both(one, two):
    observer = NullObserver()
    await Exchange(one.store, one, observer, 1.0).repair(two)
    return sum(call[1] for call in observer.calls if call[0] == "on_repaired")


async def test_one_exchange_makes_both_sides_equal():
    one, two = Side("a"), Side("b")
    for number in range(300):
        random.Random(number).choice((one, two)).write(f"k{number % 200}", "pn_counter", b'{"increment": 1}')
    one.write("s", "aw_set", b'{"add": "x"}')
    await repair_both(one, two)
    assert one.dump() == two.dump()
    assert len(one.dump()) == 201


async def test_equal_sides_compare_only_roots():
    one, two = Side("a"), Side("b")
    one.write("k", "pn_counter", b'{"increment": 1}')
    await repair_both(one, two)
    two.requests.clear()
    assert await repair_both(one, two) == 8
    assert [type(request) for request in two.requests] == [RootRequest]


async def test_bytes_follow_the_difference_not_the_state():
    one, two = Side("a"), Side("b")
    for number in range(5000):
        one.write(f"k{number}", "lww_register", b'{"assign": "%s"}' % (b"v" * 100))
    whole = await repair_both(one, two)
    one.write("k7", "lww_register", b'{"assign": "new"}')
    assert await repair_both(one, two) < whole / 100
    assert one.dump() == two.dump()


async def test_large_states_move_in_parts():
    one, two = Side("a"), Side("b")
    for number in range(5):
        two.write(f"k{number}", "lww_register", b'{"assign": "%s"}' % (b"v" * 900_000))
    await repair_both(one, two)
    assert one.dump() == two.dump()


def test_a_full_outbox_drops_and_stays_bounded():
    outbox = Outbox()
    deltas = [Delta("k", 1, 1, bytes(1 << 20))]
    dropped = [outbox.put(1.0, deltas) for _ in range(20)]
    assert sum(dropped) == 20 - OUTBOX_BYTES_MAX // ((1 << 20) + 17)
    assert outbox.take() == (1.0, deltas)
    assert outbox.put(1.0, deltas) == 0


def test_an_outbox_gathers_small_batches_into_one_push():
    outbox = Outbox()
    for number in range(10):
        outbox.put(float(number), [Delta(f"k{number}", 1, 1, b"x")])
    committed_at, deltas = outbox.take()
    assert (committed_at, len(deltas)) == (0.0, 10)
    assert outbox.take() is None
