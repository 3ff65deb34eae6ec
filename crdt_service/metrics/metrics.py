"""Where the parts of a process report what they did and how they are."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import Histogram

from crdt_service import VERSION
from crdt_service.kernel.error import StorageFullError
from crdt_service.metrics.backup import Failure, Success
from crdt_service.metrics.catalogue import CATALOGUE, Exporter
from crdt_service.metrics.registry import Registry

LAG_INTERVAL_SECONDS = 0.25
_VALUES = {(metric.name, label.name): label.values for metric in CATALOGUE for label in metric.labels}
_ERROR_KINDS = frozenset(_VALUES["jarvis_database_errors_total", "kind"])


class Metrics:
    """The metrics of one process; each node and backend has its own."""

    def __init__(self, exporter: Exporter) -> None:
        registry = self._registry = Registry(exporter)
        registry.gauge("jarvis_build_info", VERSION).set(1)
        self._lag = registry.histogram("jarvis_event_loop_lag_seconds")
        self._queries = _ByOperation(registry)
        self._expiries: list[Callable[[], Mapping[str, float]]] = []

    def add_certificates(self, read_expiries: Callable[[], Mapping[str, float]]) -> None:
        """Report until when these certificates are valid, by name, in seconds since 1970."""
        self._expiries.append(read_expiries)

    async def watch_loop(self) -> None:
        """Measure how late the event loop is, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_INTERVAL_SECONDS
            await asyncio.sleep(LAG_INTERVAL_SECONDS)
            self._lag.observe(max(0.0, loop.time() - due))

    def set_members(self, states: Sequence[str]) -> None:
        """Set how many members are in each state."""
        self._count("jarvis_members", states)

    def set_clock(self, offset_seconds: float) -> None:
        """Set how far this process's clock is ahead of that of the node from which it differs most."""
        self._registry.gauge("jarvis_clock_offset_seconds").set(offset_seconds)

    def set_plugins(self, states: Sequence[str]) -> None:
        """Set how many configured plugins are in each state: `active`, `failing` or `disabled`."""
        self._count("jarvis_plugins", states)

    def on_plugin_failure(self, plugin: str) -> None:
        """A configured plugin failed."""
        self._registry.counter("jarvis_plugin_failures_total", plugin).inc()

    def render(self) -> bytes:
        """Return the text exposition."""
        for read_expiries in self._expiries:
            for name, seconds in read_expiries().items():
                self._registry.gauge("jarvis_certificate_expiry_timestamp_seconds", name).set(seconds)
        return self._registry.render()

    def _count(self, name: str, states: Sequence[str]) -> None:
        for state in _VALUES[name, "state"]:
            self._registry.gauge(name, state).set(states.count(state))

    def _on_database_error(self, kind: str) -> None:
        self._registry.counter("jarvis_database_errors_total", kind).inc()


