"""The checks behind the `health` command."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from harness.checks.check import Check, Finding, Overall, Row, run_checks
from harness.checks.synchronization import check_synchronization
from harness.failure import Failure
from harness.kube import ForbiddenError, Kube, conditions_of
from harness.release.monitoring import ask, read_probes
from harness.release.name import BACKEND, CRDT
from harness.release.record import Record, read_record
from harness.release.service import Service
from harness.release.workload import Workload, read_pods, read_volumes, read_workloads

_API_SLOW_SECONDS = 1.0


class Health(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all health checks together say.

    Attributes:
        overall: The worst of the checks' verdicts.
        time: When the checks began (RFC 3339, UTC).
        context: The kubeconfig context of the cluster.
        namespace: Where the deployment is.
        checks: One row per check, in the order in which they ran.
    """

    overall: Overall
    time: str
    context: str
    namespace: str
    checks: list[Row]


@dataclass(frozen=True, slots=True)
class Target:
    """What the checks look at."""

    kube: Kube
    namespace: str
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def record(self) -> Record:
        """Return the deployment.

        Raises:
            Failure: There is none.
        """
        record = read_record(self.kube, self.namespace)
        if record is None:
            raise Failure(f"nothing is deployed in the namespace {self.namespace}")
        return record


def check_health(target: Target) -> Iterator[Row]:
    """Run every health check and yield what each found."""
    return run_checks(CHECKS, target, target.clock)


def _check_api_server(target: Target, deadline_seconds: float) -> Finding:
    version = target.kube.request("GET", "/version", timeout_seconds=deadline_seconds).get("gitVersion", "unknown")
    return Finding("healthy", f"Kubernetes {version}, context {target.kube.context}")


def _check_deployment(target: Target, _deadline_seconds: float) -> Finding:
    record = target.record()
    if record.phase == "ready":
        return Finding("healthy", f"{record.id}, chart {record.chart_version}")
    message = f": {record.message}" if record.message else f" since {record.updated}"
    return Finding("degraded", f"{record.id} is {record.phase}{message}")


def _check_cluster_nodes(target: Target, _deadline_seconds: float) -> Finding:
    try:
        nodes = target.kube.read_all("nodes")
    except ForbiddenError as error:
        return Finding("skipped", error.message)
    ready = [node for node in nodes if conditions_of(node).get("Ready") == "True"]
    pressed = [
        f"{node['metadata']['name']}: {name}"
        for node in nodes
        for name, status in conditions_of(node).items()
        if name.endswith("Pressure") and status == "True"
    ]
    detail = "; ".join([f"{len(ready)} of {len(nodes)} ready", *pressed])
    if not ready:
        return Finding("unhealthy", detail)
    return Finding("healthy" if len(ready) == len(nodes) and not pressed else "degraded", detail)


def _check_crdt(target: Target, _deadline_seconds: float) -> Finding:
    return _judge(target, CRDT, wanted=target.record().node_count)


def _check_backend(target: Target, _deadline_seconds: float) -> Finding:
    return _judge(target, BACKEND, wanted=None)


def _judge(target: Target, name: str, wanted: int | None) -> Finding:
    found = {workload.name: workload for workload in read_workloads(target.kube, target.namespace)}
    if name not in found:
        return Finding("unhealthy", f"there is no {name}")
    workload: Workload = found[name]
    # The configuration's count, not the object's: a node that was scaled away is a node that is missing.
    desired = workload.desired if wanted is None else wanted
    pods = [pod for pod in read_pods(target.kube, target.namespace) if pod.name.startswith(f"{name}-")]
    reasons = [f"{pod.name}: {pod.reason or pod.phase}" for pod in pods if not pod.ready]
    detail = "; ".join([f"{workload.ready} of {desired} ready", *reasons])
    if workload.ready == 0:
        return Finding("unhealthy", detail)
    return Finding("healthy" if workload.ready >= desired and workload.complete else "degraded", detail)


def _check_storage(target: Target, _deadline_seconds: float) -> Finding:
    volumes = [each for each in read_volumes(target.kube, target.namespace) if each.name.startswith(f"data-{CRDT}-")]
    wanted = target.record().node_count
    unbound = [f"{volume.name}: {volume.phase}" for volume in volumes if volume.phase != "Bound"]
    bound = len(volumes) - len(unbound)
    detail = "; ".join([f"{bound} of {wanted} volumes bound", *unbound])
    if bound == 0:
        return Finding("unhealthy", detail)
    return Finding("healthy" if bound >= wanted and not unbound else "degraded", detail)


def _check_api(target: Target, deadline_seconds: float) -> Finding:
    with Service(target.kube, target.namespace, deadline_seconds) as service:
        service.open()
        start = target.clock()
        health = service.read_health()
        took_seconds = target.clock() - start
    detail = f"/health says {health.status} in {took_seconds * 1000:.0f} ms"
    if health.status == "unhealthy":
        return Finding("unhealthy", detail)
    good = health.status == "healthy" and took_seconds <= _API_SLOW_SECONDS
    return Finding("healthy" if good else "degraded", detail)


def _check_synchronization(target: Target, deadline_seconds: float) -> Finding:
    record = target.record()
    with Service(target.kube, target.namespace) as service:
        return check_synchronization(
            service,
            node_count=record.node_count,
            replication_factor=record.replication_factor,
            deadline_seconds=deadline_seconds,
            clock=target.clock,
            sleep=target.sleep,
        )


def _check_monitoring(target: Target, deadline_seconds: float) -> Finding:
    probes = read_probes(target.kube, target.namespace)
    if not probes:
        return Finding("skipped", "none is deployed")
    amiss = {probe.name: ask(target.kube, target.namespace, probe, deadline_seconds) for probe in probes}
    detail = "; ".join(f"{name}: {trouble or 'ready'}" for name, trouble in amiss.items())
    down = [name for name, trouble in amiss.items() if trouble]
    # Agents are served all the same.
    if down:
        return Finding("degraded", detail, f"kubectl describe deployment {down[0]}; kubectl logs deployment/{down[0]}")
    return Finding("healthy", detail)


CHECKS: tuple[Check[Target], ...] = (
    Check("Kubernetes API", "check that the cluster runs and --context names it", True, 10, _check_api_server),
    Check("Deployment", "python deployment_cli.py deploy cluster-config.yaml", True, 10, _check_deployment),
    Check("Cluster nodes", "kubectl describe nodes", False, 10, _check_cluster_nodes),
    Check("CRDT workload", f"kubectl describe statefulset {CRDT}; deploy again", False, 10, _check_crdt),
    Check("Backend workload", f"kubectl describe deployment {BACKEND}; deploy again", False, 10, _check_backend),
    Check("Storage", "kubectl describe persistentvolumeclaims", False, 10, _check_storage),
    Check("API endpoints", f"kubectl logs deployment/{BACKEND}; infrastructure.vpc_cidr must hold the nodes' network",
          False, 10, _check_api),
    Check("CRDT synchronization", f"kubectl logs {CRDT}-0; check the network between nodes", False, 15,
          _check_synchronization),
    Check("Monitoring systems", "kubectl get pods", False, 10, _check_monitoring),
)  # fmt: skip
