"""Writes on one node and reads on the others: the proof that replication works, used after a deploy and by `health`."""

import secrets
import time
from collections.abc import Callable

from harness.checks.check import Finding
from harness.poll import Done, Pending, WaitTimeoutError, wait_until
from harness.release.name import node_names
from harness.release.service import Service, ServiceError


def check_synchronization(
    service: Service,
    *,
    node_count: int,
    replication_factor: int,
    deadline_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Finding:
    """Write a fresh value through one node and wait until the others show it.

    The key belongs to the node that takes the write and is a last-writer-wins register, so that checking for
    years stores one value per node. Healthy: as many nodes as hold a key show the value, and no node failed.

    Args:
        service: The deployed API.
        node_count: How many nodes the configuration asks for.
        replication_factor: On how many nodes each key is stored.
        deadline_seconds: How long the value may take to arrive.
        clock: Seconds that only grow.
        sleep: Pauses for that many seconds.
    """
    value = secrets.token_hex(8)
    names = node_names(node_count)
    failures: dict[str, str] = {}
    writer = ""
    for name in names:
        try:
            service.write(f"jarvis.health.{name}", "lww_register", {"assign": value}, node=name)
            writer = name
            break
        except ServiceError as error:
            failures[name] = error.message
    if not writer:
        return Finding("unhealthy", f"no node takes a write: {_join(failures)}")

    needed = min(replication_factor, node_count)
    start = clock()
    seen = {writer}

    def look() -> Done[None] | Pending:
        for name in names:
            if name not in seen:
                _look_at(name)
        if len(seen) >= needed and not failures:
            return Done(None)
        return Pending(f"{len(seen)} of {needed} nodes show the value written through {writer}")

    def _look_at(name: str) -> None:
        try:
            if service.read(f"jarvis.health.{writer}", node=name) == value:
                seen.add(name)
            failures.pop(name, None)
        except ServiceError as error:
            failures[name] = error.message

    try:
        wait_until(look, deadline_seconds=deadline_seconds, interval_seconds=0.2, clock=clock, sleep=sleep)
    except WaitTimeoutError as error:
        detail = f"{error.state} after {deadline_seconds:g} s" + (f"; {_join(failures)}" if failures else "")
        # Silent nodes are what the workload checks report; a reachable node that lacks the value is broken replication.
        reachable = set(names) - set(failures) - {writer}
        return Finding("unhealthy" if reachable and len(seen) == 1 else "degraded", detail)
    latency_ms = (clock() - start) * 1000
    return Finding("healthy", f"{len(seen)} of {node_count} nodes show a new value after {latency_ms:.0f} ms")


def _join(failures: dict[str, str]) -> str:
    return "; ".join(f"{name}: {message}" for name, message in failures.items())
