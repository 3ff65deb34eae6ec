"""What the blocking and the asynchronous client have in common: how they connect, headers, and what failures mean."""

import functools
import math
import ssl
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from crdt_service.client.error import MISCONFIGURED, OUTCOME_UNKNOWN, UNREACHABLE, ApiError
from crdt_service.client.proxy import check_host, choose_proxy
from crdt_service.client.request import Request
from crdt_service.client.trust import trust_any

Token = Callable[[], str]
# The server closes a connection that was idle for 75 seconds, and load balancers many after 60; a write sent at that
# moment would have an unknown outcome.
LIMITS = httpx.Limits(keepalive_expiry=30.0)
# A feed shows every 15 seconds that it is alive.
_SILENCE_SECONDS_MAX = 45.0
# What httpx raises, and what of the system's own may pass through it.
FAILURES = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError)
# No connection was made, so no request was sent.
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.InvalidURL,
    httpx.LocalProtocolError,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


def read_token_file(path: Path) -> Token:
    """Return what reads the API key in a file for each request, so that a key may be replaced."""
    # Some editors begin a file with a mark of its encoding.
    return lambda: Path(path).read_text(encoding="utf-8-sig").strip()


@dataclass(frozen=True, slots=True)
class Access:
    """How a client reaches the service.

    Attributes:
        url: Where the API is.
        trust: Whose certificates are trusted.
        timeout: Of one attempt.
        feed_timeout: The same of a feed.
        proxy: What requests go by, None for straight.
    """

    url: httpx.URL
    trust: ssl.SSLContext
    timeout: httpx.Timeout
    feed_timeout: httpx.Timeout
    proxy: httpx.Proxy | None

    def options(self) -> dict[str, Any]:
        """Return what either of httpx's clients is made with."""
        return {
            "base_url": self.url,
            "verify": self.trust,
            "timeout": self.timeout,
            "limits": LIMITS,
            "proxy": self.proxy,
            "trust_env": False,  # The environment was read already.
        }


def plan_access(url: str, ca_file: Path | None, timeout_seconds: float, *, has_transport: bool) -> Access:
    """Return how a client reaches the service; with a transport of its own it has no proxy.

    Raises:
        ApiError: The URL, the file of authorities, the time-out, or a variable of the environment cannot be used.
    """
    place = _read_url(url)
    if not (math.isfinite(timeout_seconds) and 0 < timeout_seconds <= threading.TIMEOUT_MAX):
        raise ApiError(MISCONFIGURED, f"timeout_seconds is {timeout_seconds}", "give a number of seconds above 0")
    try:
        trust = choose_trust(ca_file)
    except (OSError, ValueError, TypeError) as error:
        raise ApiError(
            MISCONFIGURED,
            f"trusted authorities cannot be loaded: {error}",
            "check ca_file, which has to be a PEM file, and the variable SSLKEYLOGFILE",
        ) from error
    return Access(
        place,
        trust,
        httpx.Timeout(timeout_seconds),
        httpx.Timeout(timeout_seconds, read=_SILENCE_SECONDS_MAX),
        None if has_transport else choose_proxy(place),
    )


def _read_url(url: object) -> httpx.URL:
    remedy = "give it as https://jarvis.example or http://localhost:8000"
    if not isinstance(url, str | httpx.URL):
        raise ApiError(MISCONFIGURED, f"the URL is {type(url).__name__}, not text", remedy)
    try:
        place = httpx.URL(url)
        if place.scheme not in ("http", "https"):
            raise ValueError("its scheme is neither http nor https")
        if place.port is not None and not 0 < place.port < 1 << 16:
            raise ValueError("its port is not from 1 to 65535")
        if place.query or place.fragment:
            raise ValueError("it has a query or a fragment")
        check_host(place)
    except (httpx.InvalidURL, ValueError) as error:
        raise ApiError(MISCONFIGURED, f"the URL cannot be used: {error}", remedy) from None
    return place


def choose_trust(ca_file: Path | None) -> ssl.SSLContext:
    """Return whose certificates are trusted: those of the authorities in a PEM file, or that the system trusts."""
    return _trust_system() if ca_file is None else trust_any(ssl.create_default_context(cafile=ca_file))


@functools.cache
def _trust_system() -> ssl.SSLContext:
    """Making one takes longer than a hundred requests."""
    return ssl.create_default_context()


def new_request_id() -> str:
    """Return a fresh id of a call."""
    return uuid.uuid4().hex


def make_headers(request: Request[Any], request_id: str, token: Token | None) -> dict[str, str]:
    """Return all headers of a request.

    Raises:
        ApiError: There is no API key, or it is none that a header can carry.
    """
    headers = {"x-request-id": request_id, "accept": "application/json", **request.headers}
    if request.body is not None:
        headers["content-type"] = "application/json"
    if token is not None:
        headers["authorization"] = f"Bearer {_read_token(token)}"
    return headers


def _read_token(token: Token) -> str:
    try:
        text = token()
    except (OSError, ValueError) as error:
        raise ApiError(
            MISCONFIGURED, f"the API key cannot be read: {error}", "check the file; nothing was sent"
        ) from error
    # Never shown, because it is a secret.
    if not (isinstance(text, str) and text and all("!" <= character <= "~" for character in text)):
        remedy = "put the key alone into the file, on one line; nothing was sent"
        raise ApiError(MISCONFIGURED, "the API key is empty, or more than printable ASCII without spaces", remedy)
    return text


def explain_failure(failure: Exception, request: Request[Any], request_id: str) -> ApiError:
    """Return what it means that a request has no answer."""
    said = str(failure) or type(failure).__name__
    if request.is_safe or isinstance(failure, _NOT_SENT):
        return ApiError(UNREACHABLE, f"no answer: {said}", "check the address and the network", request_id=request_id)
    return ApiError(
        OUTCOME_UNKNOWN, f"the answer is lost: {said}", "read the key before writing again", request_id=request_id
    )
