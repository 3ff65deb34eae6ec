"""What a request of the API leaves behind: its span, and its line in the access log."""

import logging
import time
from collections.abc import Callable, Iterable

from crdt_service.access.buckets import Buckets
from crdt_service.access.limit import Limit
from crdt_service.telemetry.context import RequestContext, read_trace_headers, request
from crdt_service.telemetry.log import FIELDS
from crdt_service.telemetry.trace import Recorder, Span, current

# Of each second: so many answers below 500 and as many others have a line of their own, the rest is counted. Raising it
# costs about 10 µs of CPU time for each line.
LINES_PER_SECOND_MAX = 100
# Callers may say that their requests are to be traced: so many of each address, and of all together. Raising it lets
# whoever reaches the port cost more CPU time here and more room at the collector.
FORCED_BY_ADDRESS = Limit(requests_per_minute=3000, burst_limit=100)
FORCED = Limit(requests_per_minute=6000, burst_limit=200)
PROBES = frozenset({"/live", "/ready", "/health", "/metrics"})
_log = logging.getLogger("jarvis.access")


class Requests:
    """Begins what is recorded of each request.

    Args:
        recorder: Starts spans; None to record none.
        monotonic: A clock in seconds that never goes back.
    """

    def __init__(self, recorder: Recorder | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._recorder = recorder
        self._monotonic = monotonic
        self._forced = Buckets()
        self._lines = _Limit(monotonic)
        self._error_lines = _Limit(monotonic)

    def begin(
        self, method: str, request_id: str, headers: Iterable[tuple[bytes, bytes]], address: str = ""
    ) -> "ServedRequest":
        """Begin a request, in a task of its own: all that the task does belongs to the request from now on.

        Args:
            method: HTTP method.
            request_id: Names the request.
            headers: Names in lower case, and values.
            address: Of the client.
        """
        trace = read_trace_headers(headers)
        span = None
        if self._recorder is not None:
            if trace is not None and trace.is_sampled and not self._may_force(address):
                trace = trace._replace(is_sampled=False)
            span = self._recorder.start(method, trace, {"http.request.method": method, "jarvis.request_id": request_id})
            trace = span.context
            if not trace.is_sampled:
                span.end()
                span = None
            current.set(span)
        request.set(RequestContext(request_id, *trace[:2]) if trace is not None else RequestContext(request_id))
        return ServedRequest(self, span, method)

    def _may_force(self, address: str) -> bool:
        """Tell whether a client may have one more request traced."""
        now = self._monotonic()
        return (
            self._forced.take(address, FORCED_BY_ADDRESS, now).is_allowed
            and self._forced.take("all", FORCED, now).is_allowed
        )

    def write_line(self, method: str, route: str, status: int, seconds: float) -> None:
        """Write a line of the access log, unless there were too many in this second."""
        is_error = status >= 500
        level = logging.DEBUG if route in PROBES else logging.WARNING if is_error else logging.INFO
        if not _log.isEnabledFor(level):
            return
        limit = self._error_lines if is_error else self._lines
        if not limit.take():
            return
        fields: dict[str, object] = {"method": method, "route": route, "status": status, "seconds": round(seconds, 6)}
        if limit.left_out:
            fields["left_out"] = limit.left_out
            limit.left_out = 0
        _log.log(level, "request", extra={FIELDS: fields})


class ServedRequest:
    """A request under way.

    Attributes:
        span: What its work is recorded under; None if it is not sampled.
    """

    __slots__ = ("_method", "_requests", "span")

    def __init__(self, requests: Requests, span: Span | None, method: str) -> None:
        self.span = span
        self._requests = requests
        self._method = method

    def end(self, route: str, status: int, seconds: float, error: str = "") -> None:
        """Note the answer.

        Args:
            route: Path of the route, with braces for what differs; one of few.
            status: HTTP status.
            seconds: Time since the request arrived.
            error: Its code, if it failed.
        """
        if self.span is not None:
            self.span.rename(f"{self._method} {route}")
            self.span.set("http.route", route)
            self.span.set("http.response.status_code", status)
            if error:
                self.span.set("jarvis.error_code", error)
            current.set(None)  # A stream goes on without end.
            # A client's mistake is no failure of the server, says OpenTelemetry.
            self.span.end((error or str(status)) if status >= 500 else "")
        self._requests.write_line(self._method, route, status, seconds)


class _Limit:
    """So many a second; counts the others."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.left_out = 0
        self._monotonic = monotonic
        self._second = 0
        self._taken = 0

    def take(self) -> bool:
        second = int(self._monotonic())
        if second != self._second:
            self._second, self._taken = second, 0
        self._taken += 1
        self.left_out += self._taken > LINES_PER_SECOND_MAX
        return self._taken <= LINES_PER_SECOND_MAX
