"""The few bare-ASGI pieces that the backend's API and the nodes' probes share."""

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from crdt_service.kernel.error import ServiceError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

JSON = b"application/json"
TEXT = b"text/plain; version=0.0.4; charset=utf-8"
# What is given to a connection at once. Raising it holds more for each client that reads slowly, beside the body.
PIECE_BYTES = 64 << 10
# What a client of IPv6 chooses at will.
_INTERFACE_BITS = 64
_encoder = msgspec.json.Encoder()
_log = logging.getLogger(__name__)


class Stream(Protocol):
    """A body that is made while it is sent."""

    async def __anext__(self) -> bytes:
        """Return the next piece.

        Raises:
            StopAsyncIteration: There is none any more.
        """

    async def aclose(self) -> None:
        """Give up what it holds; called once, in any case."""


async def read_body(receive: Receive, bytes_max: int, take: Callable[[int], None]) -> bytes:
    """Return the request's body; `take` hears of each part's size before it is kept.

    Raises:
        ServiceError: It is larger than `bytes_max`, `take` refused, or the client left.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ServiceError("invalid_body", "the body ended early", "send the whole body")
        part = message.get("body", b"")
        if len(body) + len(part) > bytes_max:
            raise ServiceError(
                "body_too_large", f"the body is larger than {bytes_max} bytes", "send less in one request"
            )
        take(len(part))
        body += part
        if not message.get("more_body", False):
            return bytes(body)


async def send_response(
    send: Send, status: int, body: bytes, content_type: bytes = JSON, headers: Headers = ()
) -> None:
    """Send a whole response, a large one in pieces, each once the client has taken most of those before."""
    # What is not modified has neither: they would be of what is not sent (RFC 9110, 15.4.5).
    content = [] if status == 304 else [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    start = [*content, *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    sent_bytes = 0
    while len(body) - sent_bytes > PIECE_BYTES:
        piece = body[sent_bytes : sent_bytes + PIECE_BYTES]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        sent_bytes += PIECE_BYTES
    await send({"type": "http.response.body", "body": body[sent_bytes:]})


async def send_stream(
    receive: Receive, send: Send, status: int, stream: Stream, *, content_type: bytes, headers: Headers = ()
) -> None:
    """Send a response piece by piece, each once the client has taken most of those before, until it ends or leaves."""
    sending: asyncio.Task[None] | None = None
    try:
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type), *headers]}
        )
        sending = asyncio.create_task(_send_pieces(send, stream))
        while (await receive())["type"] != "http.disconnect":  # The answer's end is one, too.
            pass
    finally:
        if sending is not None:
            sending.cancel()
            await asyncio.wait([sending])
        await stream.aclose()


async def _send_pieces(send: Send, stream: Stream) -> None:
    try:
        while True:
            await send({"type": "http.response.body", "body": await anext(stream), "more_body": True})
    except StopAsyncIteration:
        pass
    except Exception:
        _log.exception("a stream failed")
    await send({"type": "http.response.body", "body": b""})


def encode_json(value: object) -> bytes:
    """Return JSON."""
    return _encoder.encode(value)


def read_address(scope: Scope) -> str:
    """Return the client's address: of IPv6 the network of 64 bits, empty if there is none."""
    client = scope.get("client")
    return "" if client is None else group_address(client[0])


def group_address(host: str) -> str:
    """Return what of an address a client does not choose at will: of IPv6 the network of 64 bits."""
    return _find_network(host) if ":" in host else host


@lru_cache(1024)
def _find_network(host: str) -> str:
    address = ipaddress.IPv6Address(host)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> _INTERFACE_BITS << _INTERFACE_BITS))
