"""What `status` and `deploy` tell about a deployment."""

from typing import Literal

import msgspec

from harness.kube import ForbiddenError, Kube
from harness.release.helm import read_release
from harness.release.record import Phase, Record
from harness.release.workload import Pod, Volume, Workload, is_complete, read_pods, read_volumes, read_workloads


class Status(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One deployment as the cluster tells it.

    Attributes:
        deployment_id: `jarvis-` and eight hexadecimal digits.
        phase: How far the last command came.
        state: `ready`: phase and workloads are; `failed`: the last command failed; `progressing`: neither.
        message: Why the phase is `failed`, or what to do when a command was cut off; otherwise empty.
        context: The kubeconfig context of the cluster.
        namespace: Where the deployment is.
        created: When the first deploy began (RFC 3339, UTC).
        updated: When the phase was last written (RFC 3339, UTC).
        chart_version: The chart's version.
        config_digest: SHA-256 of the configuration.
        helm_revision: The helm release's revision; 0 when there is none, null when reading it is not allowed.
        helm_status: As helm reports it, such as `deployed`; empty when there is none.
        workloads: The StatefulSet and the Deployments.
        pods: Their pods.
        volumes: The volume claims.
    """

    deployment_id: str
    phase: Phase
    state: Literal["ready", "progressing", "failed"]
    message: str
    context: str
    namespace: str
    created: str
    updated: str
    chart_version: str
    config_digest: str
    helm_revision: int | None
    helm_status: str
    workloads: list[Workload]
    pods: list[Pod]
    volumes: list[Volume]


def read_status(kube: Kube, namespace: str, record: Record) -> Status:
    """Return the deployment's status now."""
    workloads = read_workloads(kube, namespace)
    try:
        release = read_release(kube, namespace)
        revision, helm_status = (release.revision, release.status) if release else (0, "")
    except ForbiddenError:
        revision, helm_status = None, ""
    return Status(
        deployment_id=record.id,
        phase=record.phase,
        state=_state(record, workloads),
        message=record.message or _advice(record.phase),
        context=kube.context,
        namespace=namespace,
        created=record.created,
        updated=record.updated,
        chart_version=record.chart_version,
        config_digest=record.config_digest,
        helm_revision=revision,
        helm_status=helm_status,
        workloads=workloads,
        pods=read_pods(kube, namespace),
        volumes=read_volumes(kube, namespace),
    )


def _state(record: Record, workloads: list[Workload]) -> Literal["ready", "progressing", "failed"]:
    if record.phase == "failed":
        return "failed"
    return "ready" if record.phase == "ready" and is_complete(workloads) else "progressing"


def _advice(phase: Phase) -> str:
    return {
        "deploying": "a deploy is under way; if it was cut off, deploy again",
        "removing": "a cleanup is under way; if it was cut off, run it again",
    }.get(phase, "")
