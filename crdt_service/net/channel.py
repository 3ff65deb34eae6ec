"""The dialling end's requests: pipelined over whatever carries frames, replies matched by id.

It knows neither sockets nor frames' prefixes: a `Wire` sends bodies, and whoever owns the wire calls `receive`,
`set_writable` and `end`. A connection is one such owner, the simulated network another.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Literal, Protocol

from crdt_service.kernel.error import MalformedError, OutcomeUnknownError, ServiceError, UnreachableError
from crdt_service.telemetry.context import pack_trace
from crdt_service.telemetry.trace import Kind, current
from crdt_service.wire.message import (
    PROTOCOL,
    REQUEST_NAMES,
    FailureReply,
    Placed,
    Reply,
    Request,
    TracedRequest,
    decode_reply,
    encode_message,
)

# Raising it lets a dead connection hide for longer; lowering it gives up on slow disks.
REQUEST_SECONDS_MAX = 10.0
# Raising it lets one slow node hold more requests in this process's memory.
IN_FLIGHT_MAX = 4096

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

    Attributes:
        node_id: The node at the other end.
        replica: Names the data directory there.
        protocol: What both ends speak.
        closed: Set once no request can be sent any more.
    """

    def __init__(
        self,
        node_id: str,
        wire: Wire,
        observe: Observe | None = None,
        *,
        replica: str = "",
        protocol: int = PROTOCOL,
    ) -> None:
        self.node_id = node_id
        self.replica = replica
        self.protocol = protocol
        self.closed = asyncio.Event()
        self._wire = wire
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        # In the order of sending, so that the first is the oldest. A request that was given up stays until its reply.
        self._waiting: dict[int, tuple[asyncio.Future[Reply | Placed[Reply]], float]] = {}
        self._ids = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._blocked = 0

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
        if not self._writable.is_set():
            await self._wait_writable()
        if self.closed.is_set() or len(self._waiting) >= IN_FLIGHT_MAX:
            raise UnreachableError(self.node_id)
        number = next(self._ids)
        request = build(number)
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
        due = self._loop.time() + REQUEST_SECONDS_MAX
        self._waiting[number] = (waiting, due)
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._expire)
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
        if not self._writable.is_set() or len(self._waiting) >= IN_FLIGHT_MAX:
            return "full"
        return "busy" if self._waiting else "idle"

    def receive(self, body: bytes | bytearray) -> None:
        """Hand a reply to its request.

        Raises:
            MalformedError: It is none.
        """
        reply = decode_reply(body)
        entry = self._waiting.pop(reply.id, None)
        if entry is not None and not entry[0].done():
            entry[0].set_result(reply)

    def set_writable(self, *, is_writable: bool) -> None:
        """Hold new requests back, or let them go on."""
        if is_writable:
            self._writable.set()
        else:
            self._writable.clear()

    def close(self) -> None:
        """End the connection; requests under way have an unknown outcome."""
        self._wire.close()
        self.end()

    def end(self) -> None:
        """Fail what is under way, and take nothing more."""
        if self.closed.is_set():
            return
        self.closed.set()
        self._writable.set()
        if self._timer is not None:
            self._timer.cancel()
        for waiting, _ in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(OutcomeUnknownError(self.node_id))
                waiting.exception()  # Whoever waited may be gone.
        self._waiting.clear()

    async def _wait_writable(self) -> None:
        if self._blocked >= IN_FLIGHT_MAX:
            raise UnreachableError(self.node_id)
        self._blocked += 1
        try:
            while not self._writable.is_set():
                await self._writable.wait()
        finally:
            self._blocked -= 1

    def _expire(self) -> None:
        """Give the connection up if its oldest request is due; else look again when that one is."""
        self._timer = None
        for _, due in self._waiting.values():
            if due <= self._loop.time():
                self.close()
            else:
                self._timer = self._loop.call_at(due, self._expire)
            return
