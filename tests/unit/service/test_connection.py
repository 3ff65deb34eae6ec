"""Handshake, channel and server over real sockets in one process."""

import asyncio
import contextlib
import os
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.kernel.error import (
    AuthenticationError,
    MalformedError,
    OutcomeUnknownError,
    ServiceError,
    UnreachableError,
)
from crdt_service.net.cluster import ClusterIdentity
from crdt_service.net.dial import open_channel
from crdt_service.net.handshake import BACKEND, NODE, Identity
from crdt_service.net.server import Server
from crdt_service.wire.frame import encode_frame
from crdt_service.wire.message import (
    PROTOCOL,
    Challenge,
    Hello,
    Proof,
    ReadRequest,
    ValueReply,
    decode_handshake,
    decode_reply,
    decode_request,
    encode_handshake,
    encode_message,
)

SECRET = b"s" * 32
CLUSTER = ClusterIdentity.fixed("test", SECRET)
LISTENER = Identity(NODE, "node-0", "node-0~1")
DIALLER = Identity(BACKEND, "backend", "")


def answer(other, request):
    if request.key == "refuse":
        raise ServiceError("refused", "no", "ask for something else")
    reply = ValueReply(request.id, other.role, request.key.encode())
    return reply if request.key.startswith("now") else answer_later(request, reply)


async def answer_later(request, reply):
    await asyncio.sleep(0)
    if request.key == "refuse later":
        raise ServiceError("refused", "no", "ask for something else")
    if request.key == "never":
        await asyncio.Event().wait()
    return reply


@contextlib.asynccontextmanager
async def serving():
    server = Server(LISTENER, CLUSTER, answer)
    port = await server.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def connected(port, cluster=CLUSTER):
    _, channel = await open_channel("127.0.0.1", port, cluster, DIALLER)
    try:
        yield channel
    finally:
        channel.close()


async def read_frame(reader):
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))


async def test_pipelined_requests_get_their_own_replies():
    async with serving() as port, connected(port) as channel:
        keys = [f"{('now', 'later')[number % 2]} {number}" for number in range(200)]
        replies = await asyncio.gather(*(channel.request(partial(ReadRequest, key=key)) for key in keys))
        assert [reply.value.decode() for reply in replies] == keys
        assert replies[0].type_name == BACKEND


@pytest.mark.parametrize("key", ["refuse", "refuse later"])
async def test_a_refusal_is_the_error_that_the_node_raised(key):
    async with serving() as port, connected(port) as channel:
        with pytest.raises(ServiceError) as refused:
            await channel.request(partial(ReadRequest, key=key))
        assert (refused.value.code, refused.value.remedy) == ("refused", "ask for something else")


async def test_a_lost_connection_leaves_the_outcome_unknown_and_then_is_unreachable():
    async with serving() as port, connected(port) as channel:
        request = asyncio.create_task(channel.request(partial(ReadRequest, key="never")))
        await channel.request(partial(ReadRequest, key="k"))
        channel.close()
        with pytest.raises(OutcomeUnknownError):
            await request
        with pytest.raises(UnreachableError):
            await channel.request(partial(ReadRequest, key="k"))


async def test_large_replies_come_whole():
    async with serving() as port, connected(port) as channel:
        keys = [f"now {number} {'x' * 2_000_000}" for number in range(4)]
        replies = await asyncio.gather(*(channel.request(partial(ReadRequest, key=key)) for key in keys))
        assert keys == [reply.value.decode() for reply in replies]


async def test_who_does_not_read_replies_is_asked_no_more():
    asked = []

    def reply(_, request):
        asked.append(request.id)
        return ValueReply(request.id, "t", bytes(1 << 20))

    server = Server(LISTENER, CLUSTER, reply)
    port = await server.start("127.0.0.1", 0)
    _, channel = await open_channel("127.0.0.1", port, CLUSTER, DIALLER)
    requests = [asyncio.create_task(channel.request(partial(ReadRequest, key="k"))) for _ in range(200)]
    channel._wire.pause_reading()
    count = -1
    while count != len(asked) or not asked:  # Until it has stood still for a while.
        count = len(asked)
        await asyncio.sleep(0.2)
    assert count < 50
    channel._wire.resume_reading()
    assert 200 == len(await asyncio.gather(*requests))
    channel.close()
    await server.close()


async def test_closing_answers_what_was_asked():
    started, gate = asyncio.Event(), asyncio.Event()

    async def reply(request):
        started.set()
        await gate.wait()
        return ValueReply(request.id, "t", b"v")

    server = Server(LISTENER, CLUSTER, lambda _, request: reply(request))
    port = await server.start("127.0.0.1", 0)
    _, channel = await open_channel("127.0.0.1", port, CLUSTER, DIALLER)
    request = asyncio.create_task(channel.request(partial(ReadRequest, key="k")))
    await started.wait()
    closing = asyncio.create_task(server.close())
    await asyncio.sleep(0)
    gate.set()
    assert b"v" == (await request).value
    await closing
    await channel.closed.wait()
    with pytest.raises(OSError):
        await open_channel("127.0.0.1", port, CLUSTER, DIALLER)


async def test_a_stranger_may_send_no_more_than_a_handshake_needs():
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((1025).to_bytes(4, "big"))
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


async def test_a_wrong_secret_is_refused_by_the_dialler():
    async with serving() as port:
        with pytest.raises(AuthenticationError):
            async with connected(port, ClusterIdentity.fixed("test", b"x" * 32)):
                pass


async def test_a_dialler_without_a_valid_proof_is_refused_by_the_listener():
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(encode_frame(encode_handshake(Hello(PROTOCOL, NODE, "node-9", "node-9~1", bytes(32), "test"))))
        assert isinstance(decode_handshake(await read_frame(reader)), Challenge)
        writer.write(encode_frame(encode_handshake(Proof(bytes(32)))))
        writer.write(encode_frame(encode_message(ReadRequest(1, "k"))))
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


async def test_garbage_is_cut_off_and_others_are_served():
    async with serving() as port, connected(port) as channel:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(100), b"\x00\x00\x00\x04\xc1\xc1\xc1\xc1", b"\xff" * 8):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(garbage)
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        assert (await channel.request(partial(ReadRequest, key="k"))).value == b"k"


@given(st.binary(max_size=80))
def test_hostile_messages_are_refused(data):
    for decode in (decode_request, decode_reply, decode_handshake):
        with contextlib.suppress(MalformedError):
            decode(data)
