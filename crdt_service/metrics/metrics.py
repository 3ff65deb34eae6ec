"""Every metric that the service exports, in Prometheus base units."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LATENCY_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MEMBER_STATES = ("connecting", "reachable", "unreachable", "refused")


class Metrics:
    """The metrics of one process; each node and backend has its own registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._members = Gauge("jarvis_members", "Members by state.", ["state"], registry=self._registry)

    def set_members(self, states: list[str]) -> None:
        """Set how many members are in each state."""
        for state in _MEMBER_STATES:
            self._members.labels(state).set(states.count(state))

    def render(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self._registry)


class NodeMetrics(Metrics):
    """Where a node's loops report; an Observer."""

    def __init__(self) -> None:
        super().__init__()
        registry = self._registry
        self._sync = Histogram(
            "jarvis_crdt_sync_latency_seconds",
            "From a write's commit at its origin to its apply here.",
            buckets=_LATENCY_SECONDS,
            registry=registry,
        )
        self._repair = Counter("jarvis_antientropy_bytes", "Bytes moved by digest exchanges.", registry=registry)
        self._refused = Counter("jarvis_deltas_refused", "Deltas from peers that broke a rule.", registry=registry)
        self._absurd = Counter("jarvis_clock_refused", "Deltas with stamps too far in the future.", registry=registry)
        self._dropped = Counter("jarvis_pushes_dropped", "Deltas left to the next repair.", registry=registry)
        self._errors = Counter("jarvis_database_errors", "Times the disk refused or failed.", registry=registry)
        self._storage = Gauge("jarvis_storage_bytes", "Bytes in the data directory.", ["state"], registry=registry)

    def on_synced(self, latency_seconds: float) -> None:
        """A peer's deltas were applied so long after their commit."""
        self._sync.observe(latency_seconds)

    def on_repaired(self, sent_bytes: int) -> None:
        """A digest exchange moved these bytes."""
        self._repair.inc(sent_bytes)

    def on_refused(self, count: int) -> None:
        """Deltas from a peer were refused."""
        self._refused.inc(count)

    def on_absurd_stamps(self, count: int) -> None:
        """Deltas from a peer had stamps too far in the future."""
        self._absurd.inc(count)

    def on_dropped(self, count: int) -> None:
        """Deltas did not fit a peer's outbox."""
        self._dropped.inc(count)

    def on_disk_error(self) -> None:
        """The disk refused or failed."""
        self._errors.inc()

    def on_storage(self, log_bytes: int) -> None:
        """The log has this size."""
        self._storage.labels("log").set(log_bytes)

    def set_storage(self, snapshot_bytes: int, free_bytes: int) -> None:
        """Set the size of the newest snapshot and the free space beside it."""
        self._storage.labels("snapshot").set(snapshot_bytes)
        self._storage.labels("free").set(free_bytes)


class BackendMetrics(Metrics):
    """Where the API reports."""

    def __init__(self) -> None:
        super().__init__()
        self._requests = Counter(
            "jarvis_requests", "Requests by route and status.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "jarvis_request_duration_seconds",
            "Time to answer a request.",
            ["route"],
            buckets=_LATENCY_SECONDS,
            registry=self._registry,
        )

    def on_request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
