"""The deploy command's order of work: look first, then change, then prove; the record says at each moment how far."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress

from harness.checks.preflight import Plan, check_preflight
from harness.checks.synchronization import check_synchronization
from harness.failure import Failure
from harness.kube import Kube, KubeError
from harness.release.helm import Helm, chart_version, clear_pending
from harness.release.name import made_secrets
from harness.release.namespace import ensure_namespace
from harness.release.record import Record, change_phase, new_id, now, read_record, write_record
from harness.release.rollout import wait_for_rollout
from harness.release.service import Service
from harness.release.status import Status, read_status
from harness.spec.config import Config

_SYNCHRONIZATION_SECONDS_MAX = 60.0


def deploy(
    config: Config, kube: Kube, helm: Helm, *, deadline_seconds: float, progress: Callable[[str], None]
) -> Status:
    """Deploy a configuration and return the status of what runs then.

    Args:
        config: A configuration without problems.
        kube: The cluster.
        helm: The helm program, bound to the same cluster and the namespace.
        deadline_seconds: How long the rollout may take.
        progress: Told of each step.

    Raises:
        WaitTimeoutError: The rollout took too long.
        Failure: Anything else that stopped it; the record's phase is `failed` from then on, unless nothing was changed.
    """
    _preflight(Plan(kube, helm, config.values, config.overrides), progress)
    ensure_namespace(kube, helm.namespace, progress)
    record = _begin(config, kube, helm.namespace, progress)
    try:
        progress("installing the chart")
        helm.upgrade(config.overrides)
        wait_for_rollout(kube, helm.namespace, deadline_seconds=deadline_seconds, progress=progress)
        _prove(record, kube, helm.namespace, progress)
    except Failure as failure:
        with suppress(KubeError):
            change_phase(kube, helm.namespace, record, "failed", failure.message)
        raise
    except KeyboardInterrupt:
        with suppress(KubeError):
            change_phase(kube, helm.namespace, record, "failed", "interrupted; deploy again to go on")
            # The helm that was ours has ended by now, so a revision that it left half done is nobody's.
            clear_pending(kube, helm.namespace, float("inf"))
        raise
    return read_status(kube, helm.namespace, change_phase(kube, helm.namespace, record, "ready"))


def _preflight(plan: Plan, progress: Callable[[str], None]) -> None:
    broken = []
    for row in check_preflight(plan):
        progress(f"{row.name}: {row.verdict}: {row.detail}")
        if row.verdict == "unhealthy":
            broken.append(row)
    if broken:
        problems = "; ".join(f"{row.name}: {row.detail}" for row in broken)
        raise Failure(f"nothing was changed: {problems}", "; ".join(row.hint for row in broken))


def _begin(config: Config, kube: Kube, namespace: str, progress: Callable[[str], None]) -> Record:
    before = read_record(kube, namespace)
    if before is not None and before.phase == "removing":
        raise Failure(
            f"{before.id} in {namespace} is being removed",
            f"let its cleanup end (python deployment_cli.py cleanup {before.id}), then deploy again",
        )
    if clear_pending(kube, namespace, time.time()):
        progress("an earlier deploy was cut off; going on from what it left")
    moment = now()
    record = Record(
        id=before.id if before else new_id(),
        phase="deploying",
        message="",
        created=before.created if before else moment,
        updated=moment,
        chart_version=chart_version(),
        config_digest=hashlib.sha256(json.dumps(config.values, sort_keys=True).encode()).hexdigest(),
        node_count=config.values["infrastructure"]["node_count"],
        replication_factor=config.values["crdt"]["replication_factor"],
        secrets=" ".join(made_secrets(config.values)),
    )
    write_record(kube, namespace, record)
    return record


def _prove(record: Record, kube: Kube, namespace: str, progress: Callable[[str], None]) -> None:
    progress("writing on one node and reading on the others")
    with Service(kube, namespace) as service:
        finding = check_synchronization(
            service,
            node_count=record.node_count,
            replication_factor=record.replication_factor,
            deadline_seconds=_SYNCHRONIZATION_SECONDS_MAX,
        )
    progress(finding.detail)
    if finding.verdict != "healthy":
        raise Failure(
            f"everything runs, but a write does not reach the other nodes: {finding.detail}",
            f"kubectl logs statefulset/jarvis-crdt -n {namespace}; check the network between the nodes",
        )
