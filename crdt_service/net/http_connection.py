"""One HTTP/1.1 connection: uvicorn's protocol, bounded in time and size so that no client can hold it for nothing.

It knows no sockets and no TLS; whoever owns it calls `sweep` every now and then.
"""

import asyncio
import http
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from crdt_service.access.room import Room
from crdt_service.kernel.error import ServiceError

# Returns the HTTP status of an error and its JSON.
Describe = Callable[[ServiceError], tuple[int, bytes]]
# A head is measured after each piece of this size: one that is no larger than the limit is surely taken.
_PIECE_BYTES = 16 << 10
# What this process holds for a client before the application waits; lowering it wakes the application more often.
_UNSENT_BYTES_MAX = 16 << 10
_MALFORMED = ServiceError("malformed_request", "this is no HTTP/1.1 request", "send HTTP/1.1, without trailers")
_VERSION = ServiceError("unsupported_version", "this is neither HTTP/1.1 nor HTTP/1.0", "send HTTP/1.1")
_HOST = ServiceError("malformed_request", "there is not exactly one good Host", "send one header Host")
_CHUNKS = ServiceError("malformed_request", "HTTP/1.0 knows no Transfer-Encoding", "send HTTP/1.1, or Content-Length")
# What may be in a Host: a name, an IPv4 address or an IPv6 one in brackets, and a port; or nothing (RFC 9112, 3.2).
_HOSTS = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
# Header fields that say where the body ends.
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
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
        write_seconds: Time that a client who reads too slowly may need to take some of what waits for it.
        read_bytes_per_second: What it must take of an answer on average, beyond that time.
        idle_seconds: Time between two requests. Above what load balancers use (60 s), so that they end first.
        farewell_seconds: Time to take the last answer of a connection that ends.
        drain_seconds: Time for requests under way when the server stops.
        head_bytes: A head up to this size is taken, one of twice as much is not.
        request_bytes: Size of a whole request, chunk sizes and trailers included.
        pipelined: Requests that may wait for the one before them.
        connections: Connections open at once. When there are more, of the address that has most of them those end that
            are idle or unfinished for longest.
        heads_bytes: Size of unfinished heads of all connections; each address has a share.
        unsent_bytes: Size of what waits in this process for all clients that read slowly. When it is more, of the
            address that has most of it those connections end that have taken nothing for longest.
    """

    handshake_seconds: float = 5.0
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    write_seconds: float = 30.0
    read_bytes_per_second: int = 64 << 10
    idle_seconds: float = 75.0
    farewell_seconds: float = 2.0
    drain_seconds: float = 10.0
    head_bytes: int = 32 << 10
    request_bytes: int = 8 << 20
    pipelined: int = 16
    connections: int = 12_288
    heads_bytes: int = 16 << 20
    unsent_bytes: int = 64 << 20


class HttpConnection(HttpToolsProtocol):
    """A connection from its first byte to its end.

    Requests that a client pipelines are answered in order. What breaks a rule is answered with an error if nothing
    else is due before it; otherwise the connection ends after the last whole request has been answered.

    Args:
        config: How uvicorn runs the application.
        state: Where connections and running requests are kept.
        limits: What the client may take.
        heads: Room for unfinished heads.
        address: Where the client is, as shares are counted.
        describe: Returns the HTTP status of an error and its JSON.
        on_made: Called when TLS is there, if there is any, and the connection counts among those of `state`.

    Attributes:
        address: The same.
        paused_at: Since when the client has taken too little of what waits for it; infinite while it takes enough.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        *,
        limits: Limits,
        heads: Room,
        address: str,
        describe: Describe,
        on_made: Callable[[], object],
    ) -> None:
        super().__init__(config, state, {})
        self.address = address
        self.paused_at = math.inf
        self._on_made = on_made
        self._limits = limits
        self._heads = heads
        self._describe = describe
        self._running: RequestResponseCycle | None = None
        self._is_receiving = False  # A request has begun and is not there yet.
        self._arriving: RequestResponseCycle | None = None  # The same request, once its head is there.
        self._is_in_head = False
        self._is_deaf = False
        self._is_framing = False  # A head of ours is parsed, which the client did not send.
        self._head_bytes = 0
        self._request_bytes = 0
        self._due = self.loop.time() + limits.head_seconds
        self._write_due = math.inf
        self._answer_due = math.inf
        self._end_due = math.inf

    @property
    def idle_since(self) -> float:
        """When what it waits for was due to end; infinite while a request is being answered."""
        return self._due if self._running is None or self._running.response_complete else math.inf

    def sweep(self, now: float) -> None:
        """End the connection if what it waits for is overdue."""
        if self.transport.is_closing() and self._end_due == math.inf:
            self._end_due = now + self._limits.farewell_seconds
        if now >= min(self._end_due, self._write_due, self._answer_due):
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
        self._leave_head()
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

    def connection_lost(self, exc: Exception | None) -> None:
        """End; asyncio calls this."""
        self._leave_head()
        super().connection_lost(exc)

    @property
    def unsent_bytes(self) -> int:
        """What waits in this process for the client."""
        return self.transport.get_write_buffer_size()

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
        self.paused_at = self.loop.time()
        self._write_due = self.paused_at + self._limits.write_seconds
        if self._answer_due == math.inf and self._running is not None:
            # Of an answer of unknown length, such as a feed, this is 0 and nothing is expected.
            left_bytes = self._running.expected_content_length
            if left_bytes and not self._running.response_complete:
                self._answer_due = self._write_due + left_bytes / self._limits.read_bytes_per_second

    def resume_writing(self) -> None:
        """Hear that the client has caught up; asyncio calls this."""
        super().resume_writing()
        self._write_due = self.paused_at = math.inf

    def on_message_begin(self) -> None:
        """A request begins; the parser calls this."""
        if self._is_framing:
            return
        super().on_message_begin()
        self._is_receiving = self._is_in_head = True
        self._head_bytes = self._request_bytes = 0
        self._due = self.loop.time() + self._limits.head_seconds

    def on_url(self, url: bytes) -> None:
        """A part of the request's target is there; the parser calls this."""
        if not self._is_framing:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is there; the parser calls this, for trailers too."""
        if self._is_framing:
            return
        if not self._is_in_head:
            raise ValueError("trailers are not taken")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is there; the parser calls this."""
        if self._is_framing:
            self._is_framing = False
            return
        self._is_in_head = False
        self._leave_head()
        _check_head(self.parser.get_http_version(), self.headers)
        self._due = self.loop.time() + self._limits.body_seconds
        if len(self.pipeline) >= self._limits.pipelined:
            raise ValueError("too many requests wait for the one before them")
        super().on_headers_complete()
        self._arriving = self.cycle

    def on_message_complete(self) -> None:
        """A request is there; the parser calls this."""
        if self.parser.should_upgrade():
            return  # Only its head is, with an offer that is passed over.
        super().on_message_complete()
        self._is_receiving = False
        self._arriving = None
        self._settle()

    def on_response_complete(self) -> None:
        """A request was answered; uvicorn's cycle calls this."""
        self._answer_due = math.inf
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        self._settle()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        is_old = cycle.scope["http_version"] == "1.0"
        super()._start_asgi_task(cycle, partial(_serve_unframed, cycle, app) if is_old else app)

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
        except httptools.HttpParserUpgrade as offer:
            self._pass_over(data[offer.args[0] :])
        except httptools.HttpParserError as error:
            self.refuse(error.__context__ if isinstance(error.__context__, ServiceError) else _MALFORMED)
        if self._is_in_head and not self._is_deaf:
            try:
                self._heads.take(self.address, len(data))
            except ServiceError as error:
                self.refuse(error)
                return
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes + _PIECE_BYTES:
                self.refuse(_LARGE_HEAD)

    def _pass_over(self, rest: bytes) -> None:
        """Go on after a head that offers to speak another protocol, as if it did not (RFC 9110, 7.8).

        The parser takes what follows such a head for the other protocol, so a new one reads it, after a head that says
        of the body what the client's said.
        """
        framing = [b"%b: %b\r\n" % header for header in self.headers if header[0] in _FRAMING]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._is_framing = True
        self._feed(b"POST / HTTP/1.1\r\nhost: offer\r\n%b\r\n" % b"".join(framing))
        if rest and not self._is_deaf:
            self._feed(rest)

    def _leave_head(self) -> None:
        """Give back the room that an unfinished head took."""
        self._heads.give(self.address, self._head_bytes)
        self._head_bytes = 0


def _check_head(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    """Let a head pass.

    Raises:
        ServiceError: Another server might read it in another way, or it is of another protocol.
    """
    if version not in ("1.0", "1.1"):
        raise _VERSION
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == "1.1") or not all(map(_HOSTS.fullmatch, hosts)):
        raise _HOST
    if version == "1.0" and any(name == b"transfer-encoding" for name, _ in headers):
        raise _CHUNKS


async def _serve_unframed(
    cycle: RequestResponseCycle, application: Any, scope: Any, receive: Any, send: Callable[[Any], Any]
) -> None:
    """Serve a client of HTTP/1.0, which knows no chunks: the connection's end ends an answer of unknown length."""
    is_unframed = False

    async def send_unframed(message: Any) -> None:
        nonlocal is_unframed
        if message["type"] == "http.response.start":
            is_unframed = all(name.lower() != b"content-length" for name, _ in message["headers"])
            if is_unframed:
                cycle.chunked_encoding = False
        elif is_unframed:
            # uvicorn compares what is sent with what was announced.
            cycle.expected_content_length = len(message["body"])
        await send(message)

    await application(scope, receive, send_unframed)


def encode_refusal(status: int, body: bytes) -> bytes:
    """Return a whole response after which the connection ends."""
    head = (
        f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
