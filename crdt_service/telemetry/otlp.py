"""Records spans with the OpenTelemetry SDK and sends them to a collector by OTLP over HTTP.

Imported only where a collector is configured: it costs 14 MiB of memory and 55 ms.
"""

import threading
from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace import Span as SdkSpan

from crdt_service.telemetry.context import TraceContext
from crdt_service.telemetry.trace import NO_ATTRIBUTES, Attribute, Kind, Span

# Raising it loses fewer spans at the end if the collector is slow, and has the process end later.
CLOSE_SECONDS_MAX = 2.0
_KINDS = {Kind.SERVER: SpanKind.SERVER, Kind.CLIENT: SpanKind.CLIENT, Kind.INTERNAL: SpanKind.INTERNAL}


class OtlpRecorder:
    """Starts spans, and sends those that ended in batches from a thread of its own; a full queue drops some.

    Args:
        resource: What is said of this process with all of its spans.
    """

    def __init__(self, resource: Mapping[str, Attribute]) -> None:
        self._provider = TracerProvider(resource=Resource.create(dict(resource)), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("jarvis")

    def start(
        self, name: str, parent: TraceContext | None, attributes: Mapping[str, Attribute] = NO_ATTRIBUTES
    ) -> Span:
        """Start a span that serves a request; the sampler decides unless the parent has."""
        return _start(self._tracer, name, Kind.SERVER, parent, attributes)

    def close(self) -> None:
        """Send what waits; give up after 2 s."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS_MAX)


class _Span:
    def __init__(self, tracer: Tracer, span: SdkSpan, state: str) -> None:
        self._tracer = tracer
        self._span = span
        context = span.get_span_context()
        self.context = TraceContext(
            f"{context.trace_id:032x}", f"{context.span_id:016x}", bool(context.trace_flags.sampled), state
        )

    def start(
        self,
        name: str,
        kind: Kind,
        attributes: Mapping[str, Attribute] = NO_ATTRIBUTES,
        links: Sequence[TraceContext] = (),
    ) -> Span:
        return _start(self._tracer, name, kind, self.context, attributes, links=links)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def set(self, name: str, value: Attribute) -> None:
        self._span.set_attribute(name, value)

    def end(self, error: str = "") -> None:
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


def _start(
    tracer: Tracer,
    name: str,
    kind: Kind,
    parent: TraceContext | None,
    attributes: Mapping[str, Attribute],
    *,
    links: Sequence[TraceContext] = (),
) -> Span:
    # A context of ours alone: the SDK's own would be inherited by every task that is made meanwhile.
    context = Context()
    if parent is not None:
        context = set_span_in_context(NonRecordingSpan(_to_sdk(parent)), context)
    span = tracer.start_span(name, context, _KINDS[kind], attributes, [Link(_to_sdk(link)) for link in links])
    return _Span(tracer, span, parent.state if parent is not None else "")


def _to_sdk(context: TraceContext) -> SpanContext:
    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(context.is_sampled)),
        trace_state=TraceState.from_header([context.state]) if context.state else None,
    )
