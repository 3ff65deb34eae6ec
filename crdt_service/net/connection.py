"""One end of a framed connection, for either side: bytes of a socket to frames, and frames to few, large writes.

First a handshake reads frames one by one; then `start` names who gets each as it arrives. What it must not know: what
the frames mean.
"""

import asyncio
import contextlib
import socket
from typing import Protocol, cast

from crdt_service.kernel.error import ServiceError
from crdt_service.net.credentials import dns_names
from crdt_service.wire.frame import FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX, FrameBuffer, encode_frame

# Raising it holds more for a slow reader before it is asked no more; lowering it wakes writers more often.
WRITE_BYTES_MAX = 256 << 10
# Read at most so much at once. Our own buffer, because TLS would allocate 256 KiB for each read otherwise.
_READ_BYTES = 64 << 10
# Frames of one turn of the loop are written together, unless they are this many bytes already.
_FLUSH_BYTES = 64 << 10
# How long an end that closes waits for the other to take what was written, and for its farewell in TLS.
_FAREWELL_SECONDS_MAX = 2.0
# The kernel ends a connection once what was sent is not acknowledged for so long, or not let in. Raising it bears
# longer cuts without a new connection; lowering it finds sooner that packets pass again.
_UNACKNOWLEDGED_MS_MAX = 1000


class Receiver(Protocol):
    """Who gets the frames of a connection once it is authenticated. Nothing here may block or take long."""

    def hear(self) -> None:
        """Note that bytes came; `receive` follows once they make a frame."""

    def receive(self, body: bytes | bytearray) -> None:
        """Take a frame.

        Raises:
            ServiceError: It breaks the protocol; the connection ends.
        """

    def set_writable(self, *, is_writable: bool) -> None:
        """Hear that the other end reads too slowly, or that it has caught up."""

    def end(self) -> None:
        """Hear that the connection is gone."""


class Connection(asyncio.BufferedProtocol):
    """A connection from its first byte to its end.

    Attributes:
        names: DNS names in the other end's certificate; None without TLS.
        lost: Set once the connection is gone.
    """

    def __init__(self) -> None:
        self.names: frozenset[str] | None = None
        self.lost = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._frames = FrameBuffer(HANDSHAKE_BYTES_MAX)
        self._receiver: Receiver | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._is_reading = True
        self._is_writable = True
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._will_flush = False
        self._abort: asyncio.TimerHandle | None = None

    async def read_frame(self) -> bytes | bytearray:
        """Return the next frame of the handshake, at most `HANDSHAKE_BYTES_MAX` long.

        Raises:
            MalformedError: It is longer.
            EOFError: The connection is gone.
        """
        while (body := self._frames.next_frame()) is None:
            if self.lost.is_set():
                raise EOFError
            self._arrival = self._loop.create_future()
            self.resume_reading()
            await self._arrival
        return body

    def start(self, receiver: Receiver) -> None:
        """Pass all further frames to `receiver`."""
        self._receiver = receiver
        self._frames.bytes_max = FRAME_BYTES_MAX
        if not self._is_writable:
            receiver.set_writable(is_writable=False)
        self.resume_reading()
        self._deliver(receiver)  # What came with the end of the handshake.
        if self.lost.is_set():
            receiver.end()

    async def wait_lost(self) -> None:
        """Return when the connection is gone.

        Raises:
            ServiceError: It broke the protocol.
        """
        await self.lost.wait()
        if isinstance(self._error, ServiceError):
            raise self._error

    def send(self, body: bytes) -> None:
        """Write a frame, together with the others of this turn of the loop; nothing once the connection is gone.

        Raises:
            MalformedError: It is larger than a frame may be.
        """
        frame = encode_frame(body)
        self._out.append(frame)
        self._out_bytes += len(frame)
        if self._out_bytes >= _FLUSH_BYTES:
            self._flush()
        elif not self._will_flush:
            self._will_flush = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Write what was sent, then end; soon, even if the other end does not take it."""
        self._flush()
        self._transport.close()
        if self._abort is None and not self.lost.is_set():
            self._abort = self._loop.call_later(_FAREWELL_SECONDS_MAX, self._transport.abort)

    def pause_reading(self) -> None:
        """Let what the other end sends wait."""
        if self._is_reading:
            self._is_reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on with what waits."""
        if self._is_reading or self._transport.is_closing():
            return
        self._is_reading = True
        self._transport.resume_reading()
        if self._receiver is not None:
            self._deliver(self._receiver)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, after TLS if there is any; asyncio calls this."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(WRITE_BYTES_MAX)
        if (end := transport.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):  # It is gone already.
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS_MAX)
        if transport.get_extra_info("sslcontext") is not None:
            self.names = dns_names(transport.get_extra_info("peercert"))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to put what arrives; asyncio calls this."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Cut what arrived into frames; asyncio calls this."""
        self._frames.feed(bytes(self._buffer[:nbytes]))
        if self._receiver is not None:
            self._receiver.hear()
            self._deliver(self._receiver)
        else:
            if len(self._frames) > HANDSHAKE_BYTES_MAX:
                self.pause_reading()
            self._wake()

    def pause_writing(self) -> None:
        """Tell who sends; asyncio calls this."""
        self._is_writable = False
        if self._receiver is not None:
            self._receiver.set_writable(is_writable=False)

    def resume_writing(self) -> None:
        """Tell who sends; asyncio calls this."""
        self._is_writable = True
        if self._receiver is not None:
            self._receiver.set_writable(is_writable=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all who wait; asyncio calls this."""
        self._error = self._error or exc
        self._is_reading = False
        if self._abort is not None:
            self._abort.cancel()
        self.lost.set()
        self._wake()
        if self._receiver is not None:
            self._receiver.end()

    def _deliver(self, receiver: Receiver) -> None:
        will_flush, self._will_flush = self._will_flush, True  # What is sent meanwhile is written at the end.
        try:
            while self._is_reading and (body := self._frames.next_frame()) is not None:
                receiver.receive(body)
        except ServiceError as error:
            self._error = error
            self.close()
        finally:
            self._will_flush = will_flush
            if not will_flush:
                self._flush()

    def _flush(self) -> None:
        self._will_flush = False
        out = self._out
        if out:
            if not self._transport.is_closing():
                self._transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
            self._out_bytes = 0

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
