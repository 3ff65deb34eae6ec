"""The descent finds what differs, no matter what; and nothing that a peer sends makes it fail in another way."""

import asyncio
import random
from unittest import mock

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_service.kernel.error import MalformedError
from crdt_service.kernel.slot import SLOTS, name_of, slot_of
from crdt_service.loops import anti_entropy
from crdt_service.replication import repair
from crdt_service.replication.budget import REPAIR_BYTES_PER_SECOND, Budget
from crdt_service.replication.snapshot import Snapshots
from crdt_service.wire.message import (
    NAMES_BYTES_MAX,
    NODES_BYTES_MAX,
    FetchReply,
    FetchRequest,
    RootReply,
    RootRequest,
    SumReply,
    SumRequest,
    decode_request,
    encode_message,
)
from crdt_service.wire.number import decode_ascending, encode_ascending
from tests.unit.service.side import Side, repairer

OPS = {"pn_counter": b'{"increment": 1}', "lww_register": b'{"assign": "v"}', "aw_set": b'{"add": "x"}'}
KEYS = 60


def fill(sides, writes):
    """Write on one side, the other, or on one and let the other know."""
    for place, number, type_name in writes:
        key = f"{type_name}-{number}"
        sides[place % 2].write(key, type_name, OPS[type_name])
        if place == 2:
            share(*sides, key)
    for side in sides:
        while side.store.refresh_digests(100):
            pass


def share(one, two, key):
    """Let the second know what the first holds."""
    asyncio.run(two.join(one.store.encode_key(key)))


def name(key):
    return int.from_bytes(name_of(key))


async def find_all(one, two, slots=None):
    """Return the Difference of a whole descent, before anything moves."""
    root = repair.answer_root(two.store, RootRequest(1, repair.encode_slots(slots))).root
    found = repair.begin(0, root)
    runner = repairer(one)
    for depth in range(32):
        await runner._descend(two, slots, depth, found)
    return found


async def repair_from(one, two, slots=None):
    await repairer(one).repair(two, slots)


def expected_difference(one, two, slots):
    stores = [side.store for side in (one, two)]
    held = [{key: store.digest(key) for slot in slots for key in store.slots[slot]} for store in stores]
    theirs = {name(key) for key, digest in held[1].items() if held[0].get(key) != digest}
    return theirs, {name(key) for key in held[0].keys() - held[1].keys()}


writes = st.lists(st.tuples(st.integers(0, 2), st.integers(0, KEYS), st.sampled_from(sorted(OPS))), max_size=150)


@settings(max_examples=60, deadline=None)
@given(writes=writes, slots=st.none() | st.frozensets(st.integers(0, SLOTS - 1), max_size=900))
def test_a_descent_finds_exactly_the_names_that_differ(writes, slots):
    one, two = Side("a"), Side("b")
    fill((one, two), writes)
    found = asyncio.run(find_all(one, two, slots))
    theirs, missing = expected_difference(one, two, range(SLOTS) if slots is None else slots)
    assert (theirs, missing) == (set(found.theirs), set(found.missing))
    assert [] == found.nodes


@settings(max_examples=25, deadline=None)
@given(writes=writes, limit=st.sampled_from((1, 7)))
def test_a_repair_makes_both_sides_equal_however_small_its_parts(writes, limit):
    one, two = Side("a"), Side("b")
    fill((one, two), writes)
    with (
        mock.patch.object(repair, "ANSWER_KEYS_MAX", limit),
        mock.patch.object(repair, "NODES_MAX", limit),
        mock.patch.object(anti_entropy, "FETCH_NAMES_MAX", limit),
        mock.patch.object(anti_entropy, "SLOT_REPLIES_MAX", limit),
    ):
        asyncio.run(repair_from(one, two))
    assert one.dump() == two.dump()


async def test_a_descent_goes_as_deep_as_the_names_need():
    one, two = Side("a"), Side("b")
    deltas = one.write_all((f"k{number}", b"v") for number in range(20_000))
    await two.join(deltas)
    for side, key in ((one, "k5"), (two, "k17777"), (two, "new")):
        side.write(key, "lww_register", b'{"assign": "changed"}')
    two.requests.clear()
    await repair_from(one, two)
    assert one.dump() == two.dump()
    depths = [request.depth for request in two.requests if isinstance(request, SumRequest)]
    assert sorted(set(depths)) == depths
    assert 6 <= max(depths)
    assert ["k5"] == [delta.key for delta in two.pushed]


