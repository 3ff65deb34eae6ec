"""The backend's HTTP API as one ASGI callable: find the route, pass the gates, answer, report."""

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from crdt_service.api.admission import Admission, BodyBudget
from crdt_service.api.asgi import Receive, Scope, Send, read_body, send_response, send_stream
from crdt_service.api.call import Call, Response
from crdt_service.api.errors import RETRIED, encode_error, status_of
from crdt_service.api.route import Access, MethodError, Route, Table
from crdt_service.kernel.error import ServiceError
from crdt_service.telemetry.request import Requests

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_INTERNAL = ServiceError("internal", "the backend has a fault", "retry; report the request's id if it stays")
# The only ones that change nothing of a body, or that the server undoes.
_CODINGS = {b"content-encoding": b"identity", b"transfer-encoding": b"chunked"}
_log = logging.getLogger(__name__)


class Gate(Protocol):
    """What a request passes before it is answered: who asks, how often, in what shape."""

    async def admit(self, call: Call) -> None:
        """Let the request through; may add headers to whatever is answered.

        Raises:
            ServiceError: It is refused, and nothing is done.
        """


class Observer(Protocol):
    """Who learns of requests."""

    def on_request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is the path of its route, or `other`."""


class Application:
    """Serves a table of routes.

    Args:
        routes: What is served.
        observer: Learns of every answer.
        gates: What each request passes, in this order, before its parameters and body are read.
        admission: Bounds how many requests are at work; pages that are public pass by.
        draining: Once set, every answer closes its connection, so that clients go elsewhere.
        requests: Records each request's span and its line in the log.

    Attributes:
        table: What is served; plugins add to it.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        observer: Observer,
        gates: Sequence[Gate] = (),
        *,
        admission: Admission | None = None,
        draining: asyncio.Event | None = None,
        requests: Requests | None = None,
    ) -> None:
        self._draining = draining or asyncio.Event()
        self._admission = admission or Admission()
        self._bodies = BodyBudget()
        self._requests = requests or Requests(None)
        self.table = Table(routes)
        self._observer = observer
        self._gates = gates
        self._boot = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and report it."""
        started = time.perf_counter()
        request_id = self._name(scope)
        served = self._requests.begin(scope["method"], request_id, scope["headers"])
        error_code = ""
        call: Call | None = None
        path = "other"
        try:
            route, rest = self.table.find(scope["method"], scope["raw_path"])
            path = route.path
            call = Call(route, rest, request_id, scope)
            response = await self._answer(call, receive)
        except ServiceError as error:
            error_code = error.code
            response = _refuse(error, request_id)
        except Exception:
            error_code = _INTERNAL.code
            _log.exception("%s %s failed", scope["method"], path)
            response = _refuse(_INTERNAL, request_id)
        if self._draining.is_set():
            response.headers.append((b"connection", b"close"))
        headers = [(b"x-request-id", request_id.encode()), *response.headers, *(call.headers if call else ())]
        if response.stream is None:
            await send_response(send, response.status, response.body, response.content_type, headers)
        seconds = time.perf_counter() - started
        self._observer.on_request(path, response.status, seconds)
        served.end(path, response.status, seconds, error_code)
        if response.stream is not None:
            await send_stream(
                receive, send, response.status, response.stream, content_type=response.content_type, headers=headers
            )

    async def _answer(self, call: Call, receive: Receive) -> Response:
        route = call.route
        for gate in self._gates:
            await gate.admit(call)
        call.values = route.reader.read(call.scope["query_string"], call.scope["headers"])
        if route.access is Access.PUBLIC:
            return await route.answer(call)
        # Who sends slowly holds no permit meanwhile.
        taken = 0

        def take(size_bytes: int) -> None:
            nonlocal taken
            self._bodies.take(size_bytes)
            taken += size_bytes

        try:
            if route.body is not None:
                _check_coding(call)
                call.body = await read_body(receive, route.body_bytes_max, take)
            await self._admission.enter()
            try:
                return await route.answer(call)
            finally:
                self._admission.leave()
        finally:
            self._bodies.give(taken)

    def _name(self, scope: Scope) -> str:
        """Return the id that the client gave if it is one, else a new one."""
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                return str(value, "ascii")
        return f"{self._boot}-{next(self._numbers):x}"


def _check_coding(call: Call) -> None:
    for name, value in call.scope["headers"]:
        known = _CODINGS.get(name)
        if known is not None and value.lower() != known:
            raise ServiceError("unsupported_encoding", "the body is in a coding that is not read", "send it as it is")


def _refuse(error: ServiceError, request_id: str) -> Response:
    headers = []
    if isinstance(error, MethodError):
        headers.append((b"allow", error.allowed.encode()))
    if error.code in RETRIED:
        headers.append((b"retry-after", b"1"))
    return Response(status_of(error), encode_error(error, request_id), headers=headers)
