"""What the blocking and the asynchronous client have in common: headers, TLS, and what failures of the network mean."""

import functools
import ssl
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from crdt_service.client.error import OUTCOME_UNKNOWN, UNREACHABLE, ApiError
from crdt_service.client.request import Request
from crdt_service.client.trust import trust_any

Token = Callable[[], str]
# The server closes a connection that was idle for 75 seconds, and load balancers many after 60; a write sent at that
# moment would have an unknown outcome.
LIMITS = httpx.Limits(keepalive_expiry=30.0)
# A feed shows every 15 seconds that it is alive.
_SILENCE_SECONDS_MAX = 45.0
# No connection was made, so no request was sent.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


def read_token_file(path: Path) -> Token:
    """Return what reads the API key in a file, each time anew, so that a key may be replaced."""
    return lambda: path.read_text(encoding="utf-8").strip()


def choose_trust(ca_file: Path | None) -> ssl.SSLContext:
    """Return whose certificates are trusted: those of the authorities in a PEM file, or that the system trusts."""
    return _trust_system() if ca_file is None else trust_any(ssl.create_default_context(cafile=ca_file))


@functools.cache
def _trust_system() -> ssl.SSLContext:
    """Making one takes longer than a hundred requests."""
    return ssl.create_default_context()


def limit_feed(timeout_seconds: float) -> httpx.Timeout:
    """Return the timeouts of a feed, which may be silent for longer than other answers."""
    return httpx.Timeout(timeout_seconds, read=_SILENCE_SECONDS_MAX)


def new_request_id() -> str:
    """Return a fresh id of a call."""
    return uuid.uuid4().hex


def make_headers(request: Request[Any], request_id: str, token: Token | None) -> dict[str, str]:
    """Return all headers of a request."""
    headers = {"x-request-id": request_id, "accept": "application/json", **request.headers}
    if request.body is not None:
        headers["content-type"] = "application/json"
    if token is not None:
        headers["authorization"] = f"Bearer {token()}"
    return headers


def explain_failure(failure: httpx.HTTPError, request: Request[Any], request_id: str) -> ApiError:
    """Return what it means that a request has no answer."""
    said = str(failure) or type(failure).__name__
    if request.is_safe or isinstance(failure, _NOT_SENT):
        return ApiError(UNREACHABLE, f"no answer: {said}", "check the address and the network", request_id=request_id)
    return ApiError(
        OUTCOME_UNKNOWN, f"the answer is lost: {said}", "read the key before writing again", request_id=request_id
    )
