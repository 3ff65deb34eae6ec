"""One HTTP/1.1 connection: uvicorn's protocol, bounded in time and size so that no client can hold it for nothing.

It knows no sockets and no TLS; whoever owns it calls `sweep` every now and then.
"""

import asyncio
import http
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from crdt_service.kernel.error import ServiceError

# Returns the HTTP status of an error and its JSON.
Describe = Callable[[ServiceError], tuple[int, bytes]]
# A head is measured after each piece of this size: one that is no larger than the limit is surely taken.
_PIECE_BYTES = 16 << 10
# What this process holds for a client before the application waits; lowering it wakes the application more often.
_UNSENT_BYTES_MAX = 16 << 10
_MALFORMED = ServiceError("malformed_request", "this is no HTTP/1.1 request", "send HTTP/1.1, without trailers")
_LARGE_HEAD = ServiceError("head_too_large", "the request's head is too large", "send fewer or shorter headers")
_LARGE_REQUEST = ServiceError("body_too_large", "the request is larger than any may be", "send a smaller value")
_SLOW = ServiceError("request_timeout", "the request did not arrive in time", "send it at once, on a new connection")


@dataclass(frozen=True)
class Limits:
    """What a client may take.

    Attributes:
        handshake_seconds: Time for TLS.
        head_seconds: Time for a request's head, from its first byte; for the first, from the connection's start.
        body_seconds: Time for a request's body.
        write_seconds: Time that a client who reads too slowly may need to take some of what waits for it. uvloop tells
            of that over TLS only when more is written; one large answer is bounded by `idle_seconds`.
        idle_seconds: Time between two requests. Above what load balancers use (60 s), so that they end first.
        farewell_seconds: Time to take the last answer of a connection that ends.
        drain_seconds: Time for requests under way when the server stops.
        head_bytes: A head up to this size is taken, one of twice as much is not.
        request_bytes: Size of a whole request, chunk sizes and trailers included.
        pipelined: Requests that may wait for the one before them.
        connections: Connections open at once. When there are more, the one that is idle or unfinished for longest ends.
    """

    handshake_seconds: float = 5.0
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    write_seconds: float = 30.0
    idle_seconds: float = 75.0
    farewell_seconds: float = 2.0
    drain_seconds: float = 10.0
    head_bytes: int = 32 << 10
    request_bytes: int = 8 << 20
    pipelined: int = 16
    connections: int = 12_288


