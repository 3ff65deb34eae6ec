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
from crdt_service.net.channel import Channel
from crdt_service.net.handshake import BACKEND, NODE, Identity, dial
from crdt_service.net.server import Server
from crdt_service.wire.frame import encode_frame, read_frame
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
    encode_message,
)

SECRET = b"s" * 32
LISTENER = Identity(NODE, "node-0", "node-0~1")
DIALLER = Identity(BACKEND, "backend", "")


async def answer(other, request):
    if request.key == "refuse":
        raise ServiceError("refused", "no", "ask for something else")
    if request.key == "never":
        await asyncio.Event().wait()
    return ValueReply(request.id, other.role, request.key.encode())


@contextlib.asynccontextmanager
async def serving():
    server = Server(LISTENER, SECRET, answer)
    port = await server.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def connected(port, secret=SECRET):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        channel = Channel(reader, writer, await dial(reader, writer, secret, DIALLER))
        running = asyncio.create_task(channel.run())
        yield channel
        running.cancel()
    finally:
        writer.close()


async def test_pipelined_requests_get_their_own_replies():
    async with serving() as port, connected(port) as channel:
        keys = [f"k{number}" for number in range(200)]
        replies = await asyncio.gather(*(channel.request(partial(ReadRequest, key=key)) for key in keys))
        assert [reply.value.decode() for reply in replies] == keys
        assert replies[0].type_name == BACKEND


async def test_a_refusal_is_the_error_that_the_node_raised():
    async with serving() as port, connected(port) as channel:
        with pytest.raises(ServiceError) as refused:
            await channel.request(partial(ReadRequest, key="refuse"))
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


async def test_a_wrong_secret_is_refused_by_the_dialler():
    async with serving() as port:
        with pytest.raises(AuthenticationError):
            async with connected(port, b"x" * 32):
                pass


async def test_a_dialler_without_a_valid_proof_is_refused_by_the_listener():
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(encode_frame(encode_message(Hello(PROTOCOL, NODE, "node-9", "node-9~1", bytes(32)))))
        assert isinstance(decode_handshake(await read_frame(reader)), Challenge)
        writer.write(encode_frame(encode_message(Proof(bytes(32)))))
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
