"""A channel finds out that nothing comes any more, and never because its own process was not there to listen."""

import asyncio
import contextlib
from functools import partial

import pytest

from crdt_service.kernel.clock import HybridClock
from crdt_service.kernel.error import OutcomeUnknownError, UnreachableError
from crdt_service.net.channel import (
    PULSE_SECONDS,
    PULSE_SECONDS_MAX,
    REQUEST_SECONDS_MAX,
    SILENCE_SECONDS_MAX,
    Channel,
)
from crdt_service.wire.message import (
    PROTOCOL_BEFORE,
    Gossip,
    PingReply,
    PingRequest,
    PulseReply,
    PulseRequest,
    ReadRequest,
    ValueReply,
    decode_received,
    encode_message,
)
from tests.sim.loop import VirtualLoop
from tests.unit.service.double import FakeClock

READ = partial(ReadRequest, key="k")
NEWS = Gossip(bytes(8), [])
ALL = ["node-1", "node-2"]


class OtherEnd:
    """A wire and who is at its other end: it answers pulses unless it is stopped, and keeps the rest.

    What it gets while it is stopped it answers once it goes on, as a process does whose socket keeps it.
    """

    def __init__(self, **options):
        self.channel = Channel("node-0", self, **options)
        self.pulses = []
        self.requests = []
        self.is_closed = False
        self.is_stopped = False
        self._held = []

    def send(self, body):
        request = decode_received(body)
        if not isinstance(request, PulseRequest):
            self.requests.append(request)
            return
        self.pulses.append(round(asyncio.get_running_loop().time(), 2))
        reply = encode_message(PulseReply(request.id, 7, ALL, 1_000_061_000, 5))
        if self.is_stopped:
            self._held.append(reply)
        else:
            asyncio.get_running_loop().call_later(0.001, self.say, reply)

    def say(self, body):
        self.channel.hear()
        self.channel.receive(body)

    def go_on(self):
        self.is_stopped = False
        for body in self._held:
            self.say(body)
        self._held.clear()

    def close(self):
        self.is_closed = True


def run(act):
    with contextlib.closing(VirtualLoop(None)) as loop:
        return loop.run_until_complete(act())


def now():
    return asyncio.get_running_loop().time()


async def ask(other, build=READ):
    task = asyncio.create_task(other.channel.request(build))
    await asyncio.sleep(0)
    return task


async def stand_still(seconds):
    """This process stops for so long, as SIGSTOP has it: time passes, and no timer fires."""
    asyncio.get_running_loop().advance(seconds)
    await asyncio.sleep(0)


def test_an_idle_channel_is_asked_for_a_sign_of_life_each_second():
    async def act():
        other = OtherEnd()
        await asyncio.sleep(4.5 * PULSE_SECONDS_MAX)
        return other.pulses, other.channel.unreachable

    pulses, unreachable = run(act)
    assert (4, set(ALL)) == (len(pulses), unreachable)


def test_each_pulse_tells_what_the_other_clock_says_until_the_channel_ends():
    async def act():
        clock = HybridClock(FakeClock(1_000_000.0))
        other = OtherEnd(clock=clock)
        other.channel.pulse()
        await asyncio.sleep(0.01)
        heard = dict(clock.offsets)
        other.channel.end()
        return heard, clock.newest, clock.offsets

    assert ({"node-0": pytest.approx(61.0005)}, 5, {}) == run(act)


def test_who_stood_still_tells_nothing_of_its_clock():
    async def act():
        clock = HybridClock(FakeClock(1_000_000.0))
        other = OtherEnd(clock=clock)
        other.is_stopped = True
        other.channel.pulse()
        await asyncio.sleep(5 * PULSE_SECONDS_MAX)
        other.go_on()
        return clock.offsets

    assert {} == run(act)


def test_who_stops_is_silent_before_anything_is_asked():
    async def act():
        other = OtherEnd()
        other.is_stopped = True
        await asyncio.sleep(PULSE_SECONDS_MAX + SILENCE_SECONDS_MAX + PULSE_SECONDS)
        assert other.channel.is_silent
        with pytest.raises(UnreachableError):
            await other.channel.request(READ)
        return other.requests

    assert [] == run(act)


def test_what_waits_for_who_stopped_ends_in_time_and_the_channel_stays_open():
    async def act():
        other = OtherEnd()
        other.is_stopped = True
        started = now()
        with pytest.raises(OutcomeUnknownError):
            await other.channel.request(READ)
        took = now() - started
        assert (True, False, False) == (
            other.channel.is_silent,
            other.channel.closed.is_set(),
            other.is_closed,
        )
        return took

    assert pytest.approx(SILENCE_SECONDS_MAX, abs=0.01) == run(act)


def test_what_was_not_sent_yet_is_surely_not_done():
    async def act():
        other = OtherEnd()
        other.channel.set_writable(is_writable=False)
        task = await ask(other)
        other.is_stopped = True
        with pytest.raises(UnreachableError):
            await task
        other.channel.set_writable(is_writable=False)
        with pytest.raises(UnreachableError):
            await other.channel.request(READ)
        return other.requests

    assert [] == run(act)