class HttpConnection(HttpToolsProtocol):
    """A connection from its first byte to its end.

    Requests that a client pipelines are answered in order. What breaks a rule is answered with an error if nothing
    else is due before it; otherwise the connection ends after the last whole request has been answered.

    Args:
        config: How uvicorn runs the application.
        state: Where connections and running requests are kept.
        limits: What the client may take.
        describe: Returns the HTTP status of an error and its JSON.
        on_made: Called when TLS is there, if there is any, and the connection counts among those of `state`.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        limits: Limits,
        describe: Describe,
        on_made: Callable[[], object],
    ) -> None:
        super().__init__(config, state, {})
        self._on_made = on_made
        self._limits = limits
        self._describe = describe
        self._running: RequestResponseCycle | None = None
        self._is_receiving = False  # A request has begun and is not there yet.
        self._arriving: RequestResponseCycle | None = None  # The same request, once its head is there.
        self._is_in_head = False
        self._is_deaf = False
        self._head_bytes = 0
        self._request_bytes = 0
        self._due = self.loop.time() + limits.head_seconds
        self._write_due = math.inf
        self._end_due = math.inf

    @property
    def idle_since(self) -> float:
        """When what it waits for was due to end; infinite while a request is being answered."""
        return self._due if self._running is None or self._running.response_complete else math.inf

    def sweep(self, now: float) -> None:
        """End the connection if what it waits for is overdue."""
        if self.transport.is_closing() and self._end_due == math.inf:
            self._end_due = now + self._limits.farewell_seconds
        if now >= min(self._end_due, self._write_due):
            self.transport.abort()
        elif now >= self._due and not self._is_deaf:
            if self._is_receiving:
                self.refuse(_SLOW)
            else:
                self.transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def refuse(self, error: ServiceError) -> None:
        """Take nothing more, and say why unless an earlier request's answer is due first."""
        self._is_deaf = True
        if self._arriving is not None and self._arriving.response_complete:
            self.transport.close()  # The rest of a request that was answered already.
            return
        outstanding = self._outstanding()
        broken = outstanding.pop() if outstanding and outstanding[-1].more_body else None
        if broken is not None:
            # The application hears that the client has left; nothing that it answers is sent.
            broken.disconnected = True
            broken.message_event.set()
            if self.pipeline and self.pipeline[0][0] is broken:
                self.pipeline.popleft()
        if outstanding:
            outstanding[-1].keep_alive = False
        elif broken is not None and broken.response_started:
            self.transport.close()
        else:
            self.transport.write(encode_refusal(*self._describe(error)))
            # Closed at once, what the client still sends would reset the connection before it has read the answer.
            self._end_due = self.loop.time() + self._limits.farewell_seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, after TLS if there is any; asyncio calls this."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(_UNSENT_BYTES_MAX)
        self._on_made()

    def data_received(self, data: bytes) -> None:
        """Take what arrived; asyncio calls this."""
        self._request_bytes += len(data)
        for start in range(0, len(data), _PIECE_BYTES):
            if not self._is_deaf:
                self._feed(data[start : start + _PIECE_BYTES])
        if self._request_bytes > self._limits.request_bytes and not self._is_deaf:
            self.refuse(_LARGE_REQUEST)

    def pause_writing(self) -> None:
        """Hear that the client reads too slowly; asyncio calls this."""
        super().pause_writing()
        self._write_due = self.loop.time() + self._limits.write_seconds

    def resume_writing(self) -> None:
        """Hear that the client has caught up; asyncio calls this."""
        super().resume_writing()
        self._write_due = math.inf

    def on_message_begin(self) -> None:
        """A request begins; the parser calls this."""
        super().on_message_begin()
        self._is_receiving = self._is_in_head = True
        self._head_bytes = self._request_bytes = 0
        self._due = self.loop.time() + self._limits.head_seconds

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is there; the parser calls this, for trailers too."""
        if not self._is_in_head:
            raise ValueError("trailers are not taken")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is there; the parser calls this."""
        self._is_in_head = False
        self._due = self.loop.time() + self._limits.body_seconds
        if len(self.pipeline) >= self._limits.pipelined:
            raise ValueError("too many requests wait for the one before them")
        super().on_headers_complete()
        self._arriving = self.cycle

    def on_message_complete(self) -> None:
        """A request is there; the parser calls this."""
        super().on_message_complete()
        self._is_receiving = False
        self._arriving = None
        self._settle()

    def on_response_complete(self) -> None:
        """A request was answered; uvicorn's cycle calls this."""
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        self._settle()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _outstanding(self) -> list[RequestResponseCycle]:
        """Requests that have no whole answer yet, in their order."""
        waiting = [cycle for cycle, _ in reversed(self.pipeline)]
        return waiting if self._running is None or self._running.response_complete else [self._running, *waiting]

    def _settle(self) -> None:
        """Wait for the client again, or for the application."""
        if not self._is_receiving:
            is_idle = self._running is None or self._running.response_complete
            self._due = self.loop.time() + self._limits.idle_seconds if is_idle else math.inf

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # To what this server does not speak: the request is answered without.
            self._is_deaf = True
            if outstanding := self._outstanding():
                outstanding[-1].keep_alive = False
        except httptools.HttpParserError:
            self.refuse(_MALFORMED)
        if self._is_in_head and not self._is_deaf:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes + _PIECE_BYTES:
                self.refuse(_LARGE_HEAD)


def encode_refusal(status: int, body: bytes) -> bytes:
    """Return a whole response after which the connection ends."""
    head = (
        f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