async def test_only_the_asked_slots_are_repaired():
    one, two = Side("a"), Side("b")
    for number in range(400):
        (one, two)[number % 2].write(f"k{number}", "lww_register", b'{"assign": 1}')
    slots = frozenset(range(0, SLOTS, 2))
    await repair_from(one, two, slots)
    inside, outside = (
        [{a: s for a, s in side.dump().items() if (slot_of(a[0]) in slots) == is_inside} for side in (one, two)]
        for is_inside in (True, False)
    )
    assert inside[0] == inside[1]
    assert set() == outside[0].keys() & outside[1].keys()
    two.requests.clear()
    await repair_from(one, two, slots)
    assert [RootRequest] == [type(request) for request in two.requests]
    two.requests.clear()
    await repair_from(one, two, frozenset())
    assert [RootRequest] == [type(request) for request in two.requests]


@pytest.mark.parametrize("is_reversed", [False, True])
async def test_an_empty_side_gets_everything_and_once(is_reversed):
    full, empty = Side("a"), Side("b")
    for number in range(3000):
        full.write(f"k{number}", "lww_register", b'{"assign": %d}' % number)
    one, two = (empty, full) if is_reversed else (full, empty)
    with mock.patch.object(repair, "ANSWER_KEYS_MAX", 500):
        await repair_from(one, two)
    assert one.dump() == two.dump()
    pushed = [delta.key for delta in two.pushed]
    assert (0 if is_reversed else 3000) == len(pushed) == len(set(pushed))


async def test_a_difference_that_one_window_hides_shows_in_the_next():
    one, two = Side("a"), Side("b")
    for number in range(50):
        one.write(f"k{number}", "lww_register", b'{"assign": 1}')
    await repair_from(one, two)
    one.write("k7", "lww_register", b'{"assign": 2}')
    real = repair._show
    runner = repairer(one)

    def hide(digest, window):
        return real(digest, window) if window == 0 else 0

    with mock.patch.object(repair, "_show", hide):
        await runner.repair(two, None)
        assert one.dump() != two.dump()
        await runner.repair(two, None)
    assert one.dump() == two.dump()


async def test_one_exchange_with_a_peer_at_a_time():
    one, two = Side("a"), Side("b")
    one.write("k", "lww_register", b'{"assign": 1}')
    under_way, most = 0, 0
    real = two.request

    async def request(build):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return await real(build)

    two.request = request
    runner = repairer(one)
    await asyncio.gather(*(runner.repair(two, None) for _ in range(3)))
    assert 1 == most
    assert one.dump() == two.dump()


def test_a_budget_spreads_bytes_over_time():
    budget = Budget()
    assert 0.0 == budget.spend(10.0, 100)
    assert 2.0 == pytest.approx(budget.spend(10.0, 2 * REPAIR_BYTES_PER_SECOND), abs=1e-3)
    assert 1.0 == pytest.approx(budget.spend(11.0, 0), abs=1e-3)
    assert 0.0 == budget.spend(20.0, 100)


@given(st.sets(st.integers(0, 2**62 - 1), max_size=50))
def test_ascending_numbers_round_trip(numbers):
    ordered = sorted(numbers)
    assert ordered == decode_ascending(encode_ascending(ordered), 1 << 62)


@given(st.binary(max_size=40), st.integers(1, 2**62))
def test_any_bytes_are_ascending_numbers_in_range_or_refused(data, end):
    try:
        numbers = decode_ascending(data, end)
    except MalformedError:
        return
    assert sorted(set(numbers)) == numbers
    assert all(0 <= number < end for number in numbers)


def sum_request(depth=0, nodes=b"\0", slots=b"", window=0):
    return SumRequest(1, slots, window, depth, nodes)


