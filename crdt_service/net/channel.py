"""The dialling end's requests: pipelined over whatever carries frames, replies matched by id.

It knows neither sockets nor frames' prefixes: a `Wire` sends bodies, and whoever owns the wire calls `hear`, `receive`,
`set_writable` and `end`. A connection is one such owner, the simulated network another.

A channel also watches over the other end, as docs/decisions/0031-failure-detection.md says: a pulse asks for a sign of
life, and any byte is one. A channel that heard nothing for too long while something was owed is silent: what waits on
it ends, and it takes nothing until a byte comes again.
"""

import asyncio
import itertools
import math
from collections.abc import Callable
from typing import Literal, Protocol

from crdt_service.kernel.clock import HybridClock
from crdt_service.kernel.error import MalformedError, OutcomeUnknownError, ServiceError, UnreachableError
from crdt_service.telemetry.context import pack_trace
from crdt_service.telemetry.trace import Kind, current
from crdt_service.wire.message import (
    PROTOCOL,
    REQUEST_NAMES,
    FailureReply,
    IndirectPingRequest,
    PingRequest,
    Placed,
    PulseReply,
    PulseRequest,
    Reply,
    Request,
    TracedRequest,
    TypedRequest,
    decode_reply,
    encode_message,
)

# Raising it bears slower disks; lowering it gives up on them sooner. Who is not there at all falls silent before.
REQUEST_SECONDS_MAX = 10.0
# Raising it lets one slow node hold more requests in this process's memory.
IN_FLIGHT_MAX = 4096
# How long nothing is heard before a pulse is sent while a reply is owed. Raising it sends fewer pulses.
PULSE_SECONDS = 0.2
# Raising it bears longer pauses of the other process; lowering it ends what waits for a dead one sooner.
SILENCE_SECONDS_MAX = 0.6
# Pulses go at least so often, also while nothing is owed: so the first request after a failure finds it known.
# Raising it costs less, and has a request wait for longer that meets several nodes which just failed.
PULSE_SECONDS_MAX = 1.0
# A look that comes later than this finds this process itself to have stood still.
LATE_SECONDS_MAX = 0.1
_PROTOCOL_OF_PULSES = 4
_PROTOCOL_OF_TYPES = 4
# Timers may fire so much too early.
_TIMER_SECONDS = 0.002
# They carry limits of their own, and what they find out is not to depend on what the channel found out.
_PROBES = frozenset({PingRequest, IndirectPingRequest})

Observe = Callable[[str, float, str], None]


class Wire(Protocol):
    """What carries a channel's requests."""

    def send(self, body: bytes) -> None:
        """Send a message.

        Raises:
            MalformedError: It is too large.
        """

    def close(self) -> None:
        """End the connection; `Channel.end` is called at once or soon."""


