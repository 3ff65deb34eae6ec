"""A write goes to another node only if the one before surely did not apply it."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from crdt_service.api import router as router_module
from crdt_service.api.proximity import Proximity
from crdt_service.api.router import Router
from crdt_service.kernel.error import OutcomeUnknownError, ServiceError, UnreachableError
from crdt_service.kernel.slot import slot_of
from crdt_service.membership.link import Links
from crdt_service.membership.placement import Placement
from crdt_service.wire.message import (
    Concern,
    ManyReply,
    ReadManyRequest,
    ReceiptRequest,
    ValueReply,
    WriteItem,
    WriteManyRequest,
    WriteRequest,
)

KEY = "k"
MEMBERS = {f"node-{number}": "" for number in range(3)}
FIRST, SECOND = Placement(MEMBERS, 2).owners(slot_of(KEY))
[OTHER] = set(MEMBERS) - {FIRST, SECOND}
MISSING = ValueReply(1, "", b"")


class FakeChannel:
    protocol = 4
    unreachable = frozenset()

    def __init__(self, node_id, outcome):
        self.node_id = node_id
        self.outcome = outcome
        self.requests = []

    async def request(self, build):
        self.requests.append(build(1))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if isinstance(self.requests[-1], WriteManyRequest):
            return ManyReply(1, [ValueReply(0, "g_set", b"")])
        return self.outcome or ValueReply(1, "pn_counter", b"1")


def route(first, second=None, *, members=MEMBERS, proximity=None, **others):
    outcomes = {FIRST: first, SECOND: second, **others}
    channels = {name: FakeChannel(name, outcome) for name, outcome in outcomes.items()}
    cluster = SimpleNamespace(placement=Placement(members, 2), members=list)
    return Router(SimpleNamespace(channels=channels, peers=list), cluster, proximity), channels


async def write(router, node=None):
    return (await router.write(KEY, "pn_counter", b'{"increment":1}', node))[0]


async def test_a_write_whose_outcome_is_unknown_is_never_sent_again():
    router, channels = route(OutcomeUnknownError(FIRST))
    with pytest.raises(OutcomeUnknownError):
        await write(router)
    assert channels[SECOND].requests == []


@pytest.mark.parametrize("code", ["storage_full", "overloaded", "stopping"])
async def test_a_write_that_a_node_surely_did_not_apply_goes_to_the_next(code):
    router, _ = route(ServiceError(code, "", ""))
    assert await write(router) == SECOND
    router, _ = route(UnreachableError(FIRST))
    assert await write(router) == SECOND


async def test_a_refusal_of_the_write_itself_is_final():
    router, channels = route(ServiceError("type_conflict", "", ""))
    with pytest.raises(ServiceError) as refused:
        await write(router)
    assert (refused.value.code, channels[SECOND].requests) == ("type_conflict", [])


async def test_a_pinned_write_stays_on_its_node():
    router, channels = route(None, ServiceError("storage_full", "", ""))
    with pytest.raises(ServiceError) as refused:
        await write(router, SECOND)
    assert (refused.value.code, channels[FIRST].requests) == ("storage_full", [])


async def test_a_read_is_tried_everywhere():
    router, _ = route(OutcomeUnknownError(FIRST))
    assert (await router.read(KEY, None))[0] == SECOND
    router, _ = route(OutcomeUnknownError(FIRST), OutcomeUnknownError(SECOND))
    with pytest.raises(UnreachableError):
        await router.read(KEY, None)


async def test_a_node_that_answers_nothing_is_soon_asked_no_more():
    proximity = Proximity("")
    for _ in range(100):
        proximity.observe("read", FIRST, 0.001, time.monotonic())
        proximity.observe("read", SECOND, 0.001, time.monotonic())
    router, channels = route(None, proximity=proximity)
    asked = []

    async def hang(build):
        asked.append(build(1))
        await asyncio.Event().wait()

    channels[FIRST].request = hang
    answers = [(await router.read(KEY, None))[0] for _ in range(8)]
    assert [SECOND] * 8 == answers
    assert 1 <= len(asked) <= 4


async def test_what_one_owner_lacks_is_asked_of_the_others_and_of_nobody_else():
    router, channels = route(MISSING, None, **{OTHER: None})
    assert (await router.read(KEY, None))[0] == SECOND
    router, channels = route(MISSING, MISSING, **{OTHER: None})
    assert (FIRST, MISSING) == await router.read(KEY, None)
    assert [1, 1, 0] == [len(channels[name].requests) for name in (FIRST, SECOND, OTHER)]
    assert (SECOND, MISSING) == await route(MISSING, MISSING)[0].read(KEY, SECOND)


async def test_what_only_others_lack_is_not_missing():
    lost = UnreachableError("")
    with pytest.raises(UnreachableError):
        await route(lost, lost, **{OTHER: MISSING})[0].read(KEY, None)
    assert OTHER == (await route(lost, lost, **{OTHER: None})[0].read(KEY, None))[0]
    assert (FIRST, MISSING) == await route(MISSING, lost, **{OTHER: None})[0].read(KEY, None)


async def test_owners_come_first_then_every_other_node():
    lost = UnreachableError("")
    router, channels = route(lost, lost, **{OTHER: lost})
    with pytest.raises(UnreachableError):
        await router.write(KEY, "pn_counter", b"", None)
    assert [1, 1, 1] == [len(channel.requests) for channel in channels.values()]
    assert OTHER == await write(route(lost, lost, **{OTHER: None})[0])


async def test_before_the_members_are_known_any_node_will_do():
    router, _ = route(None, members={})
    assert await write(router) in (FIRST, SECOND)
    router, _ = route(MISSING, MISSING, members={})
    assert MISSING == (await router.read(KEY, None))[1]


async def test_without_nodes_the_error_says_so():
    router, channels = route(None)
    channels.clear()
    with pytest.raises(ServiceError) as refused:
        await write(router)
    assert refused.value.code == "no_node"


def test_links_follow_discovery_and_hide_this_process():
    links = Links()
    a, b = ("10.0.0.1", 8001), ("10.0.0.2", 8001)
    assert links.plan({a, b}) == ({a, b}, set())
    assert links.update(a, "self", "node-0")
    assert links.update(b, "reachable", "node-1")
    assert not links.update(b, "reachable", "node-1")
    assert [(link.id, link.state) for link in links.peers()] == [("node-1", "reachable")]
    assert links.plan({a}) == (set(), {b})
    assert not links.update(b, "reachable")
    assert links.peers() == []


def test_an_address_that_gossip_tells_is_dialled_unless_another_leads_to_its_node():
    links = Links()
    a, b, c = ("10.0.0.1", 8001), ("10.0.0.2", 8001), ("node-1.local", 8001)
    assert links.plan({a}, {"node-1": b}) == ({a, b}, set())
    links.update(b, "reachable", "node-1")
    assert links.plan({a}, {"node-1": b}) == (set(), set())
    assert links.plan({a, c}, {"node-1": b}) == ({c}, set())
    links.update(c, "reachable", "node-1")
    assert links.plan({a, c}, {"node-1": b}) == (set(), {b})
    links.update(c, "unreachable")
    assert links.plan({a, c}, {"node-1": b}) == ({b}, set())


async def test_a_named_write_that_is_sent_again_and_not_looked_at_stays_unknown():
    router, channels = route(OutcomeUnknownError(FIRST))
    back = FakeChannel(FIRST, ServiceError("syncing", "", ""))

    async def fail_and_come_back(build):
        channels[FIRST] = back
        raise OutcomeUnknownError(FIRST)

    channels[FIRST].request = fail_and_come_back
    with pytest.raises(OutcomeUnknownError):
        await router.write(KEY, "pn_counter", b'{"increment":1}', None, idempotency_key="x")
    assert [1, 0] == [len(back.requests), len(channels[SECOND].requests)]


@pytest.mark.parametrize("second", [MISSING, UnreachableError(SECOND), ServiceError("syncing", "", "")])
async def test_a_deletion_whose_answer_is_lost_is_not_called_undone(second):
    router, _ = route(OutcomeUnknownError(FIRST), second)
    with pytest.raises(OutcomeUnknownError):
        await router.delete(KEY, None)
    with pytest.raises(OutcomeUnknownError):
        await router.delete(KEY, FIRST)
    assert SECOND == (await route(OutcomeUnknownError(FIRST))[0].delete(KEY, None))[0]


async def test_a_deletion_that_too_few_owners_confirmed_says_so():
    router, channels = route(ServiceError("concern_not_met", "", ""), MISSING)
    with pytest.raises(ServiceError) as refused:
        await router.delete(KEY, None, Concern.ALL)
    assert ("concern_not_met", []) == (refused.value.code, channels[SECOND].requests)


@pytest.mark.parametrize("concern", [Concern.ONE, Concern.ALL])
@pytest.mark.parametrize("is_one_key", [False, True])
async def test_large_values_fill_an_answer_and_no_more(concern, is_one_key):
    """Neither does it fetch many more than it shows."""
    value = b"x" * (4 << 20)
    unread = ManyReply(1, [ValueReply(1, "lww_register", value)])
    router, channels = route(ValueReply(1, "lww_register", value))
    one = channels[FIRST].request

    async def answer(build):
        return unread if isinstance(build(1), ReadManyRequest) else await one(build)

    channels[FIRST].request = answer
    held = []
    keys = [KEY] * 256 if is_one_key else [f"{KEY}{number}" for number in range(256)]
    outcomes = await router.read_many(keys, FIRST, concern, hold=held.append)
    refused = {outcome.code for outcome in outcomes if isinstance(outcome, ServiceError)}
    shown = sum(isinstance(outcome, tuple) for outcome in outcomes)
    assert ({"value_too_large"}, 4, [4 << 20] * 4) == (refused, shown, held)
    assert len(channels[FIRST].requests) <= 16


@pytest.mark.parametrize("concern", [Concern.ONE, Concern.ALL])
async def test_values_that_the_caller_may_not_hold_are_refused_one_by_one(concern):
    def hold(size_bytes):
        nonlocal left
        if size_bytes > left:
            raise ServiceError("overloaded", "", "")
        left -= size_bytes

    left = 2
    reply = ValueReply(1, "lww_register", b"1")
    router, channels = route(reply)
    one = channels[FIRST].request

    async def answer(build):
        request = build(1)
        many = isinstance(request, ReadManyRequest)
        return ManyReply(1, [reply] * len(request.keys)) if many else await one(build)

    channels[FIRST].request = answer
    outcomes = await router.read_many([f"{KEY}{number}" for number in range(4)], FIRST, concern, hold=hold)
    assert [1, 1, "overloaded", "overloaded"] == [getattr(each, "code", 1) for each in outcomes]


@pytest.mark.parametrize("room", [0, 1])
async def test_a_write_that_is_done_is_told_without_a_value_for_which_there_is_no_room(room):
    def hold(size_bytes):
        if size_bytes > room:
            raise ServiceError("overloaded", "", "")

    router, channels = route(MISSING)

    async def answer(build):
        return ManyReply(1, [ValueReply(0, "lww_register", b"1")])

    channels[FIRST].request = answer
    [(_, reply)] = await router.write_many([WriteItem(KEY, *ADD)], FIRST, is_read=True, hold=hold)
    assert ("lww_register", b"1" * room) == (reply.type_name, reply.value)


ADD = ("g_set", b'{"add":"x"}')


async def test_what_may_be_applied_twice_goes_to_the_next_if_its_answer_is_lost():
    lost = OutcomeUnknownError(FIRST)
    router, _ = route(lost)
    assert SECOND == (await router.write(KEY, *ADD, None))[0]
    assert [SECOND] == [answer[0] for answer in await router.write_many([WriteItem(KEY, *ADD)])]


@pytest.mark.parametrize("second", [UnreachableError(SECOND), ServiceError("limit_exceeded", "", "")])
async def test_it_stays_unknown_if_no_other_takes_it(second):
    router, _ = route(OutcomeUnknownError(FIRST), second, **{OTHER: UnreachableError(OTHER)})
    with pytest.raises(OutcomeUnknownError):
        await router.write(KEY, *ADD, None)
    [outcome] = await router.write_many([WriteItem(KEY, *ADD)])
    assert "outcome_unknown" == outcome.code


async def test_it_goes_nowhere_else_if_it_is_conditional_or_pinned():
    router, channels = route(OutcomeUnknownError(FIRST))
    with pytest.raises(OutcomeUnknownError):
        await router.write(KEY, *ADD, None, if_match=b"")
    with pytest.raises(OutcomeUnknownError):
        await router.write(KEY, *ADD, FIRST)
    [outcome] = await router.write_many([WriteItem(KEY, *ADD, b"")])
    assert ("outcome_unknown", []) == (outcome.code, channels[SECOND].requests)


class Owner(FakeChannel):
    """Tells of a receipt, and answers the write that it is of."""

    def __init__(self, node_id, has_receipt):
        super().__init__(node_id, None)
        self.has_receipt = has_receipt

    async def request(self, build):
        request = build(1)
        self.requests.append(type(request))
        if isinstance(request, ReceiptRequest):
            return ValueReply(1, "pn_counter" if self.has_receipt else "", b"")
        assert self.has_receipt
        return ValueReply(1, "pn_counter", b"1", is_replay=True)


async def write_named(router):
    return await router.write(KEY, "pn_counter", b'{"increment":1}', None, idempotency_key="x")


async def test_a_named_write_whose_answer_is_lost_is_answered_by_who_has_its_receipt():
    router, channels = route(OutcomeUnknownError(FIRST))
    channels[SECOND] = Owner(SECOND, has_receipt=True)
    assert (SECOND, ValueReply(1, "pn_counter", b"1", is_replay=True)) == await write_named(router)
    assert [ReceiptRequest, WriteRequest] == channels[SECOND].requests


@pytest.mark.parametrize(("has_receipt", "protocol"), [(False, 4), (True, 3)])
async def test_a_named_write_is_never_applied_by_another_that_may_lack_it(monkeypatch, has_receipt, protocol):
    monkeypatch.setattr(router_module, "TRY_SECONDS_MAX", 0.3)
    router, channels = route(OutcomeUnknownError(FIRST))
    channels[SECOND] = Owner(SECOND, has_receipt=has_receipt)
    channels[SECOND].protocol = protocol

    async def fail_and_be_gone(build):
        del channels[FIRST]
        raise OutcomeUnknownError(FIRST)

    channels[FIRST].request = fail_and_be_gone
    with pytest.raises(OutcomeUnknownError):
        await write_named(router)
    assert set(channels[SECOND].requests) <= {ReceiptRequest}
    assert bool(channels[SECOND].requests) == (protocol == 4)


async def test_a_named_write_is_sent_to_its_node_again_over_a_channel_that_was_silent():
    router, channels = route(None)
    outcomes = iter([OutcomeUnknownError(FIRST), UnreachableError(FIRST), ValueReply(1, "pn_counter", b"1")])

    async def answer(build):
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    channels[FIRST].request = answer
    del channels[SECOND]
    assert FIRST == (await write_named(router))[0]


async def test_a_read_of_a_quorum_is_asked_of_another_owner_if_the_first_is_late():
    proximity = Proximity("")
    for _ in range(100):
        proximity.observe("quorum", FIRST, 0.001, time.monotonic())
    router, channels = route(None, proximity=proximity)

    async def hang(build):
        await asyncio.Event().wait()

    channels[FIRST].request = hang
    assert SECOND == (await router.read(KEY, None, Concern.MAJORITY))[0]


async def test_no_further_node_is_tried_after_some_time(monkeypatch):
    monkeypatch.setattr(router_module, "TRY_SECONDS_MAX", 0.0)
    router, channels = route(UnreachableError(FIRST))
    for call in (write(router), router.read(KEY, None), router.explain(KEY, None)):
        with pytest.raises(UnreachableError):
            await call
    [outcome] = await router.write_many([WriteItem(KEY, *ADD)])
    assert ("node_unreachable", []) == (outcome.code, channels[SECOND].requests)


async def test_an_owner_that_others_cannot_reach_is_asked_last():
    members = {f"node-{number}": "" for number in range(3)}
    first, *others = Placement(members, 3).owners(slot_of(KEY))
    channels = {name: FakeChannel(name, None) for name in members}
    cluster = SimpleNamespace(placement=Placement(members, 3), members=list)
    assert first == await write(Router(SimpleNamespace(channels=channels, peers=list), cluster))
    channels[first].unreachable = frozenset(others[:1])  # It has a majority with the other one.
    assert first == await write(Router(SimpleNamespace(channels=channels, peers=list), cluster))
    channels[first].unreachable = frozenset(others)
    assert others[0] == await write(Router(SimpleNamespace(channels=channels, peers=list), cluster))


async def test_what_the_release_before_calls_a_read_without_a_quorum_is_called_as_now():
    failure = ServiceError("concern_not_met", "", "")
    router, _ = route(failure, failure, **{OTHER: failure})
    with pytest.raises(ServiceError) as refused:
        await router.read(KEY, None, Concern.ALL)
    assert "too_few_owners" == refused.value.code
