"""Whether a node or a backend is well: pure judgements of what each knows; docs/operations.md has them as a table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from crdt_service.kernel.clock import DRIFT_SECONDS_MAX
from crdt_service.plugins.breaker import ACTIVE
from crdt_service.plugins.plugin import PluginView

# Raising it calls a slower disk, or slower nodes, healthy.
SECONDS_MAX = 1.0
FAILURES_SHARE_MAX = 0.1
# Of fewer requests to nodes a share says nothing: one slow answer in a quiet night is no condition.
QUERIES_MIN = 100
# So many clocks are named where more are wrong.
CLOCKS_MAX = 3
MIB = 1 << 20
Phase = Literal["recovering", "serving", "stopping"]
Status = Literal["healthy", "degraded", "unhealthy"]


class Check(msgspec.Struct, frozen=True):
    """One condition of health."""

    name: str
    passed: bool
    message: str


class NodeHealthView(msgspec.Struct, frozen=True):
    """Whether a node serves, and what is not as it should be."""

    status: Status
    node: str
    checks: list[Check]


@dataclass(frozen=True)
class NodeFacts:
    """What a node knows of itself.

    Attributes:
        phase: What it is doing: `recovering` its log, `serving`, or `stopping`.
        states: Keys in its store.
        is_refusing: Whether the newest batch found no room on the disk.
        append_seconds: 99th percentile of the time to write and sync a batch, of the last five minutes.
        log_bytes: Size of the log.
        log_bytes_max: Beyond it, a checkpoint is due.
        snapshot_bytes: Size of the newest snapshot.
        free_bytes: Room on the volume.
        is_synced: Whether it holds all that it owns, as far as it can know.
        surplus_slots: Slots that it holds something of and does not own.
        members: State of each member.
        needed: Owners of each key.
        is_placed: Whether the placement is as it should be.
        placement: What is told of it.
        fenced: Why this node's volume got a new name since the process started, empty if it did not.
        offsets: By node id, how many seconds the clocks of other members are ahead of this node's.
        checkpoint_error: Why the last checkpoint failed, empty if it did not.
    """

    phase: Phase
    states: int
    is_refusing: bool
    append_seconds: float
    log_bytes: int
    log_bytes_max: int
    snapshot_bytes: int
    free_bytes: int
    needed: int
    is_synced: bool = False
    surplus_slots: int = 0
    members: Sequence[str] = ()
    is_placed: bool = False
    placement: str = ""
    fenced: str = ""
    offsets: Mapping[str, float] = field(default_factory=dict)
    checkpoint_error: str = ""


def judge_node(facts: NodeFacts) -> tuple[Status, list[Check]]:
    """Return a node's status and what it is made of; it is unhealthy only if it serves nothing."""
    is_serving = facts.phase == "serving"
    checks = [Check("serving", is_serving, f"{facts.phase}, {facts.states} states in memory")]
    if not is_serving:
        return "unhealthy", checks
    # A checkpoint writes what is in snapshot and log, at most, before it frees either.
    room = facts.snapshot_bytes + facts.log_bytes + 4 * MIB
    counts = Counter(facts.members)
    alive, known = counts["alive"], len(facts.members) - counts["left"]
    checks += [
        Check(
            "disk_writable",
            not facts.is_refusing,
            "the newest batch found no room: reads go on, writes are refused until one fits"
            if facts.is_refusing
            else "the disk takes what is written",
        ),
        Check(
            "disk_space",
            facts.free_bytes >= room,
            f"{facts.free_bytes // MIB} MiB are free, a checkpoint may need {room // MIB} MiB",
        ),
        Check(
            "log_size",
            facts.log_bytes <= 2 * facts.log_bytes_max,
            f"the log has {facts.log_bytes // MIB} MiB, a checkpoint is due at {facts.log_bytes_max // MIB} MiB",
        ),
        Check(
            "checkpoint",
            not facts.checkpoint_error,
            f"the last one failed, and the log grows: {facts.checkpoint_error}"
            if facts.checkpoint_error
            else "the last one did not fail",
        ),
        Check(
            "sync_time",
            facts.append_seconds <= SECONDS_MAX,
            f"99 % of the last five minutes' batches were on the disk within {facts.append_seconds:.3g} s",
        ),
        Check(
            "synced",
            facts.is_synced,
            "all that this node owns is here"
            if facts.is_synced
            else "this node is still fetching some of what it owns: reads of it are answered by others",
        ),
        Check("placement", facts.is_placed, facts.placement),
        Check(
            "volume",
            not facts.fenced or facts.is_placed,
            f"it got a new seat: {facts.fenced}" if facts.fenced else "it is as other members know it",
        ),
        Check("handed_over", not facts.surplus_slots, f"{facts.surplus_slots} slots are still to be handed over"),
        Check(
            "members",
            alive == known and alive >= facts.needed,
            f"{alive} of {known} members are alive, each key has {facts.needed} owners",
        ),
        _judge_clocks(facts.offsets, "this node's"),
    ]
    return ("healthy" if all(check.passed for check in checks) else "degraded"), checks


