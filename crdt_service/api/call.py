"""One request on its way through the API, and what is answered."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from crdt_service.access.principal import ANYONE, Principal
from crdt_service.api.asgi import JSON, Scope, Stream, encode_json, read_address
from crdt_service.kernel.error import ServiceError

if TYPE_CHECKING:
    from crdt_service.api.route import Route


@dataclass(slots=True)
class Call:
    """A request whose route is known.

    Attributes:
        route: What is asked for.
        rest: What the path holds in place of the route's braces, decoded; empty without.
        id: Names the request in logs, traces and errors.
        scope: The ASGI scope.
        body: All of it; set once it is read.
        values: Every parameter of the route by name; set once they are read.
        headers: What gates add to the answer, whatever it will be.
        principal: Who asks.
        is_admitted: Tells whether who asks would still be let in, for answers that take long.
        charge: Counts so many more requests against the caller's limit; raises ServiceError if it has not so many left.
        hold: Takes so many bytes for the answer of what the caller may hold; raises ServiceError if that is more.
    """

    route: "Route"
    rest: str
    id: str
    scope: Scope
    body: bytes = b""
    values: dict[str, Any] = field(default_factory=dict)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    principal: Principal = ANYONE
    is_admitted: Callable[[], bool] = lambda: True
    charge: Callable[[int], None] = lambda cost: None
    hold: Callable[[int], None] = lambda size_bytes: None

    @property
    def caller(self) -> str:
        """Who asks, where shares and limits are counted: the id of the API key, the address where keys are off."""
        return self.principal.id or read_address(self.scope)

    def header(self, name: bytes) -> bytes | None:
        """Return the first header of this name in lower case, None without."""
        return next((value for known, value in self.scope["headers"] if known == name), None)

    @property
    def idempotency_key(self) -> str:
        """What names the write, empty if nothing does: the caller and the key that it gave.

        Callers are told apart, as one's write must not pass for another's; by API key, of which a rotated one stays the
        same caller.
        """
        given = self.values["idempotency-key"]
        return f"{self.principal.lineage}\n{given}" if given else ""

    def decode_body(self, decoder: "msgspec.json.Decoder[Any]", example: str) -> Any:
        """Return the body as what the decoder makes of it.

        Raises:
            ServiceError: It is not of that shape; `example` is one that is.
        """
        try:
            return decoder.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ServiceError("invalid_body", f"body: {error}", f"send {example}") from error


@dataclass(slots=True)
class Response:
    """What is answered.

    Attributes:
        status: HTTP status.
        body: All of it.
        content_type: Of the body.
        headers: Beside content type and length.
        stream: Sent instead of `body`, piece by piece, until it ends or the client leaves.
    """

    status: int = 200
    body: bytes = b""
    content_type: bytes = JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    stream: Stream | None = None


def show(value: object, status: int = 200) -> Response:
    """Return an answer in JSON."""
    return Response(status, encode_json(value))
