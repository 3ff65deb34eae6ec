"""What Kubernetes lets nobody change in an object that exists; an upgrade that tries is refused by the API server."""

import copy

from tests.chart.conftest import Manifest

# What may change in a StatefulSet's spec; nothing else may.
_STATEFUL_SET = {
    *("replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit", "minReadySeconds"),
    "persistentVolumeClaimRetentionPolicy",
}
# The same of other kinds, the other way round; a volume claim takes a larger size, but not from every class.
_FIELDS = {
    "Deployment": ("selector",),
    "DaemonSet": ("selector",),
    "PodDisruptionBudget": ("selector",),
    "Service": ("clusterIP", "selector"),
    "Job": ("template", "selector", "completionMode"),
    "PersistentVolumeClaim": ("accessModes", "resources", "selector", "storageClassName", "volumeMode"),
    "RoleBinding": ("roleRef",),
    "ClusterRoleBinding": ("roleRef",),
    "Secret": ("type", "immutable"),
}


def immutable_of(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return what may never change, by `kind/name`; hooks are left out, because each run replaces them."""
    return {
        f"{body['kind']}/{body['metadata']['name']}": kept
        for body in manifests
        if "helm.sh/hook" not in body["metadata"].get("annotations", {}) and (kept := _immutable(copy.deepcopy(body)))
    }


def _immutable(body: Manifest) -> Manifest:
    spec = body.get("spec", {})
    kind = body["kind"]
    if kind == "StatefulSet":
        return {name: value for name, value in spec.items() if name not in _STATEFUL_SET}
    if kind == "ConfigMap":
        return body if body.get("immutable") else {}
    whole = body if kind in {"RoleBinding", "ClusterRoleBinding", "Secret"} else spec
    return {name: whole[name] for name in _FIELDS.get(kind, ()) if name in whole}
