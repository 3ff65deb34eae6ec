"""The release's namespace: made with the strictest pod security, or adopted as it is."""

from collections.abc import Callable

from harness.failure import Failure
from harness.kube import Json, Kube, annotations_of, labels_of
from harness.release.name import CLI, CREATED_BY

_LEVEL = "restricted"
_MODES = ("enforce", "warn", "audit")


def ensure_namespace(kube: Kube, namespace: str, progress: Callable[[str], None]) -> None:
    """Create the namespace unless it exists; one that exists keeps the labels that its owner gave it.

    Raises:
        Failure: It is being deleted.
    """
    found = kube.read("namespaces", "", namespace)
    if found is None:
        labels = {f"pod-security.kubernetes.io/{mode}": _LEVEL for mode in _MODES}
        metadata = {"name": namespace, "labels": labels, "annotations": {CREATED_BY: CLI}}
        kube.create("namespaces", "", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        progress(f"namespace {namespace} created, pod security {_LEVEL}")
        return
    if found.get("status", {}).get("phase") == "Terminating":
        raise Failure(f"the namespace {namespace} is being deleted", "wait until it is gone, then deploy again")
    level = labels_of(found).get("pod-security.kubernetes.io/enforce", "none")
    progress(f"namespace {namespace} exists already; its pod security ({level}) stays as it is")


def owned_by_cli(kube: Kube, namespace: str) -> bool:
    """Return whether the CLI created the namespace, so that cleanup may delete it."""
    found: Json = kube.read("namespaces", "", namespace) or {}
    return annotations_of(found).get(CREATED_BY) == CLI
