"""The few bare-ASGI pieces that the backend's API and the nodes' probes share."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from crdt_service.kernel.error import ServiceError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_BYTES_MAX = 1 << 20
JSON = b"application/json"
TEXT = b"text/plain; version=0.0.4; charset=utf-8"
_encoder = msgspec.json.Encoder()

_STATUS = {
    "invalid_body": 400,
    "invalid_key": 400,
    "invalid_operation": 400,
    "unknown_type": 400,
    "limit_exceeded": 409,
    "type_conflict": 409,
    "not_found": 404,
    "method_not_allowed": 405,
    "body_too_large": 413,
}


def status_of(error: ServiceError) -> int:
    """Return the HTTP status of an error: what the client caused is 4xx, the rest is 503."""
    return _STATUS.get(error.code, 503)


async def read_body(receive: Receive) -> bytes:
    """Return the request's body.

    Raises:
        ServiceError: It is larger than 1 MiB, or the client left.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ServiceError("invalid_body", "the body ended early", "send the whole body")
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            raise ServiceError("body_too_large", "the body is larger than 1 MiB", "send a smaller value")
        if not message.get("more_body", False):
            return bytes(body)


async def send_response(send: Send, status: int, body: bytes, content_type: bytes = JSON) -> None:
    """Send a whole response."""
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def encode_json(value: object) -> bytes:
    """Return JSON."""
    return _encoder.encode(value)


def encode_error(error: ServiceError) -> bytes:
    """Return the one JSON shape of all errors."""
    return encode_json({"error": {"code": error.code, "message": error.message, "remedy": error.remedy}})
