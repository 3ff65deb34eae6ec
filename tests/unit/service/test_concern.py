"""Three owners of every key, some of which hold requests back: what a quorum waits for, and what is said without."""

import asyncio

import pytest

from crdt_service.kernel.error import ServiceError
from crdt_service.loops import answer, exchange
from crdt_service.wire.message import (
    Concern,
    PushRequest,
    ReadRequest,
    ReceiptRequest,
    RootRequest,
    StateRequest,
    Token,
    WriteRequest,
    decode_request,
    encode_message,
)
from tests.unit.service.test_handoff import ChannelTo, Node, until

TOKEN = Token(bytes(16), bytes(8))
INCREMENT = {"key": "k", "type_name": "pn_counter", "op": b'{"increment": 1}'}


class Owner(Node):
    """Holds requests of some kinds back for so many seconds."""

    def __init__(self, node_id):
        super().__init__(node_id)
        self.held = {}

    async def request_placed(self, epoch, build):
        await asyncio.sleep(self.held.get(type(decode_request(encode_message(build(1)))), 0))
        return await super().request_placed(epoch, build)


@pytest.fixture
async def owners():
    nodes = [Owner(name) for name in "abc"]
    tasks = [asyncio.create_task(node.committer.run()) for node in nodes]
    for node in nodes:
        await node.seat("abc", 3)
        tasks += [
            asyncio.create_task(node.exchange.run(ChannelTo(other, node))) for other in nodes if other is not node
        ]
    await until(lambda: all(len(node.exchange.channels) == 2 for node in nodes))
    for node in nodes:
        node.held[RootRequest] = 3600  # Nothing is repaired any more.
    yield nodes
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def hasty(monkeypatch):
    for module in (answer, exchange):
        monkeypatch.setattr(module, "CONCERN_SECONDS_MAX", 0.2)


async def ask(node, kind, **fields):
    return await node.request(lambda number: kind(number, **fields))


async def refusal(node, kind, **fields):
    with pytest.raises(ServiceError) as refused:
        await ask(node, kind, **fields)
    return refused.value.code


def read(node):
    reading = node.store.read("k")
    return reading and reading.value


async def test_an_owner_that_is_slow_to_take_what_it_lacks_is_not_waited_for(owners):
    a, b, c = owners
    c.held[PushRequest] = 3600
    await ask(a, WriteRequest, **INCREMENT)
    await until(lambda: read(b) == b"1")
    b.held[StateRequest] = 0.1  # The first to answer is the one that is slow then.
    reply = await ask(a, ReadRequest, key="k", concern=Concern.MAJORITY)
    assert (b"1", None) == (reply.value, read(c))


async def test_an_owner_that_lacks_something_is_waited_for_if_no_other_will_do(owners, hasty):
    a, b, c = owners
    b.held[PushRequest] = c.held[PushRequest] = 3600
    await ask(a, WriteRequest, **INCREMENT)
    assert "too_few_owners" == await refusal(a, ReadRequest, key="k", concern=Concern.MAJORITY)
    del c.held[PushRequest]
    assert b"1" == (await ask(a, ReadRequest, key="k", concern=Concern.MAJORITY)).value
    assert (None, b"1") == (read(b), read(c))


async def test_a_read_that_too_few_owners_answer_says_so(owners, hasty):
    a, b, c = owners
    b.held[StateRequest] = c.held[StateRequest] = 3600
    assert "too_few_owners" == await refusal(a, ReadRequest, key="k", concern=Concern.MAJORITY)


async def test_a_named_write_that_cannot_be_looked_for_is_not_done(owners, hasty):
    a, b, c = owners
    b.held[StateRequest] = c.held[StateRequest] = 3600
    code = await refusal(a, WriteRequest, **INCREMENT, concern=Concern.MAJORITY, token=TOKEN)
    assert ("too_few_owners", None) == (code, read(a))


@pytest.mark.parametrize(("token", "code"), [(TOKEN, "outcome_unknown"), (None, "concern_not_met")])
async def test_a_write_that_too_few_owners_confirm_promises_what_it_can(owners, hasty, token, code):
    a, b, c = owners
    b.held[PushRequest] = c.held[PushRequest] = 3600
    assert code == await refusal(a, WriteRequest, **INCREMENT, concern=Concern.MAJORITY, token=token)
    assert b"1" == read(a)


async def test_owners_tell_of_a_named_write_that_they_have(owners):
    a, b, c = owners
    await ask(a, WriteRequest, **INCREMENT, concern=Concern.MAJORITY, token=TOKEN)
    for node in (b, c):
        for concern in (Concern.MAJORITY, Concern.ALL, Concern.ONE):
            reply = await ask(node, ReceiptRequest, key="k", concern=concern, token=TOKEN)
            assert ("pn_counter", True) == (reply.type_name, reply.is_replay)
    other = Token(b"x" * 16, bytes(8))
    assert not (await ask(b, ReceiptRequest, key="k", concern=Concern.MAJORITY, token=other)).type_name
    another = Token(bytes(16), b"x" * 8)
    assert "idempotency_mismatch" == await refusal(b, ReceiptRequest, key="k", concern=Concern.ONE, token=another)


async def test_what_one_owner_alone_has_is_found_by_who_asks_a_quorum_and_is_on_it_then(owners):
    a, b, c = owners
    b.held[PushRequest] = c.held[PushRequest] = 3600
    await ask(a, WriteRequest, **INCREMENT, token=TOKEN)
    assert not (await ask(b, ReceiptRequest, key="k", concern=Concern.ONE, token=TOKEN)).type_name
    del b.held[PushRequest], c.held[PushRequest]
    reply = await ask(b, ReceiptRequest, key="k", concern=Concern.ALL, token=TOKEN)
    assert ("pn_counter", b"1", b"1") == (reply.type_name, read(b), read(c))
