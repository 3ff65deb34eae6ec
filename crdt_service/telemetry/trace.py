"""Spans, as arguments: what is traced knows no OpenTelemetry, and without a recorder nothing is traced."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from enum import Enum
from typing import Protocol

from crdt_service.kernel.error import ServiceError
from crdt_service.telemetry.context import TraceContext, request

# Of one commit. Raising it makes spans of large batches larger.
LINKS_MAX = 16
Attribute = str | int | float | bool
NO_ATTRIBUTES: Mapping[str, Attribute] = {}


class Kind(Enum):
    """Which side of a request a span is, or neither."""

    SERVER = "server"
    CLIENT = "client"
    INTERNAL = "internal"


class Span(Protocol):
    """Something under way; ended once."""

    @property
    def context(self) -> TraceContext:
        """What its children name as their parent."""
        ...

    def start(
        self,
        name: str,
        kind: Kind,
        attributes: Mapping[str, Attribute] = NO_ATTRIBUTES,
        links: Sequence[TraceContext] = (),
    ) -> "Span":
        """Start a child; `links` names other spans that it works for."""
        ...

    def rename(self, name: str) -> None:
        """Give it a better name, now that more is known."""

    def set(self, name: str, value: Attribute) -> None:
        """Set an attribute."""

    def end(self, error: str = "") -> None:
        """End it; with a code if it failed."""


class Recorder(Protocol):
    """Starts the first span of a request in this process."""

    def start(
        self, name: str, parent: TraceContext | None, attributes: Mapping[str, Attribute] = NO_ATTRIBUTES
    ) -> Span:
        """Start a span that serves a request of `parent`; whether it is sampled its context tells."""
        ...

    def close(self) -> None:
        """Send what waits, within a bounded time."""


# The sampled span that what runs now belongs to. Only requests have one, so all else costs one look here.
current: ContextVar[Span | None] = ContextVar("span", default=None)


def apart() -> Context:
    """Return a context for a task that outlives the request which happens to start it: it belongs to none."""
    context = copy_context()
    context.run(current.set, None)
    context.run(request.set, None)
    return context


@contextmanager
def child_span(name: str, attributes: Mapping[str, Attribute] = NO_ATTRIBUTES) -> Iterator[None]:
    """Record what is done inside as a child of the current span; nothing if there is none."""
    parent = current.get()
    if parent is None:
        yield
        return
    with _running(parent.start(name, Kind.INTERNAL, attributes)):
        yield


@contextmanager
def linked_span(name: str, parents: Sequence[Span], attributes: Mapping[str, Attribute]) -> Iterator[None]:
    """Record what is done inside for several spans: as a child of the first, with links to the others."""
    if not parents:
        yield
        return
    links = [parent.context for parent in parents[1 : 1 + LINKS_MAX]]
    with _running(parents[0].start(name, Kind.INTERNAL, attributes, links)):
        yield


@contextmanager
def _running(span: Span) -> Iterator[None]:
    token = current.set(span)
    try:
        yield
    except BaseException as error:
        span.end(error.code if isinstance(error, ServiceError) else type(error).__name__)
        raise
    else:
        span.end()
    finally:
        current.reset(token)