class Channel:
    """Requests to an authenticated node.

    Args:
        node_id: The node at the other end.
        wire: What carries them.
        observe: Hears of each request its name, how many seconds it took, and the code of its error or "".
        replica: Names the data directory at the other end.
        protocol: What both ends speak.
        clock: Learns from each pulse what the other end's clock says; None to learn nothing.

    Attributes:
        node_id: The node at the other end.
        replica: Names the data directory there.
        protocol: What both ends speak.
        closed: Set once no request can be sent any more.
        is_silent: Whether the other end owes an answer and gives no sign of life.
        unreachable: Nodes that the other end did not reach when it answered the last pulse.
    """

    def __init__(
        self,
        node_id: str,
        wire: Wire,
        observe: Observe | None = None,
        *,
        replica: str = "",
        protocol: int = PROTOCOL,
        clock: HybridClock | None = None,
    ) -> None:
        self.node_id = node_id
        self.replica = replica
        self.protocol = protocol
        self._clock = clock
        self.closed = asyncio.Event()
        self._wire = wire
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        # In the order of sending, each with its time. A request that its caller gave up stays until its reply.
        self._waiting: dict[int, tuple[asyncio.Future[Reply | Placed[Reply]], float]] = {}
        self._probes: set[int] = set()
        self._ids = itertools.count(1)
        self._is_writable = True
        # Set also where a request that waits to be sent has to be refused.
        self._unblocked = asyncio.Event()
        self._unblocked.set()
        self._blocked = 0
        self.is_silent = False
        self.unreachable: frozenset[str] = frozenset()
        self._turned = asyncio.Event()
        self._has_pulse = protocol >= _PROTOCOL_OF_PULSES
        # When something was heard last, when the last pulse was sent, and the same while it is not answered.
        self._heard_at = self._pulsed_at = self._loop.time()
        self._pulse_owed_at = math.inf
        # One timer for the whole channel: at most so long after a request is sent, and else for the next pulse.
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = math.inf
        self._look_seconds_max = PULSE_SECONDS if self._has_pulse else REQUEST_SECONDS_MAX
        if self._has_pulse:
            self._look_by(self._pulsed_at + PULSE_SECONDS_MAX)

    async def request(self, build: Callable[[int], Request]) -> Reply:
        """Send the request that `build` makes of an id; return its reply.

        Waits before it sends while the other end reads too slowly.

        Raises:
            UnreachableError: It was surely not sent.
            OutcomeUnknownError: It was sent, and no reply came.
            ServiceError: The node refused; it changed nothing, unless the code is `concern_not_met`.
        """
        return (await self.request_placed(0, build)).message

    async def request_placed(self, epoch: int, build: Callable[[int], Request]) -> Placed[Reply]:
        """As `request`, under the placement of this epoch, 0 for none; return the reply with the epoch it was sent in.

        Raises:
            ServiceError: As for `request`.
        """
        if not self._unblocked.is_set():
            await self._wait_unblocked()
        number = next(self._ids)
        request = build(number)
        is_probe = type(request) in _PROBES
        # An end of the release before would take one that names a type for malformed.
        is_known = type(request) is not TypedRequest or self.protocol >= _PROTOCOL_OF_TYPES
        is_refused = (self.is_silent and not is_probe) or not is_known
        if is_refused or self.closed.is_set() or len(self._waiting) >= IN_FLIGHT_MAX:
            raise UnreachableError(self.node_id)
        if is_probe:
            self._probes.add(number)
        body = encode_message(Placed(epoch, request) if epoch else request)
        if self._observe is None and current.get() is None:
            reply = await self._send(number, body)
        else:
            reply = await self._send_observed(number, REQUEST_NAMES[type(request)], body)
        return reply if isinstance(reply, Placed) else Placed(0, reply)

    async def _send_observed(self, number: int, name: str, body: bytes) -> Reply | Placed[Reply]:
        """Send a request, tell how long that took, and record it if it belongs to a trace."""
        span = None
        if (parent := current.get()) is not None:
            span = parent.start(name, Kind.CLIENT, {"rpc.system": "jarvis", "server.address": self.node_id})
            body = encode_message(TracedRequest(pack_trace(span.context), body))
        started = self._loop.time()
        error = "cancelled"
        try:
            reply = await self._send(number, body)
            error = ""
        except ServiceError as failure:
            error = failure.code
            raise
        finally:
            if span is not None:
                span.end(error)
            if self._observe is not None:
                self._observe(name, self._loop.time() - started, error)
        return reply

    async def _send(self, number: int, body: bytes) -> Reply | Placed[Reply]:
        waiting: asyncio.Future[Reply | Placed[Reply]] = self._loop.create_future()
        now = self._loop.time()
        self._waiting[number] = (waiting, now)
        if self._look_at > now + self._look_seconds_max:
            self._look_by(now + self._look_seconds_max)
        try:
            self._wire.send(body)
        except MalformedError:
            del self._waiting[number]
            raise
        reply = await waiting
        if isinstance(reply, FailureReply):
            raise ServiceError(reply.code, reply.message, reply.remedy)
        return reply

    @property
    def state(self) -> Literal["idle", "busy", "full"]:
        """Whether requests are under way, and whether another one would have to wait or be refused."""
        if not self._is_writable or len(self._waiting) >= IN_FLIGHT_MAX:
            return "full"
        return "busy" if self._waiting else "idle"

    def receive(self, body: bytes | bytearray) -> None:
        """Hand a reply to its request.

        Raises:
            MalformedError: It is none.
        """
        reply = decode_reply(body)
        entry = self._waiting.pop(reply.id, None)
        if entry is not None:
            if self._probes:
                self._probes.discard(reply.id)
            if not entry[0].done():
                entry[0].set_result(reply)
        elif isinstance(reply, PulseReply):
            self._pulse_owed_at = math.inf
            self.unreachable = frozenset(reply.unreachable)
            if self._clock is not None and reply.wall_ms:
                self._clock.hear(self.node_id, reply.wall_ms, reply.stamp, self._loop.time() - self._pulsed_at)

    def pulse(self) -> None:
        """Ask the other end for a sign of life and the time at once, as a channel does by itself now and then."""
        if self._has_pulse:
            self._send_pulse()

    def hear(self) -> None:
        """Note that bytes came, be it a part of a frame."""
        self._heard_at = self._loop.time()
        if self.is_silent and not self.closed.is_set():
            self.is_silent = False
            self._look_by(self._heard_at + self._look_seconds_max)
            self._turn()

    async def wait_turned(self) -> None:
        """Return once the channel falls silent, is heard again, or closes."""
        self._turned.clear()
        await self._turned.wait()

    def set_writable(self, *, is_writable: bool) -> None:
        """Hold new requests back, or let them go on."""
        self._is_writable = is_writable
        self._turn_requests()

    def close(self) -> None:
        """End the connection; requests under way have an unknown outcome."""
        self._wire.close()
        self.end()

    def end(self) -> None:
        """Fail what is under way, and take nothing more."""
        if self.closed.is_set():
            return
        self.closed.set()
        if self._clock is not None:
            self._clock.forget(self.node_id)
        self._probes.clear()
        self._give_up()
        if self._timer is not None:
            self._timer.cancel()
        self._turn()

    async def _wait_unblocked(self) -> None:
        if self._blocked >= IN_FLIGHT_MAX:
            raise UnreachableError(self.node_id)
        self._blocked += 1
        try:
            while not self._unblocked.is_set():
                await self._unblocked.wait()
        finally:
            self._blocked -= 1

    def _turn(self) -> None:
        self._turned.set()
        self._turn_requests()

    def _turn_requests(self) -> None:
        if self._is_writable or self.is_silent or self.closed.is_set():
            self._unblocked.set()
        else:
            self._unblocked.clear()

    def _give_up(self) -> None:
        """Fail what waits, but for probes."""
        kept = {number: self._waiting[number] for number in self._probes if number in self._waiting}
        for number, (waiting, _) in self._waiting.items():
            if number not in kept and not waiting.done():
                waiting.set_exception(OutcomeUnknownError(self.node_id))
                waiting.exception()  # Whoever waited may be gone.
        self._waiting = kept

    def _look_by(self, at: float) -> None:
        """Look after the other end then, never if that is infinite."""
        if self._timer is not None:
            self._timer.cancel()
        self._look_at = at
        self._timer = self._loop.call_at(at, self._look) if at < math.inf else None

    def _oldest(self) -> float:
        """Return when the oldest request that waits was sent, infinity if none does."""
        return next((sent_at for _, sent_at in self._waiting.values()), math.inf)

    def _look(self) -> None:
        """Ask the other end for a sign of life, or conclude that there is none; then look again when that is due."""
        now = self._loop.time() + _TIMER_SECONDS
        oldest = self._oldest()
        owed_at = min(oldest, self._pulse_owed_at)
        is_late = now - self._look_at > LATE_SECONDS_MAX
        if is_late and owed_at <= now:
            # This process was not there to listen. What came meanwhile is read before the next look.
            self._heard_at = min(now, max(self._heard_at, owed_at) + now - self._look_at)
        quiet_since = max(self._heard_at, owed_at)
        silent_since = self._heard_at if self.is_silent else math.inf
        if not is_late and now - min(oldest, silent_since) >= REQUEST_SECONDS_MAX:
            self.close()
            return
        if self._has_pulse and not self.is_silent:
            if not is_late and now - quiet_since >= SILENCE_SECONDS_MAX:
                self._fall_silent()
            elif self._pulse_owed_at > now and (
                now - quiet_since >= PULSE_SECONDS or now - self._pulsed_at >= PULSE_SECONDS_MAX
            ):
                self._send_pulse()
        self._look_by(self._choose_look(now))

    def _choose_look(self, now: float) -> float:
        if self.is_silent:
            return now + PULSE_SECONDS_MAX
        oldest = self._oldest()
        if not self._has_pulse:
            return oldest + REQUEST_SECONDS_MAX
        quiet_since = max(self._heard_at, min(oldest, self._pulse_owed_at))
        if quiet_since + PULSE_SECONDS > now:
            return min(quiet_since + PULSE_SECONDS, max(now, self._pulsed_at + PULSE_SECONDS_MAX))
        return now + PULSE_SECONDS

    def _send_pulse(self) -> None:
        self._pulsed_at = self._pulse_owed_at = self._loop.time()
        self._wire.send(encode_message(PulseRequest(next(self._ids))))

    def _fall_silent(self) -> None:
        if self._pulse_owed_at == math.inf:
            self._send_pulse()  # Its reply is what ends the silence.
        self.is_silent = True
        self._give_up()
        self._turn()
