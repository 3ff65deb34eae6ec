"""Removes everything that a deploy made, in an order that a second cleanup can take up again."""

import time
from collections.abc import Callable

import msgspec

from harness.kube import Kube, labels_of
from harness.poll import Done, Pending, wait_until
from harness.release.helm import Helm
from harness.release.name import LABELS, RECORD, TRUST
from harness.release.namespace import owned_by_cli
from harness.release.record import Record

# What helm leaves behind: hooks, pods of failed tests, and what the StatefulSet's template claimed.
_LEFT_BEHIND = ("jobs", "rolebindings", "roles", "serviceaccounts", "pods", "persistentvolumeclaims")
# What must be gone before the record may go; the record comes last, since it is what a second cleanup starts from.
_AWAITED = ("statefulsets", "deployments", "pods", "persistentvolumeclaims", "services")
# Someone else's objects of these kinds keep the namespace alive.
_GUESTS = ("pods", "persistentvolumeclaims", "services", "secrets", "configmaps")
_OF_EVERY_NAMESPACE = {"kube-root-ca.crt", RECORD}


class Removal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a cleanup did.

    Attributes:
        deployment_id: What was removed.
        context: The kubeconfig context of its cluster.
        namespace: Where it was.
        namespace_deleted: Whether the namespace went with it.
        note: Why the namespace stayed; empty when it is gone.
    """

    deployment_id: str
    context: str
    namespace: str
    namespace_deleted: bool
    note: str


def remove(
    kube: Kube,
    helm: Helm,
    record: Record,
    *,
    deadline_seconds: float,
    progress: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Removal:
    """Uninstall the release, delete its data and Secrets, then its namespace if the CLI made it; wait until gone.

    Raises:
        WaitTimeoutError: Something is still there after `deadline_seconds`.
        Failure: helm or the cluster refused.
    """
    namespace = helm.namespace

    def wait(what: str, remaining: Callable[[], str]) -> None:
        def look() -> Done[None] | Pending:
            left = remaining()
            return Pending(f"{left} still there") if left else Done(None)

        wait_until(
            look, what=what, deadline_seconds=deadline_seconds, clock=clock, sleep=sleep, interval_seconds=2,
            progress=progress,
        )  # fmt: skip

    progress("uninstalling the release")
    helm.uninstall()
    progress("deleting volumes and hooks")
    for plural in _LEFT_BEHIND:
        for body in kube.read_all(plural, namespace, labels=LABELS):
            kube.delete(plural, namespace, body["metadata"]["name"])
    wait("the release's objects to go", lambda: _names(kube, namespace, _AWAITED))
    for secret in record.secrets.split():
        kube.delete("secrets", namespace, secret)
    kube.delete("configmaps", namespace, TRUST)
    note = _reason_to_keep(kube, namespace)
    if note:
        kube.delete("configmaps", namespace, RECORD)
    else:
        progress(f"deleting the namespace {namespace}")
        kube.delete("namespaces", "", namespace)
        wait(f"the namespace {namespace} to go", lambda: namespace if kube.read("namespaces", "", namespace) else "")
    return Removal(
        deployment_id=record.id,
        context=kube.context,
        namespace=namespace,
        namespace_deleted=not note,
        note=note,
    )


def _names(kube: Kube, namespace: str, plurals: tuple[str, ...]) -> str:
    return ", ".join(
        f"{plural}/{body['metadata']['name']}"
        for plural in plurals
        for body in kube.read_all(plural, namespace, labels=LABELS)
    )


def _reason_to_keep(kube: Kube, namespace: str) -> str:
    if not owned_by_cli(kube, namespace):
        return f"the namespace {namespace} existed before the first deploy and stays"
    guests = [
        f"{plural}/{body['metadata']['name']}"
        for plural in _GUESTS
        for body in kube.read_all(plural, namespace)
        if body["metadata"]["name"] not in _OF_EVERY_NAMESPACE and not _ours(labels_of(body))
    ]
    if guests:
        return f"the namespace {namespace} holds other objects and stays: {', '.join(guests)}"
    return ""


def _ours(labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in (pair.split("=") for pair in LABELS.split(",")))
