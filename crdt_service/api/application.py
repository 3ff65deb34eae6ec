"""The backend's HTTP API as one ASGI callable: find the route, pass the gates, answer, report."""

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from crdt_service.access.room import Room
from crdt_service.api.admission import Admission
from crdt_service.api.asgi import Receive, Scope, Send, read_address, read_body, send_response, send_stream
from crdt_service.api.call import Call, Response
from crdt_service.api.errors import RETRIED, encode_error, status_of
from crdt_service.api.pace import Pace
from crdt_service.api.route import Access, MethodError, Route, Table
from crdt_service.kernel.error import ServiceError
from crdt_service.telemetry.request import Requests

# Raising it lets bodies that trickle in hold more memory.
BODY_BYTES_MAX = 64 << 20
# Of answers that are made or wait for their clients. Raising it holds more for clients that read slowly.
ANSWER_BYTES_MAX = 96 << 20
# What is refused before anything is done for it, such as requests without a good API key or for no page.
REFUSALS_PER_SECOND = 100
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

    def on_no_room(self, room: str) -> None:
        """A caller got nothing of what all share, which is all taken or its own share is."""


class Application:
    """Serves a table of routes.

    Args:
        routes: What is served.
        observer: Learns of every answer.
        gates: What each request passes, in this order, before its parameters and body are read.
        admission: Bounds how many requests are at work; pages that are public pass by, at a pace of their own.
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
        self._admission = admission or Admission(on_refused=observer.on_no_room)
        self._bodies = Room("bodies", BODY_BYTES_MAX, observer.on_no_room)
        self._answers = Room("answers", ANSWER_BYTES_MAX, observer.on_no_room)
        self._paces: dict[str, Pace] = {}
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
        served = self._requests.begin(scope["method"], request_id, scope["headers"], read_address(scope))
        error_code = ""
        call: Call | None = None
        held: _Held | None = None
        path = "other"
        try:
            route, rest = self.table.find(scope["method"], scope["raw_path"])
            path = route.path
            call = Call(route, rest, request_id, scope)
            if route.access is Access.PUBLIC:
                await self._pace(path, route.answers_per_second).wait_turn(read_address(scope))
            for gate in self._gates:
                await gate.admit(call)
            held = _Held(self._answers, call.caller)
            call.hold = held.take
            response = await self._answer(call, receive)
            if response.stream is None and route.access is not Access.PUBLIC:
                held.settle(len(response.body), must_fit=route.access is Access.READ)
        except ServiceError as error:
            error_code = error.code
            response = _refuse(error, request_id)
            if held is None:
                response.headers += await self._slow_down(scope)
        except Exception:
            error_code = _INTERNAL.code
            _log.exception("%s %s failed", scope["method"], path)
            response = _refuse(_INTERNAL, request_id)
        if self._draining.is_set():
            response.headers.append((b"connection", b"close"))
        headers = [(b"x-request-id", request_id.encode()), *response.headers, *(call.headers if call else ())]
        try:
            if response.stream is None:
                await send_response(send, response.status, response.body, response.content_type, headers)
        finally:
            if held is not None:
                held.release()
        seconds = time.perf_counter() - started
        self._observer.on_request(path, response.status, seconds)
        served.end(path, response.status, seconds, error_code)
        if response.stream is not None:
            await send_stream(
                receive, send, response.status, response.stream, content_type=response.content_type, headers=headers
            )

    async def _answer(self, call: Call, receive: Receive) -> Response:
        route, caller = call.route, call.caller
        call.values = route.reader.read(call.scope["query_string"], call.scope["headers"])
        if route.access is Access.PUBLIC:
            return await route.answer(call)
        # Who sends slowly holds no permit meanwhile.
        taken = 0

        def take(size_bytes: int) -> None:
            nonlocal taken
            self._bodies.take(caller, size_bytes)
            taken += size_bytes

        try:
            if route.body is not None:
                _check_coding(call)
                call.body = await read_body(receive, route.body_bytes_max, take)
            await self._admission.enter(caller)
            try:
                return await route.answer(call)
            finally:
                self._admission.leave(caller)
        finally:
            self._bodies.give(caller, taken)

    async def _slow_down(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Hold a refusal back for its turn; return headers that end the connection if too many wait for theirs."""
        try:
            await self._pace("refusals", REFUSALS_PER_SECOND).wait_turn(read_address(scope))
        except ServiceError:
            return [(b"connection", b"close")]
        return []

    def _pace(self, name: str, per_second: int) -> Pace:
        pace = self._paces.get(name)
        if pace is None:
            pace = self._paces[name] = Pace(per_second, self._observer.on_no_room)
        return pace

    def _name(self, scope: Scope) -> str:
        """Return the id that the client gave if it is one, else a new one."""
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                return str(value, "ascii")
        return f"{self._boot}-{next(self._numbers):x}"


class _Held:
    """What one answer takes of the room for answers, from its first value until it is sent."""

    __slots__ = ("_bytes", "_caller", "_room")

    def __init__(self, room: Room, caller: str) -> None:
        self._room = room
        self._caller = caller
        self._bytes = 0

    def take(self, size_bytes: int) -> None:
        """Take more.

        Raises:
            ServiceError: The caller has not so much left.
        """
        self._room.take(self._caller, size_bytes)
        self._bytes += size_bytes

    def settle(self, size_bytes: int, *, must_fit: bool) -> None:
        """Hold as much as the whole answer has; what was done is told even if there is no room for it.

        Raises:
            ServiceError: It must fit and does not.
        """
        more = size_bytes - self._bytes
        if more <= 0:
            self._room.give(self._caller, -more)
        elif must_fit:
            self._room.take(self._caller, more)
        else:
            self._room.force(self._caller, more)
        self._bytes = size_bytes

    def release(self) -> None:
        """Give all of it back."""
        self._room.give(self._caller, self._bytes)
        self._bytes = 0


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
