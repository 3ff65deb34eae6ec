"""How far the release's workloads, pods and volumes have come. Reads; changes nothing."""

from collections.abc import Iterable
from typing import Any

import msgspec

from harness.kube import Json, Kube, annotations_of, labels_of
from harness.release.name import BACKEND, CRDT, LABELS, MONITORING


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A StatefulSet or Deployment: how many pods it wants, has in its newest version, and has ready.

    Attributes:
        kind: `StatefulSet` or `Deployment`.
        name: The object's name.
        desired: How many pods its specification asks for.
        updated: How many run the newest specification.
        ready: How many are ready.
        complete: Whether the newest specification runs in all pods, or in those above its partition, and all are ready.
        message: Why its controller makes no progress; empty when it says nothing.
    """

    kind: str
    name: str
    desired: int
    updated: int
    ready: int
    complete: bool
    message: str


class Pod(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pod and, while it is not ready, why.

    Attributes:
        name: The pod's name.
        node: The cluster node that runs it; empty before it is scheduled.
        phase: As Kubernetes reports it: Pending, Running, Succeeded, Failed; or Terminating.
        ready: Whether it takes traffic.
        current: Whether it runs the newest specification of its workload.
        restarts: How often its containers were restarted.
        reason: One word, such as ImagePullBackOff or Unschedulable; empty when nothing is wrong.
        message: A sentence to it.
    """

    name: str
    node: str
    phase: str
    ready: bool
    current: bool
    restarts: int
    reason: str
    message: str


class Volume(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A persistent volume claim.

    Attributes:
        name: The claim's name.
        phase: Pending, Bound or Lost.
        capacity: What it got, such as `10Gi`; empty until it is bound.
    """

    name: str
    phase: str
    capacity: str


def read_workloads(kube: Kube, namespace: str) -> list[Workload]:
    """Return the release's StatefulSet and Deployments, as far as they exist."""
    found = [
        ("statefulsets", "StatefulSet", CRDT),
        *(("deployments", "Deployment", name) for name in (BACKEND, *MONITORING)),
    ]
    bodies = [(kind, kube.read(plural, namespace, name)) for plural, kind, name in found]
    return [_workload(kind, body) for kind, body in bodies if body is not None]


def is_complete(workloads: Iterable[Workload]) -> bool:
    """Return whether nodes and backend are there, and all that is there runs what was deployed."""
    complete = {workload.name: workload.complete for workload in workloads}
    return complete.keys() >= {CRDT, BACKEND} and all(complete.values())


def read_pods(kube: Kube, namespace: str) -> list[Pod]:
    """Return the release's pods by name, without those of finished jobs."""
    revisions = _current_revisions(kube, namespace)
    pods = [_pod(body, revisions) for body in kube.read_all("pods", namespace, labels=LABELS) if not _of_job(body)]
    return sorted(pods, key=lambda pod: pod.name)


def read_volumes(kube: Kube, namespace: str) -> list[Volume]:
    """Return the release's volume claims by name."""
    volumes = [
        Volume(
            name=body["metadata"]["name"],
            phase=body.get("status", {}).get("phase", "Pending"),
            capacity=body.get("status", {}).get("capacity", {}).get("storage", ""),
        )
        for body in kube.read_all("persistentvolumeclaims", namespace, labels=LABELS)
    ]
    return sorted(volumes, key=lambda volume: volume.name)


def read_warnings(kube: Kube, namespace: str, kind: str, name: str) -> list[str]:
    """Return what the cluster warns of an object, oldest first."""
    fields = f"type=Warning,involvedObject.kind={kind},involvedObject.name={name}"
    events = kube.read_all("events", namespace, fields=fields)
    events.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
    return [f"{event.get('reason', '')}: {event.get('message', '')}" for event in events]


def _workload(kind: str, body: Json) -> Workload:
    status = body.get("status", {})
    desired = body["spec"].get("replicas", 1)
    updated = status.get("updatedReplicas", 0)
    ready = status.get("readyReplicas", 0)
    seen = status.get("observedGeneration", 0) >= body["metadata"].get("generation", 0)
    total = status.get("replicas", 0)
    held = body["spec"].get("updateStrategy", {}).get("rollingUpdate", {}).get("partition", 0)
    revision_reached = kind != "StatefulSet" or held or status.get("currentRevision") == status.get("updateRevision")
    trouble = [
        condition.get("message", "")
        for condition in status.get("conditions", [])
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True"
    ]
    return Workload(
        kind=kind,
        name=body["metadata"]["name"],
        desired=desired,
        updated=updated,
        ready=ready,
        complete=bool(seen and revision_reached and updated >= desired - held and desired == ready == total),
        message="; ".join(trouble),
    )


def _current_revisions(kube: Kube, namespace: str) -> set[str]:
    """Return the labels that mark pods of the newest specification."""
    revisions = set()
    stateful = kube.read("statefulsets", namespace, CRDT)
    if stateful is not None:
        revisions.add(stateful.get("status", {}).get("updateRevision", ""))
    newest: dict[str, Json] = {}
    for body in kube.read_all("replicasets", namespace, labels=LABELS):
        for owner in body["metadata"].get("ownerReferences", []):
            newest[owner["name"]] = max(newest.get(owner["name"], body), body, key=_revision_number)
    return revisions | {labels_of(body).get("pod-template-hash", "") for body in newest.values()}


def _revision_number(body: Json) -> int:
    return int(annotations_of(body).get("deployment.kubernetes.io/revision", "0"))


def _of_job(body: Json) -> bool:
    return any(owner["kind"] == "Job" for owner in body["metadata"].get("ownerReferences", []))


def _pod(body: Json, revisions: set[str]) -> Pod:
    status = body.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    ready = conditions.get("Ready", {}).get("status") == "True"
    terminating = "deletionTimestamp" in body["metadata"]
    reason, message = ("", "") if ready or terminating else _trouble(status, conditions, containers)
    labels = labels_of(body)
    return Pod(
        name=body["metadata"]["name"],
        node=body["spec"].get("nodeName", ""),
        phase="Terminating" if terminating else status.get("phase", "Pending"),
        ready=ready and not terminating,
        current=bool({labels.get("controller-revision-hash", ""), labels.get("pod-template-hash", "")} & revisions),
        restarts=sum(container.get("restartCount", 0) for container in containers),
        reason=reason,
        message=message,
    )


def _trouble(status: Json, conditions: dict[str, Any], containers: list[Json]) -> tuple[str, str]:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return scheduled.get("reason", "Unschedulable"), scheduled.get("message", "")
    for container in containers:
        waiting = container.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in {"ContainerCreating", "PodInitializing"}:
            ended = container.get("lastState", {}).get("terminated", {})
            code = f" (last exit status {ended['exitCode']})" if "exitCode" in ended else ""
            return waiting.get("reason", "Waiting"), f"{waiting.get('message', '')}{code}".strip()
    if status.get("reason"):
        return status["reason"], status.get("message", "")
    return "", ""
