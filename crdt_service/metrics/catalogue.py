"""Every metric: its name, what it tells, its labels and who exports it. Registries and docs are made of this."""

from dataclasses import dataclass
from enum import StrEnum

# Raising the number of them makes each scrape of each histogram larger.
_LATENCY_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_REPLAY_SECONDS = (*_LATENCY_SECONDS, 30.0, 60.0, 300.0)
# Beyond the longest latency that an alert can be set to: quantiles above the last bound are shown as that bound.
_SYNC_SECONDS = (*_REPLAY_SECONDS, 1800.0, 7200.0)


class Kind(StrEnum):
    """Types of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Exporter(StrEnum):
    """Processes that serve metrics: nodes on port 9101, backends on port 8000."""

    NODE = "node"
    BACKEND = "backend"


@dataclass(frozen=True)
class Label:
    """A label.

    Attributes:
        name: Its name.
        values: Every value it has; empty if they are not known ahead.
        bound: What the values are, and so how many, where they are not listed.
    """

    name: str
    values: tuple[str, ...] = ()
    bound: str = ""


@dataclass(frozen=True)
class Metric:
    """A metric in base units, which its name ends with.

    Attributes:
        name: As Prometheus shows it; a counter's ends with `_total`.
        kind: Its type.
        sentence: What it tells.
        exporters: Who has it.
        labels: Its labels, in order.
        buckets: Upper bounds, of a histogram.
    """

    name: str
    kind: Kind
    sentence: str
    exporters: tuple[Exporter, ...]
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()


_NODE = (Exporter.NODE,)
_BACKEND = (Exporter.BACKEND,)
_BOTH = (Exporter.NODE, Exporter.BACKEND)

CATALOGUE = (
    Metric("jarvis_build_info", Kind.GAUGE, "Always 1.", _BOTH, (Label("version", bound="the program's version"),)),
    Metric(
        "jarvis_requests_total",
        Kind.COUNTER,
        "Requests of the API that were answered.",
        _BACKEND,
        (Label("route", bound="paths of the routes, or `other`"), Label("status", bound="HTTP status")),
    ),
    Metric(
        "jarvis_request_duration_seconds",
        Kind.HISTOGRAM,
        "From a request's headers to the end of its answer, or to the start of a feed.",
        _BACKEND,
        (Label("route", bound="paths of the routes, or `other`"),),
        _LATENCY_SECONDS,
    ),
    Metric(
        "jarvis_crdt_sync_latency_seconds",
        Kind.HISTOGRAM,
        "From a write's commit at its origin to its apply here, by both nodes' wall clocks.",
        _NODE,
        buckets=_SYNC_SECONDS,
    ),
    Metric(
        "jarvis_crdt_conflicts_total",
        Kind.COUNTER,
        "Concurrent writes that joined others of a register or workflow, and types that joined others of a key.",
        _NODE,
        (Label("type", bound="data types with conflicts"), Label("strategy", bound="conflict strategies")),
    ),
    Metric("jarvis_antientropy_bytes_total", Kind.COUNTER, "Bytes moved by digest exchanges.", _NODE),
    Metric("jarvis_deltas_refused_total", Kind.COUNTER, "Deltas from peers that broke a rule.", _NODE),
    Metric(
        "jarvis_clock_refused_total",
        Kind.COUNTER,
        "Deltas from peers with stamps that no clock can have made, such as of the year 5000.",
        _NODE,
    ),
    Metric(
        "jarvis_clock_offset_seconds",
        Kind.GAUGE,
        "How far this process's clock is ahead of that of the node from which it differs most; negative: behind.",
        _BOTH,
    ),
    Metric(
        "jarvis_clock_lead_seconds",
        Kind.GAUGE,
        "How far the newest stamp that this node knows is ahead of its clock, 0 if it is not: a clock is or was wrong.",
        _NODE,
    ),
    Metric(
        "jarvis_members",
        Kind.GAUGE,
        "Members of the cluster as this process knows them.",
        _BOTH,
        (Label("state", ("alive", "suspect", "dead", "leaving", "left")),),
    ),
    Metric(
        "jarvis_links",
        Kind.GAUGE,
        "Addresses of other nodes that this node dials.",
        _NODE,
        (Label("state", ("connecting", "reachable", "unreachable", "refused")),),
    ),
    Metric(
        "jarvis_keys",
        Kind.GAUGE,
        "Keys held: live, or vacant, of which only history is left.",
        _NODE,
        (Label("state", ("live", "vacant")),),
    ),
    Metric("jarvis_purged_keys_total", Kind.COUNTER, "Vacant keys that were forgotten here.", _NODE),
    Metric("jarvis_placement_epoch", Kind.GAUGE, "Number of the placement that this node has taken up.", _NODE),
    Metric(
        "jarvis_placement_uncopied_slots",
        Kind.GAUGE,
        "Slots that next owners have to copy still before a change of the placement ends, all of them together.",
        _NODE,
    ),
    Metric(
        "jarvis_placement_lost_seats",
        Kind.GAUGE,
        "Data directories whose loss an operator has accepted and not confirmed yet.",
        _NODE,
    ),
    Metric(
        "jarvis_peer_refusals_total",
        Kind.COUNTER,
        "Connections to the port of peers that were refused: `other_cluster` is of another one, `silent` proved "
        "nothing in time, `crowded_out` made room for others that have proved nothing yet.",
        _NODE,
        (
            Label(
                "reason",
                (
                    "other_cluster",
                    "authentication_failed",
                    "certificate_refused",
                    "malformed",
                    "invalid_config",
                    "silent",
                    "crowded_out",
                    "full",
                ),
            ),
        ),
    ),
    Metric("jarvis_fenced_total", Kind.COUNTER, "Times that this node's volume was not what others knew.", _NODE),
    Metric("jarvis_handoff_slots", Kind.GAUGE, "Slots held and not owned, to be handed over.", _NODE),
    Metric(
        "jarvis_under_replicated_keys",
        Kind.GAUGE,
        "Keys of which this node is the first reachable owner, and another owner is unreachable.",
        _NODE,
    ),
    Metric(
        "jarvis_storage_bytes",
        Kind.GAUGE,
        "The data directory: current log, newest snapshot, and the volume's free space and size.",
        _NODE,
        (Label("state", ("log", "snapshot", "free", "capacity")),),
    ),
    Metric(
        "jarvis_database_connections",
        Kind.GAUGE,
        "The backend's connections to nodes, one for each address: `idle`, `busy` with requests under way, `full` if "
        "more have to wait until some are answered, or not open.",
        _BACKEND,
        (Label("state", ("idle", "busy", "full", "connecting", "unreachable", "refused")),),
    ),
    Metric(
        "jarvis_database_query_duration_seconds",
        Kind.HISTOGRAM,
        "Time of an operation of the storage engine. On a node, on its disk: `append` writes and syncs one batch, "
        "`recover` reads and replays the log at the start, `checkpoint` writes a snapshot beside other work. "
        "On a backend: a request to a node until its reply.",
        _BOTH,
        (Label("operation", bound="append, recover, checkpoint; kinds of requests to nodes"),),
        _REPLAY_SECONDS,
    ),
    Metric(
        "jarvis_database_errors_total",
        Kind.COUNTER,
        "Failures of the storage engine. On a node: `storage_full` refused a batch or a snapshot, `disk_failed` is any "
        "other error of the disk. On a backend: the code of a request to a node that failed through no fault of the "
        "client.",
        _BOTH,
        (
            Label(
                "kind",
                (
                    "storage_full",
                    "disk_failed",
                    "node_unreachable",
                    "outcome_unknown",
                    "overloaded",
                    "concern_not_met",
                    "too_few_owners",
                    "malformed",
                ),
            ),
        ),
    ),
    Metric("jarvis_feeds", Kind.GAUGE, "Change feeds that are open.", _BACKEND),
    Metric(
        "jarvis_refused_total",
        Kind.COUNTER,
        "Times that a caller got nothing of what all callers share, because its share or all of it was taken; of "
        "`connections`, and of `unsent` bytes, connections that were cut for others.",
        _BACKEND,
        (Label("room", ("answers", "bodies", "connections", "feeds", "heads", "pages", "requests", "unsent")),),
    ),
    Metric(
        "jarvis_plugins",
        Kind.GAUGE,
        "Configured plugins: at work, failed lately, or disabled after repeated failure.",
        _BOTH,
        (Label("state", ("active", "failing", "disabled")),),
    ),
    Metric(
        "jarvis_plugin_failures_total",
        Kind.COUNTER,
        "Times a plugin raised, hung, ended or could not start.",
        _BOTH,
        (Label("plugin", bound="names of configured plugins"),),
    ),
    Metric(
        "jarvis_certificate_expiry_timestamp_seconds",
        Kind.GAUGE,
        "Until when what is in use for TLS is valid, since the Unix epoch: `peer` is the certificate of mutual TLS, "
        "`authority` what is trusted longest, `api` the certificate of HTTPS.",
        _BOTH,
        (Label("certificate", bound="peer, authority; on a backend api; none without TLS"),),
    ),
    Metric(
        "jarvis_backup_last_success_timestamp_seconds",
        Kind.GAUGE,
        "When the newest whole backup was done, since the Unix epoch. The nodes that own the record show it and the "
        "others 0, as all do before the first: the largest counts.",
        _NODE,
    ),
    Metric(
        "jarvis_backup_last_failure_timestamp_seconds",
        Kind.GAUGE,
        "When a backup last failed, if the job could still tell a node so; 0 for never, as above.",
        _NODE,
    ),
    Metric(
        "jarvis_backup_last_start_timestamp_seconds",
        Kind.GAUGE,
        "When the newest whole backup began, as above; the difference to its success is how long it took.",
        _NODE,
    ),
    Metric("jarvis_backup_size_bytes", Kind.GAUGE, "Size of the newest whole backup, as above.", _NODE),
    Metric("jarvis_backup_keys", Kind.GAUGE, "Keys in the newest whole backup, as above.", _NODE),
    Metric(
        "jarvis_event_loop_lag_seconds",
        Kind.HISTOGRAM,
        "How much later than due a timer of the event loop fires, four times a second: what holds up all else.",
        _BOTH,
        buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
    ),
)

# What the control group of the process tells; series of limits are absent where there is none.
CONTAINER = (
    Metric("jarvis_cpu_seconds_total", Kind.COUNTER, "CPU time of the container's processes.", _BOTH),
    Metric("jarvis_cpu_limit_cores", Kind.GAUGE, "CPU time that they may use in a second; none without limit.", _BOTH),
    Metric(
        "jarvis_memory_working_set_bytes",
        Kind.GAUGE,
        "Memory of the container but for files' pages that the kernel can take back at once.",
        _BOTH,
    ),
    Metric("jarvis_memory_limit_bytes", Kind.GAUGE, "Memory that it may use; none without limit.", _BOTH),
)

_GENERATION = (Label("generation", ("0", "1", "2")),)
# What the Prometheus client itself adds, on Linux and CPython.
PLATFORM = (
    Metric("process_cpu_seconds_total", Kind.COUNTER, "CPU time, user and system.", _BOTH),
    Metric("process_resident_memory_bytes", Kind.GAUGE, "Resident memory.", _BOTH),
    Metric("process_virtual_memory_bytes", Kind.GAUGE, "Virtual memory.", _BOTH),
    Metric("process_start_time_seconds", Kind.GAUGE, "Start of the process, since the Unix epoch.", _BOTH),
    Metric("process_open_fds", Kind.GAUGE, "Open file descriptors.", _BOTH),
    Metric("process_max_fds", Kind.GAUGE, "Most file descriptors that may be open.", _BOTH),
    Metric("python_gc_objects_collected_total", Kind.COUNTER, "Objects collected.", _BOTH, _GENERATION),
    Metric("python_gc_objects_uncollectable_total", Kind.COUNTER, "Objects found uncollectable.", _BOTH, _GENERATION),
    Metric("python_gc_collections_total", Kind.COUNTER, "Garbage collections.", _BOTH, _GENERATION),
    Metric(
        "python_info",
        Kind.GAUGE,
        "Always 1.",
        _BOTH,
        tuple(Label(name, bound="of Python") for name in ("version", "implementation", "major", "minor", "patchlevel")),
    ),
)
