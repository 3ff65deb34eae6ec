"""Many writes and reads in one request: each stands for itself, and the answer says what became of it."""

import asyncio
import contextlib

import pytest

from crdt_service.api.router import Router
from crdt_service.kernel.error import OutcomeUnknownError, ServiceError, UnreachableError
from crdt_service.kernel.slot import slot_of
from crdt_service.loops import commit, writing
from crdt_service.membership.ownership import follow_members
from crdt_service.wire.message import (
    Concern,
    DeleteRequest,
    FailureReply,
    ManyReply,
    ReadManyRequest,
    ReadRequest,
    Token,
    ValueReply,
    WriteItem,
    WriteManyRequest,
    WriteRequest,
)
from tests.unit.service.test_commit import running as committing
from tests.unit.service.test_handoff import ChannelTo, Node

NAMES = ("a", "b", "c")
TOKEN = Token(bytes(16), bytes(8))


def count(key="k", op=b'{"increment": 1}', **options):
    return WriteItem(key, "pn_counter", op, **options)


@contextlib.asynccontextmanager
async def running(*nodes):
    """Nodes that own every key, connected to each other."""
    tasks = [asyncio.create_task(node.committer.run()) for node in nodes]
    for node in nodes:
        await node.seat("ab", 2)
        tasks += [
            asyncio.create_task(node.exchange.run(ChannelTo(other, node))) for other in nodes if other is not node
        ]
    others = len(nodes) - 1
    while not all(len(node.exchange.channels) == others for node in nodes):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def ask(node, kind, **fields):
    return await node.request(lambda number: kind(number, **fields))


def shown(reply):
    return [getattr(result, "code", "") or (result.type_name, result.value) for result in reply.results]


async def test_items_stand_for_themselves_and_those_of_a_key_keep_their_order():
    a = Node("a")
    async with running(a):
        items = [
            WriteItem("r", "lww_register", b'{"assign": 1}'),
            count(op=b"{}"),
            count(),
            WriteItem("r", "lww_register", b'{"assign": 2}'),
            count("r"),
            count("\0" * 600),
            WriteItem("r", "none", b"{}"),
        ]
        reply = await ask(a, WriteManyRequest, items=items, is_read=True)
        assert shown(reply) == [
            ("lww_register", b"2"),
            "invalid_operation",
            ("pn_counter", b"1"),
            ("lww_register", b"2"),
            "type_conflict",
            "invalid_key",
            "unknown_type",
        ]
        assert [result.id for result in reply.results] == list(range(7))
        assert [reply.results[place].digest for place in (0, 2)] == [a.store.etag("r"), a.store.etag("k")]
        reads = await ask(a, ReadManyRequest, keys=["k", "none", "r"])
        assert shown(reads) == [("pn_counter", b"1"), ("", b""), ("lww_register", b"2")]
        assert [result.digest for result in reads.results] == [a.store.etag("k"), b"", a.store.etag("r")]


async def test_one_batch_is_one_step_on_disk(tmp_path):
    async with committing(tmp_path) as replica:
        before = replica.journal.log_bytes
        await replica.committer.write_many([count(f"k{number}") for number in range(256)])
        one = replica.journal.log_bytes - before
        assert (256, True) == (replica.replica.commits.newest, one < 256 * 60)


async def test_what_the_disk_refuses_is_refused_for_each(tmp_path):
    async with committing(tmp_path) as replica:
        replica.disk.is_full = True
        with pytest.raises(ServiceError) as refused:
            await replica.committer.write_many([count("k"), count("l")])
        assert ("storage_full", {}) == (refused.value.code, replica.dump())


async def test_a_queue_counts_writes_and_not_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(commit, "QUEUE_ITEMS_MAX", 8)
    async with committing(tmp_path) as replica:
        batches = [replica.committer.write_many([count()] * 4) for _ in range(3)]
        results = await asyncio.gather(*batches, return_exceptions=True)
        assert ["overloaded"] == [result.code for result in results if isinstance(result, ServiceError)]
        await replica.committer.write_many([count()] * 4)
        assert replica.store.read("k").value == b"12"