@dataclass(frozen=True)
class BackendFacts:
    """What a backend knows of its connections to nodes.

    Attributes:
        connections: State of each, as `jarvis_database_connections` has them.
        needed: Owners of each key.
        query_seconds: 99th percentile of the time of a request to a node, of the last five minutes.
        failed: Requests to nodes of that time that failed through no fault of a client.
        queries: All of that time.
        plugins: Those that are configured.
        offsets: By node id, how many seconds the clocks of nodes are ahead of this backend's.
    """

    connections: Sequence[str]
    needed: int
    query_seconds: float = 0.0
    failed: int = 0
    queries: int = 0
    plugins: Sequence[PluginView] = ()
    offsets: Mapping[str, float] = field(default_factory=dict)


def judge_backend(facts: BackendFacts) -> tuple[Status, list[Check]]:
    """Return a backend's status and what it is made of; it is unhealthy only if it reaches no node."""
    counts = Counter(facts.connections)
    seen = len(facts.connections)
    reachable = sum(map(is_open, facts.connections))
    is_quiet = facts.queries < QUERIES_MIN
    checks = [
        Check("any_node_reachable", reachable > 0, f"{reachable} nodes are reachable"),
        Check("all_nodes_reachable", reachable == seen, f"{reachable} of {seen} nodes seen are reachable"),
        Check(
            "replication_factor",
            reachable >= facts.needed,
            f"{reachable} nodes are reachable for {facts.needed} replicas",
        ),
        Check(
            "database_connections",
            not counts["full"],
            f"{counts['full']} of {reachable} connections are full, {counts['busy']} busy, {counts['idle']} idle",
        ),
        Check(
            "database_query_time",
            is_quiet or facts.query_seconds <= SECONDS_MAX,
            f"99 % of the last five minutes' requests to nodes were answered within {facts.query_seconds:.3g} s",
        ),
        Check(
            "database_errors",
            is_quiet or facts.failed <= FAILURES_SHARE_MAX * facts.queries,
            f"{facts.failed} of the last five minutes' {facts.queries} requests to nodes failed",
        ),
        _judge_nodes_clocks(facts.offsets),
        *map(_check_plugin, facts.plugins),
    ]
    is_well = all(check.passed for check in checks)
    return ("unhealthy" if not reachable else "healthy" if is_well else "degraded"), checks


def _judge_clocks(offsets: Mapping[str, float], whose: str) -> Check:
    """Return whether clocks agree with one that they are compared with.

    Args:
        offsets: By node id, how many seconds clocks are ahead of it.
        whose: Says of which, such as `this node's`.
    """
    furthest = sorted(offsets.items(), key=lambda item: (-abs(item[1]), item[0]))
    wrong = [(node_id, seconds) for node_id, seconds in furthest if abs(seconds) > DRIFT_SECONDS_MAX]
    if not wrong:
        most = abs(furthest[0][1]) if furthest else 0.0
        return Check("clock", True, f"{len(offsets)} other clocks are within {most:.1f} s of {whose}")
    named = ", ".join(
        f"{node_id}'s clock is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} {whose}"
        for node_id, seconds in wrong[:CLOCKS_MAX]
    )
    more = f", and {len(wrong) - CLOCKS_MAX} more differ" if len(wrong) > CLOCKS_MAX else ""
    return Check("clock", False, f"{named}{more}: set the clocks that are wrong")


def _judge_nodes_clocks(offsets: Mapping[str, float]) -> Check:
    """Return whether nodes' clocks agree with that which is behind all others: a backend's own decides nothing."""
    last = min(offsets, key=lambda node_id: (offsets[node_id], node_id), default="")
    others = {node_id: seconds - offsets[last] for node_id, seconds in offsets.items() if node_id != last}
    return _judge_clocks(others, f"{last or 'no node'}'s")


def is_open(state: str) -> bool:
    """Tell whether a connection in this state leads to a node."""
    return state in ("idle", "busy", "full")


def _check_plugin(plugin: PluginView) -> Check:
    is_active = plugin.state == ACTIVE
    return Check(f"plugin_{plugin.name}", is_active, plugin.state if is_active else f"{plugin.state}: {plugin.error}")
