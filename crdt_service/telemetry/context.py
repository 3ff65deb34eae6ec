"""Which trace and which request something belongs to: W3C Trace Context, and what every log line of a request says."""

import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import NamedTuple

STATE_CHARACTERS_MAX = 512
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE = re.compile(rb"[\x20-\x7e\t]*")
_SAMPLED = 1


class TraceContext(NamedTuple):
    """A span of a trace, here or in another process.

    Attributes:
        trace_id: 32 hexadecimal digits in lower case, not all 0.
        span_id: 16 of them.
        is_sampled: Whether the trace is recorded.
        state: The header `tracestate`, which others fill and we pass on.
    """

    trace_id: str
    span_id: str
    is_sampled: bool
    state: str = ""


class RequestContext(NamedTuple):
    """What log lines of a request carry; empty strings for what there is not."""

    request_id: str = ""
    trace_id: str = ""
    span_id: str = ""


request: ContextVar[RequestContext | None] = ContextVar("request", default=None)


def read_trace_headers(headers: Iterable[tuple[bytes, bytes]]) -> TraceContext | None:
    """Return the caller's span of the headers `traceparent` and `tracestate`; None if it names none.

    Args:
        headers: Names in lower case, and values.
    """
    parent, states = None, b""
    for name, value in headers:
        if name == b"traceparent":
            if parent is not None:
                return None
            parent = value.strip()
        elif name == b"tracestate":
            states = b",".join(filter(None, (states, value.strip())))
    return None if parent is None else parse_trace(parent, states)


def parse_trace(traceparent: bytes, tracestate: bytes = b"") -> TraceContext | None:
    """Return what a `traceparent` and a `tracestate` say; None if the first is malformed.

    A later version than ours may add to the end. A state that is malformed or too long is left out.
    """
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    is_known = version == b"00" and rest is None
    if not (is_known or version not in (b"00", b"ff")) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    is_state = len(tracestate) <= STATE_CHARACTERS_MAX and _STATE.fullmatch(tracestate) is not None
    return TraceContext(
        trace_id.decode(),
        span_id.decode(),
        bool(int(flags, 16) & _SAMPLED),
        tracestate.decode() if is_state else "",
    )


def pack_trace(context: TraceContext) -> bytes:
    """Return the 24 bytes that stand for a sampled context between our own processes."""
    return bytes.fromhex(context.trace_id + context.span_id)


def unpack_trace(data: bytes) -> TraceContext | None:
    """Return the context in 24 bytes; None if an id is 0."""
    trace_id, span_id = data[:16], data[16:]
    if not any(trace_id) or not any(span_id):
        return None
    return TraceContext(trace_id.hex(), span_id.hex(), is_sampled=True)
