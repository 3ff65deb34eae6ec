"""Requests and replies over a wire that the test holds, in virtual time."""

import asyncio
import contextlib
from functools import partial

import pytest

from crdt_service.kernel.error import MalformedError, OutcomeUnknownError, UnreachableError
from crdt_service.net.channel import IN_FLIGHT_MAX, REQUEST_SECONDS_MAX, Channel
from crdt_service.net.handshake import BACKEND, Identity
from crdt_service.net.session import IN_FLIGHT_MAX as ANSWERS_MAX
from crdt_service.net.session import Session
from crdt_service.wire.frame import FRAME_BYTES_MAX, encode_frame
from crdt_service.wire.message import (
    PROTOCOL_BEFORE,
    PulseReply,
    PulseRequest,
    ReadRequest,
    ValueReply,
    WriteRequest,
    decode_received,
    decode_reply,
    decode_request,
    encode_message,
)
from tests.sim.loop import VirtualLoop

READ = partial(ReadRequest, key="k")


class FakeWire:
    def __init__(self):
        self.sent = []
        self.is_closed = False
        self.is_reading = True

    def send(self, body):
        encode_frame(body)  # Refuses what a connection would.
        self.sent.append(body)

    def close(self):
        self.is_closed = True

    def pause_reading(self):
        self.is_reading = False

    def resume_reading(self):
        self.is_reading = True


class LivingWire(FakeWire):
    """The other end answers pulses, and nothing else by itself."""

    channel = None

    def send(self, body):
        if isinstance(request := decode_received(body), PulseRequest):
            asyncio.get_running_loop().call_later(0.01, self.answer, encode_message(PulseReply(request.id, 0, [])))
        else:
            super().send(body)

    def answer(self, body):
        self.channel.hear()
        self.channel.receive(body)


def living():
    wire = LivingWire()
    wire.channel = Channel("node-0", wire)
    return wire, wire.channel


def run(coroutine):
    with contextlib.closing(VirtualLoop(None)) as loop:
        return loop.run_until_complete(coroutine)


async def ask(channel, count=1):
    tasks = [asyncio.create_task(channel.request(READ)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


def reply_to(channel, body):
    channel.receive(encode_message(ValueReply(decode_request(body).id, "t", b"v")))


@pytest.mark.parametrize("has_pulse", [True, False])
def test_a_request_without_a_reply_ends_the_connection_when_it_is_due(has_pulse):
    async def act():
        wire, channel = living()
        if not has_pulse:
            channel = Channel("node-0", wire, protocol=PROTOCOL_BEFORE)
        started = asyncio.get_running_loop().time()
        (first,) = await ask(channel)
        await asyncio.sleep(REQUEST_SECONDS_MAX / 2)
        reply_to(channel, wire.sent[0])
        (second,) = await ask(channel)
        with pytest.raises(OutcomeUnknownError):
            await second
        assert "t" == (await first).type_name
        assert wire.is_closed
        return asyncio.get_running_loop().time() - started

    assert pytest.approx(1.5 * REQUEST_SECONDS_MAX, abs=0.1) == run(act())


def test_an_idle_channel_stays_open():
    async def act():
        wire, channel = living()
        (task,) = await ask(channel)
        reply_to(channel, wire.sent[0])
        await task
        await asyncio.sleep(10 * REQUEST_SECONDS_MAX)
        return wire.is_closed

    assert not run(act())


def test_requests_wait_unsent_while_the_other_end_does_not_read():
    async def act():
        wire = FakeWire()
        channel = Channel("node-0", wire)
        channel.set_writable(is_writable=False)
        tasks = await ask(channel, 3)
        assert [] == wire.sent
        channel.set_writable(is_writable=True)
        await asyncio.sleep(0)
        for body in tuple(wire.sent):
            reply_to(channel, body)
        assert 3 == len(await asyncio.gather(*tasks))

    run(act())


def test_requests_that_wait_unsent_are_unreachable_when_the_connection_ends():
    async def act():
        wire = FakeWire()
        channel = Channel("node-0", wire)
        channel.set_writable(is_writable=False)
        (task,) = await ask(channel)
        channel.end()
        with pytest.raises(UnreachableError):
            await task
        assert [] == wire.sent

    run(act())


def test_what_was_given_up_counts_until_it_is_answered():
    async def act():
        wire = FakeWire()
        channel = Channel("node-0", wire)
        for task in await ask(channel, IN_FLIGHT_MAX):
            task.cancel()
        await asyncio.sleep(0)
        with pytest.raises(UnreachableError):
            await channel.request(READ)
        reply_to(channel, wire.sent[0])
        (task,) = await ask(channel)
        reply_to(channel, wire.sent[-1])
        assert "t" == (await task).type_name

    run(act())


def test_a_request_too_large_for_a_frame_is_refused_and_harms_nothing():
    async def act():
        wire, channel = living()
        with pytest.raises(MalformedError):
            await channel.request(partial(WriteRequest, key="k", type_name="t", op=bytes(FRAME_BYTES_MAX)))
        await asyncio.sleep(2 * REQUEST_SECONDS_MAX)
        assert (False, []) == (wire.is_closed, wire.sent)

    run(act())


def test_replies_that_nobody_asked_for_are_ignored_and_garbage_is_refused():
    async def act():
        channel = Channel("node-0", FakeWire())
        channel.receive(encode_message(ValueReply(7, "t", b"")))
        with pytest.raises(MalformedError):
            channel.receive(b"\xc1")

    run(act())


def test_a_session_reads_no_more_while_too_much_is_unanswered():
    async def act():
        wire, gate = FakeWire(), asyncio.Event()

        async def answer(request):
            await gate.wait()
            return ValueReply(request.id, "t", b"v")

        session = Session(Identity(BACKEND, "b", ""), lambda _, request: answer(request), wire, set())
        for number in range(ANSWERS_MAX - 1):
            session.receive(encode_message(READ(number)))
        assert wire.is_reading
        session.receive(encode_message(READ(ANSWERS_MAX)))
        assert not wire.is_reading
        gate.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (True, ANSWERS_MAX) == (wire.is_reading, len(wire.sent))

    run(act())


def test_a_session_reads_no_more_while_its_replies_pile_up():
    async def act():
        wire = FakeWire()
        session = Session(Identity(BACKEND, "b", ""), lambda _, request: ValueReply(request.id, "t", b"v"), wire, set())
        session.set_writable(is_writable=False)
        assert not wire.is_reading
        session.set_writable(is_writable=True)
        assert wire.is_reading

    run(act())


def test_a_reply_too_large_for_a_frame_is_a_refusal():
    async def act():
        wire = FakeWire()
        huge = bytes(FRAME_BYTES_MAX)
        session = Session(Identity(BACKEND, "b", ""), lambda _, request: ValueReply(request.id, "t", huge), wire, set())
        session.receive(encode_message(READ(5)))
        (reply,) = map(decode_reply, wire.sent)
        assert (5, "malformed") == (reply.id, reply.code)

    run(act())