async def test_values_that_do_not_fit_are_left_out_and_their_writes_are_done(monkeypatch):
    monkeypatch.setattr(writing, "VALUES_BYTES_MAX", 100)
    a = Node("a")
    async with running(a):
        items = [
            WriteItem(f"r{n}", "lww_register", b'{"assign": "%s"}' % (b"x" * size))
            for n, size in enumerate((60, 60, 200))
        ]
        reply = await ask(a, WriteManyRequest, items=items, is_read=True)
        assert [62, 0, 0] == [len(result.value) for result in reply.results]
        reads = await ask(a, ReadManyRequest, keys=["r0", "r1", "r2"])
        assert [62] == [len(result.value) for result in reads.results]
        reads = await ask(a, ReadManyRequest, keys=["r2", "r1"])
        assert ["value_too_large", ("lww_register", b'"%s"' % (b"x" * 60))] == shown(reads)


async def test_a_batch_is_confirmed_by_its_owners_and_found_again_on_the_other():
    a, b = Node("a"), Node("b")
    async with running(a, b):
        items = [count("k", token=TOKEN), count("l", token=TOKEN)]
        reply = await ask(a, WriteManyRequest, items=items, concern=Concern.ALL, is_read=True)
        assert [("pn_counter", b"1")] * 2 == shown(reply)
        assert [b"1", b"1"] == [b.store.read(key).value for key in "kl"]
        again = await ask(b, WriteManyRequest, items=items, concern=Concern.ALL, is_read=True)
        assert [("pn_counter", b"1", True)] * 2 == [
            (each.type_name, each.value, each.is_replay) for each in again.results
        ]
        one = await ask(b, WriteRequest, key="k", type_name="pn_counter", op=items[0].op, token=TOKEN, is_read=True)
        assert (b"1", True) == (one.value, one.is_replay)


async def test_a_receipt_is_looked_for_on_a_majority():
    a, b = Node("a"), Node("b")
    async with running(a, b):
        b.exchange.publish = a.exchange.publish = lambda: None
        for peer in a.exchange._peers.values():
            peer.wake.set = lambda: None  # Nothing is pushed.
        fields = {"key": "k", "type_name": "pn_counter", "op": b'{"increment": 1}', "token": TOKEN}
        await ask(a, WriteRequest, **fields)
        reply = await ask(b, WriteRequest, **fields, concern=Concern.MAJORITY, is_read=True)
        assert (b"1", True) == (reply.value, reply.is_replay)


async def test_what_too_few_owners_can_take_is_refused_before_anything_is_done():
    a = Node("a")
    async with running(a):
        reply = await ask(a, WriteManyRequest, items=[count()], concern=Concern.MAJORITY)
        assert (["too_few_owners"], None) == (shown(reply), a.store.read("k"))


async def test_a_deletion_and_conditions_over_the_wire():
    a = Node("a")
    async with running(a):
        write = {"key": "s", "type_name": "aw_set", "op": b'{"add": "x"}'}
        first = await ask(a, WriteRequest, **write, if_match=b"", is_read=True)
        assert (b'["x"]', a.store.etag("s")) == (first.value, first.digest)
        with pytest.raises(ServiceError) as refused:
            await ask(a, WriteRequest, **write, if_match=b"")
        assert refused.value.code == "precondition_failed"
        with pytest.raises(ServiceError) as refused:
            await ask(a, DeleteRequest, key="s", if_match=bytes(8))
        assert refused.value.code == "precondition_failed"
        reply = await ask(a, WriteManyRequest, items=[WriteItem("s", "", b"", first.digest, None, True)], is_read=True)
        assert ([("aw_set", b"")], None) == (shown(reply), a.store.read("s"))
        missing = await ask(a, ReadRequest, key="s")
        assert ("", a.store.emptied("s")) == (missing.type_name, missing.digest)


class FakeChannel:
    """Answers with what `outcomes` says of its keys, and counts them."""

    unreachable = frozenset()

    def __init__(self, node_id, outcomes):
        self.node_id = self.replica = node_id
        self.outcomes = outcomes
        self.requests = []

    async def request(self, build):
        request = build(1)
        self.requests.append(request)
        if isinstance(self.outcomes, Exception):
            raise self.outcomes
        if isinstance(request, ReadRequest):
            return ValueReply(1, self.outcomes.get(request.key, ""), b"1")
        keys = request.keys if isinstance(request, ReadManyRequest) else [item.key for item in request.items]
        return ManyReply(1, [self._result(place, key) for place, key in enumerate(keys)][: self.outcomes.get("served")])

    def _result(self, place, key):
        outcome = self.outcomes.get(key, "" if key.startswith("missing") else "pn_counter")
        return outcome if isinstance(outcome, FailureReply) else ValueReply(place, outcome, b"1")

    def asked(self):
        return [[item.key for item in request.items] for request in self.requests]


