"""A result as facts and tables, before it is known whether a person's terminal or a pipe shows it."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.checks.health import Health
from harness.release.removal import Removal
from harness.release.status import Status

Result = Status | Health | Removal

STYLE = {
    "healthy": "green",
    "ready": "green",
    "Bound": "green",
    "Running": "green",
    "degraded": "yellow",
    "progressing": "yellow",
    "deploying": "yellow",
    "removing": "yellow",
    "Pending": "yellow",
    "skipped": "dim",
    "unhealthy": "red",
    "failed": "red",
    "Failed": "red",
    "Lost": "red",
}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under headings."""

    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Sheet:
    """Named facts, then tables."""

    facts: list[tuple[str, str]]
    tables: list[Table]


def to_sheet(result: Result) -> Sheet:
    """Return what a person wants to see of a result."""
    match result:
        case Status():
            return _status(result)
        case Health():
            return _health(result)
        case Removal():
            return _removal(result)


def _status(status: Status) -> Sheet:
    revision = "not readable" if status.helm_revision is None else str(status.helm_revision)
    facts = [
        ("deployment", status.deployment_id),
        ("state", status.state),
        ("phase", status.phase),
        ("message", status.message),
        ("context", status.context),
        ("namespace", status.namespace),
        ("created", status.created),
        ("updated", status.updated),
        ("chart", status.chart_version),
        ("helm revision", f"{revision} {status.helm_status}".strip()),
    ]
    workloads = [
        (each.kind, each.name, f"{each.ready}/{each.desired}", f"{each.updated}/{each.desired}", each.message)
        for each in status.workloads
    ]
    pods = [
        (pod.name, pod.phase, "yes" if pod.ready else "no", str(pod.restarts), pod.node, _why(pod.reason, pod.message))
        for pod in status.pods
    ]
    volumes = [(each.name, each.phase, each.capacity) for each in status.volumes]
    return Sheet(
        [(name, value) for name, value in facts if value],
        [
            Table(("KIND", "NAME", "READY", "UPDATED", "MESSAGE"), workloads),
            Table(("POD", "PHASE", "READY", "RESTARTS", "NODE", "REASON"), pods),
            Table(("VOLUME", "PHASE", "CAPACITY"), volumes),
        ],
    )


def _health(health: Health) -> Sheet:
    facts = [
        ("overall", health.overall),
        ("time", health.time),
        ("context", health.context),
        ("namespace", health.namespace),
    ]
    rows = [(row.name, row.verdict, row.detail, row.hint) for row in health.checks]
    return Sheet(facts, [Table(("CHECK", "VERDICT", "DETAIL", "WHAT TO DO"), rows)])


def _removal(removal: Removal) -> Sheet:
    outcome = "deleted" if removal.namespace_deleted else removal.note
    return Sheet([("removed", removal.deployment_id), ("namespace", outcome), ("context", removal.context)], [])


def _why(reason: str, message: str) -> str:
    return f"{reason}: {message}" if message else reason
