"""Waits until the release's workloads run what was deployed, and gives up early on what waiting cannot cure."""

import time
from collections.abc import Callable

from harness.failure import Failure
from harness.kube import Kube, UnreachableError
from harness.poll import Done, Pending, wait_until
from harness.release.workload import Pod, Workload, is_complete, read_pods, read_warnings, read_workloads

_IMAGE_REMEDY = (
    "on the local cluster load the image with `python -m harness.cluster image`; elsewhere push it, and set "
    "image.repository and image.tag, or those of monitoring, to where it is"
)
# Waiting cures none of these; the second number is how long each may last first, in seconds, because registries,
# schedulers and restarts get a second chance.
_HOPELESS: dict[str, tuple[str, float]] = {
    "InvalidImageName": ("correct image.repository and image.tag in the configuration", 0),
    "ErrImageNeverPull": ("load the image into the cluster's nodes: `python -m harness.cluster image`", 0),
    "ErrImagePull": (_IMAGE_REMEDY, 120),
    "ImagePullBackOff": (_IMAGE_REMEDY, 60),
    "CreateContainerConfigError": ("deploy again; if it stays, read the message: an object that it names is gone", 60),
    "CrashLoopBackOff": ("read why: kubectl logs {pod} -n {namespace} --previous", 90),
    "Unschedulable": (
        "free cpu or memory, add nodes, or ask for less: infrastructure.instance_type, node_count, "
        "deployment.replicas, availability_zones",
        120,
    ),
    "FailedCreate": ("correct what the message names (quota, admission policy, pod security)", 60),
}


class RolloutError(Failure):
    """The rollout cannot come to an end by itself."""


class Rollout:
    """One rollout being watched; remembers since when each trouble lasts.

    Args:
        kube: The cluster.
        namespace: Where the release is.
        clock: Seconds that only grow.
    """

    def __init__(self, kube: Kube, namespace: str, clock: Callable[[], float]) -> None:
        self._kube = kube
        self._namespace = namespace
        self._clock = clock
        self._since: dict[tuple[str, str], float] = {}

    def look(self) -> Done[None] | Pending:
        """Look once.

        Raises:
            RolloutError: Something lasts that waiting does not cure.
        """
        try:
            workloads = read_workloads(self._kube, self._namespace)
            pods = read_pods(self._kube, self._namespace)
        except UnreachableError as error:
            return Pending(error.message)
        if is_complete(workloads):
            return Done(None)
        troubles = [*_pod_troubles(pods), *self._missing_pods(workloads)]
        self._judge(troubles, ready={pod.name for pod in pods if pod.ready})
        state = ", ".join(f"{workload.name} {workload.ready}/{workload.desired} ready" for workload in workloads)
        waiting = [f"{name} {reason}: {message}".rstrip(": ") for name, reason, message in troubles]
        return Pending("; ".join([state or "no workload yet", *waiting]))

    def _missing_pods(self, workloads: list[Workload]) -> list[tuple[str, str, str]]:
        found = []
        for workload in workloads:
            if workload.updated < workload.desired:
                warnings = read_warnings(self._kube, self._namespace, workload.kind, workload.name)
                refused = [workload.message] if workload.message else [w for w in warnings if "FailedCreate" in w]
                found += [(workload.name, "FailedCreate", message) for message in refused[-1:]]
        return found

    def _judge(self, troubles: list[tuple[str, str, str]], ready: set[str]) -> None:
        # A crash loop shows as running between its restarts; only a pod that became ready has recovered.
        self._since = {key: since for key, since in self._since.items() if key[0] not in ready}
        now = self._clock()
        for name, reason, message in troubles:
            self._since.setdefault((name, reason), now)
            remedy, patience_seconds = _HOPELESS.get(reason, ("", float("inf")))
            if now - self._since[name, reason] >= patience_seconds:
                raise RolloutError(
                    f"{name} cannot start: {reason}: {message}".rstrip(": "),
                    remedy.format(pod=name, namespace=self._namespace),
                )


def _pod_troubles(pods: list[Pod]) -> list[tuple[str, str, str]]:
    """Return name, reason and message of the pods that hold the rollout up; older revisions are on their way out."""
    return [(pod.name, pod.reason, pod.message) for pod in pods if pod.current and pod.reason]


def wait_for_rollout(
    kube: Kube,
    namespace: str,
    *,
    deadline_seconds: float,
    progress: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until every pod of all workloads runs the newest specification and is ready.

    Raises:
        RolloutError: Waiting is hopeless; says why.
        WaitTimeoutError: The deadline passed.
    """
    wait_until(
        Rollout(kube, namespace, clock).look,
        what=f"the rollout in {namespace}",
        deadline_seconds=deadline_seconds,
        interval_seconds=2,
        clock=clock,
        sleep=sleep,
        progress=progress,
    )
