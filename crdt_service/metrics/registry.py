"""The catalogue's metrics of one process, as Prometheus knows them."""

import itertools
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from crdt_service.metrics.catalogue import CATALOGUE, Exporter, Kind, Metric
from crdt_service.metrics.container import ContainerCollector

# Times of creation would make half of all series and nothing asks for them.
disable_created_metrics()  # type: ignore[no-untyped-call]
T = TypeVar("T", bound=MetricWrapperBase)


class Registry:
    """Every metric of an exporter; series whose labels are listed exist from the start, at 0.

    Args:
        exporter: Who exports them.
    """

    def __init__(self, exporter: Exporter) -> None:
        self._registry = CollectorRegistry()
        self._metrics = {metric.name: self._make(metric) for metric in CATALOGUE if exporter in metric.exporters}
        self._registry.register(ContainerCollector())
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def counter(self, name: str, *labels: str) -> Counter:
        """Return a counter; keep it, because to look up a series costs more than to count.

        Raises:
            KeyError: The exporter has none of this name.
        """
        return self._find(Counter, name, labels)

    def gauge(self, name: str, *labels: str) -> Gauge:
        """Return a gauge, as `counter` does."""
        return self._find(Gauge, name, labels)

    def histogram(self, name: str, *labels: str) -> Histogram:
        """Return a histogram, as `counter` does."""
        return self._find(Histogram, name, labels)

    def render(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self._registry)

    def _find(self, kind: type[T], name: str, labels: tuple[str, ...]) -> T:
        metric = self._metrics[name]
        found = metric.labels(*labels) if labels else metric
        if not isinstance(found, kind):
            raise KeyError(name)
        return found

    def _make(self, metric: Metric) -> MetricWrapperBase:
        names = [label.name for label in metric.labels]
        made: MetricWrapperBase
        if metric.kind is Kind.HISTOGRAM:
            made = Histogram(metric.name, metric.sentence, names, buckets=metric.buckets, registry=self._registry)
        elif metric.kind is Kind.GAUGE:
            made = Gauge(metric.name, metric.sentence, names, registry=self._registry)
        else:
            made = Counter(metric.name, metric.sentence, names, registry=self._registry)
        if names:
            for values in itertools.product(*(label.values for label in metric.labels)):
                made.labels(*values)
        return made
