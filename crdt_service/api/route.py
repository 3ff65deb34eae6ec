"""What the API serves: a table of routes, from which requests are dispatched, checked and documented."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import unquote

from crdt_service.api.call import Call, Response
from crdt_service.api.parameter import BROKEN_PERCENT, Parameter, Reader
from crdt_service.kernel.error import OperationError, ServiceError

BODY_BYTES_MAX = 1 << 20
# Of each public page; at about 0.15 ms each, all of them together cost less than a tenth of a core.
PUBLIC_PER_SECOND = 200


class Access(StrEnum):
    """What a caller must be allowed to do."""

    PUBLIC = "public"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True)
class Route:
    """One operation of the API.

    Attributes:
        method: GET also serves HEAD.
        path: As in OpenAPI; only the last segment may be a name in braces, which takes the rest of the path.
        name: A verb and what it acts on, as clients call it.
        access: Who may call it.
        sentence: What it does, for people.
        answer: Does it.
        parameters: Query parameters and headers.
        body: What the body must decode to as JSON; None for no body.
        body_bytes_max: How large the body may be.
        result: What is answered as JSON; None for what is no JSON.
        media: What is answered otherwise.
        statuses: With which it is answered.
        errors: Codes of errors that the operation itself may answer with, beside those that any may.
        answers_per_second: How many it gives at most, of a page that is public; who asks for more waits.
    """

    method: str
    path: str
    name: str
    access: Access
    sentence: str
    answer: Callable[[Call], Awaitable[Response]]
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    body_bytes_max: int = BODY_BYTES_MAX
    result: Any = None
    media: str = "application/json"
    statuses: tuple[int, ...] = (200,)
    errors: tuple[str, ...] = ()
    answers_per_second: int = PUBLIC_PER_SECOND
    reader: Reader = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reader", Reader(self.parameters))


class Table:
    """Routes by method and path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes: tuple[Route, ...] = ()
        self._exact: dict[str, dict[str, Route]] = {}
        self._prefixes: dict[str, dict[str, Route]] = {}
        self.add(routes)

    def add(self, routes: Iterable[Route]) -> None:
        """Serve more; a route takes the place of one with the same method and path."""
        added = {(route.method, route.path): route for route in (*self.routes, *routes)}
        self.routes = tuple(added.values())
        for route in self.routes:
            head, brace, _ = route.path.partition("{")
            methods = (self._prefixes if brace else self._exact).setdefault(head, {})
            methods[route.method] = route
            if route.method == "GET":
                methods["HEAD"] = route

    def find(self, method: str, raw_path: bytes) -> tuple[Route, str]:
        """Return the route of a request and what its path holds in place of the braces, percent-decoded.

        Raises:
            ServiceError: There is no such page, or it has other methods.
        """
        path = raw_path.partition(b"?")[0].decode("latin-1")
        methods = self._exact.get(path)
        rest = ""
        if methods is None:
            for prefix, candidates in self._prefixes.items():
                if path.startswith(prefix):
                    methods, rest = candidates, path[len(prefix) :]
                    break
            else:
                raise ServiceError("not_found", f"no page {path[:200]!r}", "/openapi.json lists all")
        route = methods.get(method)
        if route is None:
            allowed = ", ".join(sorted(methods))
            raise MethodError(method, allowed)
        return route, unquote_strictly(rest) if "%" in rest or not rest.isascii() else rest


class MethodError(ServiceError):
    """The page has other methods.

    Attributes:
        allowed: As the header `Allow` lists them.
    """

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__("method_not_allowed", f"the page has no {method[:16]}", f"use {allowed}")
        self.allowed = allowed


def unquote_strictly(raw: str) -> str:
    """Return percent-encoded UTF-8 decoded.

    Raises:
        OperationError: It is something else.
    """
    if BROKEN_PERCENT.search(raw.encode("latin-1")):
        raise OperationError("the path has a % that begins no byte", "encode % as %25", "invalid_key")
    try:
        return unquote(raw.encode("ascii").decode("ascii"), errors="strict")
    except UnicodeError as error:
        raise OperationError("the path is no percent-encoded UTF-8", "encode it as UTF-8", "invalid_key") from error