def test_who_goes_on_is_heard_again_over_the_same_connection():
    async def act():
        other = OtherEnd()
        turns = []

        async def watch():
            while True:
                await other.channel.wait_turned()
                turns.append(other.channel.is_silent)

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        other.is_stopped = True
        with pytest.raises(OutcomeUnknownError):
            await other.channel.request(READ)
        await asyncio.sleep(1.4)
        other.go_on()
        task = await ask(other)
        other.say(encode_message(ValueReply(other.requests[-1].id, "t", b"v")))
        await asyncio.sleep(3 * PULSE_SECONDS_MAX)
        watching.cancel()
        return (await task).type_name, turns, other.is_closed

    assert ("t", [True, False], False) == run(act)


def test_the_late_reply_of_who_was_silent_is_nobodys():
    async def act():
        other = OtherEnd()
        other.is_stopped = True
        with pytest.raises(OutcomeUnknownError):
            await other.channel.request(READ)
        other.say(encode_message(ValueReply(other.requests[0].id, "late", b"v")))
        task = await ask(other)
        other.say(encode_message(ValueReply(other.requests[1].id, "t", b"v")))
        return (await task).type_name

    assert "t" == run(act)


def test_who_is_silent_for_too_long_is_dialled_again():
    async def act():
        other = OtherEnd()
        other.is_stopped = True
        await asyncio.sleep(REQUEST_SECONDS_MAX + 3 * PULSE_SECONDS_MAX)
        return other.is_closed, other.channel.closed.is_set()

    assert (True, True) == run(act)


def test_who_is_slow_but_answers_pulses_is_not_silent():
    async def act():
        other = OtherEnd()
        task = await ask(other)
        await asyncio.sleep(3)
        other.say(encode_message(ValueReply(other.requests[0].id, "t", b"v")))
        return (await task).type_name, len(other.pulses)

    name, pulses = run(act)
    assert ("t", True) == (name, 10 <= pulses <= 16)


def test_any_byte_is_a_sign_of_life_and_saves_the_pulse():
    async def act():
        other = OtherEnd()
        task = await ask(other)
        for _ in range(9):  # A large reply is under way, and a pulse would wait behind it.
            await asyncio.sleep(PULSE_SECONDS / 2)
            other.channel.hear()
        assert [] == other.pulses
        other.is_stopped = True
        for _ in range(20):
            await asyncio.sleep(SILENCE_SECONDS_MAX / 2)
            other.channel.hear()
        assert not other.channel.is_silent
        other.say(encode_message(ValueReply(other.requests[0].id, "t", b"v")))
        return (await task).type_name

    assert "t" == run(act)


def test_a_process_that_stood_still_itself_concludes_nothing():
    async def act():
        other = OtherEnd()
        task = await ask(other)
        await asyncio.sleep(0.3)  # A pulse is under way, and its reply comes while nobody listens.
        await stand_still(5)
        for _ in range(3):
            await asyncio.sleep(0.01)
        assert not other.channel.is_silent
        other.say(encode_message(ValueReply(other.requests[0].id, "t", b"v")))
        return (await task).type_name, other.is_closed

    assert ("t", False) == run(act)


@pytest.mark.parametrize("before", [0.1, 0.3, 0.5, 0.59])
def test_who_is_silent_is_found_out_after_standing_still_too_and_not_at_once(before):
    async def act():
        other = OtherEnd()
        other.is_stopped = True
        task = await ask(other)
        await asyncio.sleep(before)
        await stand_still(20)
        started = now()
        with pytest.raises(OutcomeUnknownError):
            await task
        return now() - started

    assert PULSE_SECONDS - 0.01 <= run(act) <= SILENCE_SECONDS_MAX + PULSE_SECONDS


def test_probes_of_the_membership_outlast_silence():
    async def act():
        other = OtherEnd()
        other.is_stopped = True
        before = await ask(other, partial(PingRequest, gossip=NEWS))
        with pytest.raises(OutcomeUnknownError):
            await other.channel.request(READ)
        amid = await ask(other, partial(PingRequest, gossip=NEWS))
        assert (False, False) == (before.done(), amid.done())
        other.go_on()
        for request in other.requests:
            if isinstance(request, PingRequest):
                other.say(encode_message(PingReply(request.id, NEWS)))
        return [type(await task) for task in (before, amid)]

    assert [PingReply, PingReply] == run(act)


def test_an_older_process_is_sent_no_pulse():
    async def act():
        other = OtherEnd(protocol=PROTOCOL_BEFORE)
        task = await ask(other)
        await asyncio.sleep(REQUEST_SECONDS_MAX - 1)
        assert not other.channel.is_silent
        other.say(encode_message(ValueReply(other.requests[0].id, "t", b"v")))
        await asyncio.sleep(3 * REQUEST_SECONDS_MAX)
        return (await task).type_name, other.pulses, other.is_closed

    assert ("t", [], False) == run(act)


def test_requests_that_are_answered_cost_one_timer_and_no_pulse():
    async def act():
        other = OtherEnd()
        timers, call_at = [], asyncio.get_running_loop().call_at

        def count(at, callback, *arguments, **options):
            timers.append(callback)
            return call_at(at, callback, *arguments, **options)

        asyncio.get_running_loop().call_at = count
        for number in range(1000):
            task = await ask(other)
            other.say(encode_message(ValueReply(other.requests[number].id, "t", b"v")))
            await task
        return timers.count(other.channel._look), other.pulses

    assert (1, []) == run(act)
