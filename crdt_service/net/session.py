"""The listening end's answers to one connection: at once where the handler has them, else as they come."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from crdt_service.kernel.clock import HybridClock, boot_milliseconds
from crdt_service.kernel.error import ServiceError
from crdt_service.net.channel import IN_FLIGHT_MAX as REQUESTS_MAX
from crdt_service.net.handshake import Identity
from crdt_service.telemetry.context import RequestContext, unpack_trace
from crdt_service.telemetry.context import request as log_context
from crdt_service.telemetry.trace import Recorder, Span, current
from crdt_service.wire.message import (
    REQUEST_NAMES,
    FailureReply,
    Placed,
    PulseReply,
    PulseRequest,
    Reply,
    Request,
    TracedRequest,
    decode_received,
    decode_request,
    encode_message,
)

# More than the other end sends: while nothing is read, pulses are not either, and this end passes for silent.
IN_FLIGHT_MAX = REQUESTS_MAX + 1

Answer = Reply | Placed[Reply]
# A reply at once costs no task; a coroutine is run beside the others of its connection.
Handler = Callable[
    [Identity, Request | Placed[Request]], Answer | Coroutine[Any, Any, Reply] | Coroutine[Any, Any, Placed[Reply]]
]
# Returns the nodes that this process does not reach, at most `UNREACHABLE_MAX`.
ListUnreachable = Callable[[], list[str]]


class Wire(Protocol):
    """What carries requests here and replies back."""

    def send(self, body: bytes) -> None:
        """Send a message.

        Raises:
            MalformedError: It is too large.
        """

    def pause_reading(self) -> None:
        """Deliver no more requests."""

    def resume_reading(self) -> None:
        """Go on delivering."""


class Session:
    """Requests of one authenticated connection.

    While too many are unanswered, or the other end does not read its replies, no more are read. Answers under way are
    in `answers`, and finish even if the connection does not: what they do to the store counts although nobody hears.
    With a `clock` pulses are answered with the time.
    """

    def __init__(
        self,
        other: Identity,
        handler: Handler,
        wire: Wire,
        answers: set[asyncio.Task[None]],
        recorder: Recorder | None = None,
        *,
        list_unreachable: ListUnreachable = list,
        clock: HybridClock | None = None,
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._list_unreachable = list_unreachable
        self._answers = answers
        self._in_flight = 0
        self._other = other
        self._handler = handler
        self._wire = wire
        self._is_writable = True

    def hear(self) -> None:
        """Take no note: the other end watches over this one."""

    def receive(self, body: bytes | bytearray) -> None:
        """Answer a request, now or later.

        Raises:
            MalformedError: It is none.
        """
        request = decode_received(body)
        if isinstance(request, TracedRequest):
            self._receive_traced(request)
        elif isinstance(request, PulseRequest):
            self._wire.send(encode_message(self._answer_pulse(request)))
        else:
            self._answer(request, None)

    def _answer_pulse(self, request: PulseRequest) -> PulseReply:
        wall_ms, stamp = (0, 0) if self._clock is None else (self._clock.now_milliseconds(), self._clock.newest)
        return PulseReply(request.id, boot_milliseconds(), self._list_unreachable(), max(0, wall_ms), stamp)

    def _receive_traced(self, traced: TracedRequest) -> None:
        request = decode_request(traced.request)
        parent = unpack_trace(traced.trace)
        if self._recorder is None or parent is None:
            self._answer(request, None)
            return
        name = REQUEST_NAMES[type(request.message if isinstance(request, Placed) else request)]
        span = self._recorder.start(name, parent, {"rpc.system": "jarvis", "client.address": self._other.node_id})
        token = current.set(span if span.context.is_sampled else None)
        log_token = log_context.set(RequestContext("", *span.context[:2]))
        try:
            self._answer(request, span)
        finally:
            current.reset(token)
            log_context.reset(log_token)

    def _answer(self, request: Request | Placed[Request], span: Span | None) -> None:
        try:
            answer = self._handler(self._other, request)
            if not isinstance(answer, Coroutine):
                self._wire.send(encode_message(answer))
                if span is not None:
                    span.end()
                return
        except ServiceError as error:
            self._refuse(request.id, error, span)
            return
        task = asyncio.create_task(self._finish(request.id, answer, span))
        self._answers.add(task)
        task.add_done_callback(self._forget)
        self._in_flight += 1
        if self._in_flight >= IN_FLIGHT_MAX:
            self._wire.pause_reading()

    def set_writable(self, *, is_writable: bool) -> None:
        """Stop taking requests while replies pile up."""
        self._is_writable = is_writable
        if is_writable:
            self._resume()
        else:
            self._wire.pause_reading()

    def end(self) -> None:
        """Nothing more comes."""

    async def _finish(self, number: int, answer: Coroutine[Any, Any, Answer], span: Span | None) -> None:
        try:
            self._wire.send(encode_message(await answer))
        except ServiceError as error:
            self._refuse(number, error, span)
        else:
            if span is not None:
                span.end()

    def _refuse(self, number: int, error: ServiceError, span: Span | None) -> None:
        if span is not None:
            span.end(error.code)
        self._wire.send(encode_message(FailureReply(number, error.code, error.message, error.remedy)))

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._answers.discard(task)
        self._in_flight -= 1
        self._resume()

    def _resume(self) -> None:
        if self._is_writable and self._in_flight < IN_FLIGHT_MAX:
            self._wire.resume_reading()