@pytest.mark.parametrize(
    "request_",
    [
        sum_request(depth=0, nodes=b"\1"),
        sum_request(depth=5, nodes=encode_ascending([1024])),
        sum_request(depth=31, nodes=b"\xff" * 12),
        sum_request(nodes=b"\x80"),
        sum_request(slots=b"\1"),
    ],
    ids=["beyond the root", "no slot", "endless", "cut short", "short map"],
)
def test_hostile_sum_requests_are_refused(request_):
    with pytest.raises(MalformedError):
        repair.answer_sums(Side("a").store, request_)


@pytest.mark.parametrize(
    "request_",
    [
        sum_request(nodes=bytes(NODES_BYTES_MAX + 1)),
        sum_request(window=29),
        sum_request(depth=32),
        sum_request(slots=bytes(129)),
        FetchRequest(1, bytes(NAMES_BYTES_MAX + 8)),
    ],
    ids=["many nodes", "window", "depth", "long map", "many names"],
)
def test_messages_out_of_range_are_no_messages(request_):
    with pytest.raises(MalformedError):
        decode_request(encode_message(request_))


def test_other_hostile_requests_are_refused():
    store = Side("a").store
    with pytest.raises(MalformedError):
        repair.answer_root(store, RootRequest(1, b"\1"))
    with pytest.raises(MalformedError):
        repair.answer_fetch(store, Snapshots(), FetchRequest(1, bytes(7)))


def test_one_answer_scans_no_more_than_its_share(monkeypatch):
    side = Side("a")
    for number in range(4000):
        side.write(f"k{number}", "lww_register", b'{"assign": 1}')
    fill((side,), [])
    monkeypatch.setattr(repair, "ANSWER_KEYS_MAX", 50)
    names = sorted(name(f"k{number}") for number in range(4000))

    def answer_fetch(store, request):
        return repair.answer_fetch(store, Snapshots(), request)

    slots = encode_ascending(list(range(SLOTS)))
    for answer, request in (
        (repair.answer_sums, sum_request(depth=5, nodes=slots)),
        (answer_fetch, FetchRequest(1, repair.encode_names(names))),
        (answer_fetch, FetchRequest(1, repair.encode_names(random.Random(1).sample(names, 4000)))),
    ):
        side.store._scans.clear()
        side.store._scanned_keys = 0
        reply = answer(side.store, request)
        assert 0 < side.store._scanned_keys <= 50
        assert 0 < reply.served < 100


class Liar(Side):
    """Answers sums with something else."""

    def __init__(self, node_id, lie):
        super().__init__(node_id)
        self._lie = lie

    async def request(self, build):
        reply = await super().request(build)
        return self._lie(reply) if isinstance(reply, SumReply | FetchReply | RootReply) else reply


def lie_on_sums(**fields):
    return lambda reply: msgspec.structs.replace(reply, **fields) if isinstance(reply, SumReply) else reply


@pytest.mark.parametrize(
    "lie",
    [
        lie_on_sums(served=0),
        lie_on_sums(served=-1),
        lie_on_sums(served=99),
        lie_on_sums(inner=b""),
        lie_on_sums(inner=b"\xff"),
        lie_on_sums(inner=bytes(1 << 20)),
        lie_on_sums(sums=b"\0"),
        lie_on_sums(rows=b"\0"),
        lie_on_sums(rows=bytes(12 * 1000)),
        lambda reply: msgspec.structs.replace(reply, served=0) if isinstance(reply, FetchReply) else reply,
        lambda reply: msgspec.structs.replace(reply, served=10**9) if isinstance(reply, FetchReply) else reply,
    ],
)
async def test_replies_that_do_not_fit_end_the_repair(lie):
    one, two = Side("a"), Liar("b", lie)
    for number in range(40):
        (one, two)[number % 2].write(f"k{number}", "lww_register", b'{"assign": 1}')
    with pytest.raises(MalformedError):
        await repair_from(one, two)


async def test_a_peer_that_always_differs_and_shows_nothing_ends():
    def lie(reply):
        if isinstance(reply, RootReply):
            return RootReply(reply.id, bytes(8))
        return reply

    one, two = Side("a"), Liar("b", lie)
    one.write("k", "lww_register", b'{"assign": 1}')
    await repair_from(one, two)
    before = len(two.requests)
    await repair_from(one, two)
    assert before + 2 >= len(two.requests)
    assert one.dump() == two.dump()