class NodeMetrics(Metrics):
    """Where a node's loops and its journal report."""

    def __init__(self) -> None:
        super().__init__(Exporter.NODE)
        registry = self._registry
        self._sync = registry.histogram("jarvis_crdt_sync_latency_seconds")
        self._repair = registry.counter("jarvis_antientropy_bytes_total")
        self._refused = registry.counter("jarvis_deltas_refused_total")
        self._impossible = registry.counter("jarvis_clock_refused_total")
        self._purged = registry.counter("jarvis_purged_keys_total")
        self._log = registry.gauge("jarvis_storage_bytes", "log")
        for operation in ("append", "recover", "checkpoint"):
            self._queries.prepare(operation)

    def on_synced(self, latency_seconds: float) -> None:
        """A peer's deltas were applied so long after their commit."""
        self._sync.observe(latency_seconds)

    def on_repaired(self, sent_bytes: int) -> None:
        """A digest exchange moved these bytes."""
        self._repair.inc(sent_bytes)

    def on_refused(self, count: int) -> None:
        """Deltas from a peer were refused."""
        self._refused.inc(count)

    def on_impossible_stamps(self, count: int) -> None:
        """Deltas from a peer had stamps that no clock can have made."""
        self._impossible.inc(count)

    def on_conflict(self, type_name: str, strategy: str, count: int) -> None:
        """So many siblings joined others of this type, and this strategy decides between them."""
        self._registry.counter("jarvis_crdt_conflicts_total", type_name, strategy).inc(count)

    def on_purged(self, count: int) -> None:
        """So many deleted keys were purged."""
        self._purged.inc(count)

    def on_disk_operation(self, operation: str, seconds: float) -> None:
        """The disk did this: append, recover or checkpoint."""
        self._queries.observe(operation, seconds)

    def on_disk_error(self, error: Exception) -> None:
        """The disk refused or failed."""
        self._on_database_error("storage_full" if isinstance(error, StorageFullError) else "disk_failed")

    def on_storage(self, log_bytes: int) -> None:
        """The log has this size."""
        self._log.set(log_bytes)

    def set_lead(self, seconds: float) -> None:
        """Set how far the newest stamp is ahead of this node's clock."""
        self._registry.gauge("jarvis_clock_lead_seconds").set(seconds)

    def set_links(self, states: Sequence[str]) -> None:
        """Set how many links are in each state."""
        self._count("jarvis_links", states)

    def set_keys(self, live: int, vacant: int) -> None:
        """Set how many keys can be read, and of how many only history is left."""
        self._registry.gauge("jarvis_keys", "live").set(live)
        self._registry.gauge("jarvis_keys", "vacant").set(vacant)

    def on_fenced(self, times: int) -> None:
        """This node's volume was so many times not what others knew it for."""
        self._registry.counter("jarvis_fenced_total").inc(times)

    def on_peer_refused(self, reason: str) -> None:
        """A connection to the port of peers was refused."""
        self._registry.counter("jarvis_peer_refusals_total", reason).inc()

    def set_decision(self, epoch: int, uncopied_slots: int, lost_seats: int) -> None:
        """Set which placement holds, how many slots next owners have to copy, and how many losses were accepted."""
        self._registry.gauge("jarvis_placement_epoch").set(epoch)
        self._registry.gauge("jarvis_placement_uncopied_slots").set(uncopied_slots)
        self._registry.gauge("jarvis_placement_lost_seats").set(lost_seats)

    def set_placement(self, surplus_slots: int, under_replicated_keys: int) -> None:
        """Set how many slots wait to be handed over, and how many keys lack a reachable owner."""
        self._registry.gauge("jarvis_handoff_slots").set(surplus_slots)
        self._registry.gauge("jarvis_under_replicated_keys").set(under_replicated_keys)

    def set_storage(self, snapshot_bytes: int, free_bytes: int, capacity_bytes: int) -> None:
        """Set the size of the newest snapshot, and the free space and the size of the volume."""
        sizes: Mapping[str, int] = {"snapshot": snapshot_bytes, "free": free_bytes, "capacity": capacity_bytes}
        for state, size in sizes.items():
            self._registry.gauge("jarvis_storage_bytes", state).set(size)

    def set_backup(self, success: Success | None, failure: Failure | None) -> None:
        """Set what the backup job told last; None for nothing."""
        success = success or Success(0.0, 0.0, 0, 0)
        values = {
            "last_start_timestamp_seconds": success.began_at_seconds,
            "last_success_timestamp_seconds": success.ended_at_seconds,
            "last_failure_timestamp_seconds": failure.ended_at_seconds if failure else 0.0,
            "size_bytes": success.size_bytes,
            "keys": success.keys,
        }
        for name, value in values.items():
            self._registry.gauge(f"jarvis_backup_{name}").set(value)


class BackendMetrics(Metrics):
    """Where the API and its connections to nodes report."""

    def __init__(self) -> None:
        super().__init__(Exporter.BACKEND)
        self._requests: dict[tuple[str, int], _Series] = {}

    def on_request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered; routes and statuses are few."""
        series = self._requests.get((route, status))
        if series is None:
            series = self._requests[route, status] = _Series(self._registry, route, status)
        series.count.inc()
        series.seconds.observe(seconds)

    def on_no_room(self, room: str) -> None:
        """A caller got nothing of what all share."""
        self._registry.counter("jarvis_refused_total", room).inc()

    def on_query(self, operation: str, seconds: float, error: str) -> bool:
        """A node was asked; `error` is the code of what went wrong, or "". Return whether the engine failed."""
        self._queries.observe(operation, seconds)
        if error not in _ERROR_KINDS:
            return False
        self._on_database_error(error)
        return True

    def set_connections(self, states: Sequence[str]) -> None:
        """Set how many connections to nodes are in each state."""
        self._count("jarvis_database_connections", states)

    def set_feeds(self, count: int) -> None:
        """Set how many change feeds are open."""
        self._registry.gauge("jarvis_feeds").set(count)


class _Series:
    __slots__ = ("count", "seconds")

    def __init__(self, registry: Registry, route: str, status: int) -> None:
        self.count = registry.counter("jarvis_requests_total", route, str(status))
        self.seconds = registry.histogram("jarvis_request_duration_seconds", route)


class _ByOperation:
    """The time of operations by name."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._series: dict[str, Histogram] = {}

    def prepare(self, operation: str) -> None:
        """Have a series before anything is observed."""
        self._series[operation] = self._registry.histogram("jarvis_database_query_duration_seconds", operation)

    def observe(self, operation: str, seconds: float) -> None:
        if operation not in self._series:
            self.prepare(operation)
        self._series[operation].observe(seconds)