def route(**outcomes):
    channels = {name: FakeChannel(name, outcomes.get(name, {})) for name in NAMES if outcomes.get(name) != "cut"}

    class Cluster:
        placement = follow_members(dict.fromkeys(NAMES, ""), 2)

        def members(self):
            return []

    class Directory:
        def __init__(self):
            self.channels = channels

        def peers(self):
            return []

    return Router(Directory(), Cluster()), channels


def first_owners(count_each=2):
    """Return keys by first owner."""
    placement = follow_members(dict.fromkeys(NAMES, ""), 2)
    keys = {name: [] for name in NAMES}
    for number in range(100):
        keys[placement.owners(slot_of(f"k{number}"))[0]].append(f"k{number}")
    return {name: some[:count_each] for name, some in keys.items()}, placement


async def test_the_router_sends_each_owner_its_part_and_keeps_the_order():
    router, channels = route()
    keys, _ = first_owners()
    mixed = [keys[name][place] for place in (0, 1) for name in NAMES]
    outcomes = await router.write_many([count(key) for key in mixed])
    assert [name for _ in (0, 1) for name in NAMES] == [node_id for node_id, _ in outcomes]
    assert {name: [keys[name]] for name in NAMES} == {name: channel.asked() for name, channel in channels.items()}


async def test_only_what_was_surely_not_applied_goes_to_the_next_owner():
    keys, placement = first_owners(3)
    ok, refused, busy = keys["a"]
    failures = {refused: FailureReply(0, "type_conflict", "", ""), busy: FailureReply(0, "overloaded", "", "")}
    router, channels = route(a=failures)
    outcomes = await router.write_many([count(key) for key in (ok, refused, busy)])
    second = placement.owners(slot_of(busy))[1]
    assert ["a", "type_conflict", second] == [getattr(each, "code", None) or each[0] for each in outcomes]
    assert [[busy]] == channels[second].asked()
    router, channels = route(a=OutcomeUnknownError("a"))
    outcomes = await router.write_many([count(ok)])
    assert (["outcome_unknown"], []) == (
        [each.code for each in outcomes],
        channels["b"].asked() + channels["c"].asked(),
    )
    router, channels = route(a=UnreachableError("a"))
    [(node_id, _)] = await router.write_many([count(ok)])
    assert node_id == placement.owners(slot_of(ok))[1]


async def test_a_pinned_batch_stays_on_its_node():
    router, channels = route(b=ServiceError("storage_full", "", ""), c="cut")
    keys, _ = first_owners()
    assert ["storage_full"] == [each.code for each in await router.write_many([count(keys["a"][0])], "b")]
    assert ["node_unreachable"] == [each.code for each in await router.write_many([count(keys["a"][0])], "c")]
    assert [] == channels["a"].requests
    assert [] == await router.write_many([])


async def test_reads_that_the_first_owner_does_not_answer_are_looked_for():
    keys, placement = first_owners(3)
    found, unserved, lost = keys["a"]
    router, _ = route(a={"served": 1, unserved: "pn_counter"})
    outcomes = await router.read_many([found, unserved])
    assert [("a", b"1"), ("a", b"1")] == [(node_id, reply.value) for node_id, reply in outcomes]
    second = placement.owners(slot_of(lost))[1]
    router, _ = route(a=OutcomeUnknownError("a"), **{second: {lost: "pn_counter"}})
    [(node_id, _)] = await router.read_many([lost])
    assert node_id == second
    router, _ = route()
    [(_, reply)] = await router.read_many(["missing"])
    assert reply.type_name == ""


async def test_names_of_a_batch_come_again_with_the_batch_and_tell_others_apart():
    router, channels = route(b="cut", c="cut")
    batch = [count("k"), count("k"), count("l")]
    for items in (batch, batch, [*batch[:2], count("l", b"{}")]):
        await router.write_many(items, "a", idempotency_key="x")
    await router.write_many(batch, "a", idempotency_key="y")
    first, again, other, another_key = ([item.token for item in each.items] for each in channels["a"].requests)
    assert first == again
    # Of the first two, which are of one key, each has its own.
    assert (True, 1) == (first[0].name != first[1].name, len({token.fingerprint for token in first}))
    assert [token.name for token in first] == [token.name for token in other]
    assert first[0].fingerprint != other[0].fingerprint
    assert {token.name for token in first}.isdisjoint(token.name for token in another_key)
