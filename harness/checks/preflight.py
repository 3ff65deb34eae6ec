"""The checks that a deploy passes before it changes anything.

They read what the chart will make (its rendered objects) rather than the configuration, so that they judge what the
cluster will really be asked for.
"""

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.checks.check import Check, Finding, Row, run_checks
from harness.kube import ForbiddenError, Json, Kube, RefusedError, annotations_of, labels_of, path_of
from harness.release.helm import Helm
from harness.release.name import CRDT, LABELS, NAMESPACE, RELEASE, own_secrets
from harness.spec.quantity import read_quantity

_KUBERNETES_MIN = (1, 29)
_HELM_MIN = (3, 14)
_ZONE = "topology.kubernetes.io/zone"
_WORKLOADS = ("StatefulSet", "Deployment")
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


@dataclass(frozen=True)
class Plan:
    """What is about to be deployed, and where.

    Args:
        kube: The cluster.
        helm: The helm program, bound to the cluster and the namespace.
        values: The whole configuration, defaults included.
        overrides: What of it the user wrote.
    """

    kube: Kube
    helm: Helm
    values: Mapping[str, Any]
    overrides: Mapping[str, Any]

    @cached_property
    def objects(self) -> list[Json]:
        """The objects that the chart makes."""
        return self.helm.render(self.overrides)

    def of_kind(self, kind: str) -> list[Json]:
        """The objects of one kind."""
        return [body for body in self.objects if body["kind"] == kind]


def check_preflight(plan: Plan) -> Iterator[Row]:
    """Run every preflight check and yield what each found."""
    return run_checks(CHECKS, plan)


def _check_api_server(plan: Plan, deadline_seconds: float) -> Finding:
    body = plan.kube.request("GET", "/version", timeout_seconds=deadline_seconds)
    version = tuple(int(re.sub(r"\D", "", body.get(part, "0")) or 0) for part in ("major", "minor"))
    detail = f"Kubernetes {body.get('gitVersion', 'unknown')}, context {plan.kube.context}"
    return Finding("healthy" if version >= _KUBERNETES_MIN else "unhealthy", detail)


def _check_helm(plan: Plan, _deadline_seconds: float) -> Finding:
    version = plan.helm.version()
    detail = f"helm {'.'.join(map(str, version))}, {len(plan.objects)} objects"
    return Finding("healthy" if version >= _HELM_MIN else "unhealthy", detail)


def _check_owner(plan: Plan, _deadline_seconds: float) -> Finding:
    found = plan.kube.read("statefulsets", plan.helm.namespace, CRDT)
    owner = annotations_of(found or {}).get("meta.helm.sh/release-name", "")
    if found is None:
        return Finding("healthy", "nothing else of that name")
    if owner == RELEASE:
        return Finding("healthy", "an earlier deploy, which this one changes")
    return Finding("unhealthy", f"{CRDT} belongs to {f'the helm release {owner}' if owner else 'something else'}")


def _check_permissions(plan: Plan, _deadline_seconds: float) -> Finding:
    asked = {("", "configmaps", "create"), ("", "configmaps", "patch"), ("", "secrets", "create")}
    if plan.kube.read("namespaces", "", plan.helm.namespace) is None:
        asked.add(("", "namespaces", "create"))
    unknown = []
    for version, kind in sorted({(body["apiVersion"], body["kind"]) for body in plan.objects}):
        plural = _plural(plan.kube, version, kind)
        if plural:
            asked.add((version.rpartition("/")[0], plural, "create"))
        else:
            unknown.append(f"{version} {kind}")
    if unknown:
        return Finding("unhealthy", f"the cluster does not know {', '.join(unknown)}", "install what provides it")
    refused = [
        f"{verb} {plural}{f'.{group}' if group else ''}"
        for group, plural, verb in sorted(asked)
        if not _allowed(plan, group, plural, verb)
    ]
    if refused:
        return Finding("unhealthy", f"not allowed in {plan.helm.namespace}: {', '.join(refused)}")
    return Finding("healthy", f"{len(asked)} rights present")


def _plural(kube: Kube, version: str, kind: str) -> str:
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    try:
        resources = kube.request("GET", root).get("resources", [])
    except RefusedError as error:
        if error.status == 404:
            return ""
        raise
    return next((each["name"] for each in resources if each["kind"] == kind and "/" not in each["name"]), "")


def _allowed(plan: Plan, group: str, plural: str, verb: str) -> bool:
    attributes = {"namespace": plan.helm.namespace, "group": group, "resource": plural, "verb": verb}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = plan.kube.request("POST", path_of("selfsubjectaccessreviews"), body)
    return bool(answer.get("status", {}).get("allowed"))


def _check_secrets(plan: Plan, _deadline_seconds: float) -> Finding:
    specs = [body["spec"]["template"]["spec"] for kind in _WORKLOADS for body in plan.of_kind(kind)]
    mounted = {
        volume["secret"]["secretName"] for spec in specs for volume in spec.get("volumes", []) if "secret" in volume
    }
    wanted = sorted(mounted & set(own_secrets(plan.values)))
    try:
        missing = [name for name in wanted if plan.kube.read("secrets", plan.helm.namespace, name) is None]
    except ForbiddenError as error:
        return Finding("skipped", error.message)
    if missing:
        return Finding("unhealthy", f"{plan.helm.namespace} lacks {', '.join(missing)}")
    return Finding("healthy", f"{len(wanted)} of yours present" if wanted else "none of yours asked for")


def _check_storage(plan: Plan, _deadline_seconds: float) -> Finding:
    claims = [claim for body in plan.of_kind("StatefulSet") for claim in body["spec"].get("volumeClaimTemplates", [])]
    claims += plan.of_kind("PersistentVolumeClaim")
    wanted = {claim["spec"].get("storageClassName") or "" for claim in claims}
    try:
        classes = plan.kube.read_all("storageclasses")
    except ForbiddenError as error:
        return Finding("skipped", error.message)
    names = {body["metadata"]["name"] for body in classes}
    has_default = any(annotations_of(body).get(_DEFAULT_CLASS) == "true" for body in classes)
    missing = sorted(name or "(default)" for name in wanted if (name not in names if name else not has_default))
    if missing:
        known = ", ".join(sorted(names)) or "none"
        return Finding("unhealthy", f"no StorageClass {', '.join(missing)}; the cluster has: {known}")
    changed = next(filter(None, (_changed_claims(plan, body) for body in plan.of_kind("StatefulSet"))), "")
    if changed:
        return Finding(
            "unhealthy",
            changed,
            "Kubernetes does not change the volumes of a running StatefulSet: keep storage_size and storage_class, "
            "enlarge the volumes as docs/upgrade.md says, or deploy into another --namespace",
        )
    growing = {body["metadata"]["name"] for body in classes if body.get("allowVolumeExpansion")}
    claims = plan.of_kind("PersistentVolumeClaim")
    changed = next(filter(None, (_changed_volume(plan, body, growing) for body in claims)), "")
    if changed:
        return Finding(
            "unhealthy",
            changed,
            "Kubernetes does not change that: keep size and class, or delete the claim, and with it what it holds",
        )
    return Finding("healthy", f"StorageClass {', '.join(sorted(name or '(default)' for name in wanted))}")


def _changed_claims(plan: Plan, body: Json) -> str:
    running = plan.kube.read("statefulsets", plan.helm.namespace, body["metadata"]["name"])
    if running is None:
        return ""
    before = {claim["metadata"]["name"]: claim["spec"] for claim in running["spec"].get("volumeClaimTemplates", [])}
    for claim in body["spec"].get("volumeClaimTemplates", []):
        old, new = before.get(claim["metadata"]["name"], {}), claim["spec"]
        sizes = [spec.get("resources", {}).get("requests", {}).get("storage", "0") for spec in (old, new)]
        if read_quantity(sizes[0]) != read_quantity(sizes[1]):
            return f"the volumes have {sizes[0]}, the configuration asks for {sizes[1]}"
        names = [spec.get("storageClassName") or "" for spec in (old, new)]
        # Without a name the API server filled in the default class when the StatefulSet was made.
        if names[1] and names[0] != names[1]:
            return f"the volumes are of StorageClass {names[0] or '(default)'}, the configuration asks for {names[1]}"
    return ""


def _changed_volume(plan: Plan, body: Json, growing: Set[str]) -> str:
    """Say how a claim may not change: its class, to less, or to more where the class does not let it."""
    name, new = body["metadata"]["name"], body["spec"]
    running = plan.kube.read("persistentvolumeclaims", plan.helm.namespace, name)
    if running is None:
        return ""
    old = running["spec"]
    names = [spec.get("storageClassName") or "" for spec in (old, new)]
    if names[1] and names[0] != names[1]:
        return f"the volume {name} is of StorageClass {names[0] or '(default)'}, the configuration asks for {names[1]}"
    sizes = [spec["resources"]["requests"]["storage"] for spec in (old, new)]
    before, after = map(read_quantity, sizes)
    if before == after or (before < after and names[0] in growing):
        return ""
    return f"the volume {name} has {sizes[0]}, the configuration asks for {sizes[1]}"


def _check_zones(plan: Plan, _deadline_seconds: float) -> Finding:
    wanted = set(plan.values["infrastructure"]["availability_zones"])
    try:
        known = {labels_of(node)[_ZONE] for node in plan.kube.read_all("nodes") if _ZONE in labels_of(node)}
    except ForbiddenError as error:
        return Finding("skipped", error.message)
    missing = sorted(wanted - known)
    if missing:
        return Finding("unhealthy", f"no node in {', '.join(missing)}; nodes are in: {', '.join(sorted(known)) or '-'}")
    return Finding("healthy", f"nodes in {', '.join(sorted(wanted))}" if wanted else "no zone asked for")


def _check_capacity(plan: Plan, _deadline_seconds: float) -> Finding:
    try:
        specs = [body["spec"]["template"]["spec"] for kind in _WORKLOADS for body in plan.of_kind(kind)]
        nodes = [node for node in plan.kube.read_all("nodes") if any(_takes(node, spec) for spec in specs)]
        pods = plan.kube.read_all("pods", fields="status.phase!=Succeeded,status.phase!=Failed")
    except ForbiddenError as error:
        return Finding("skipped", error.message)
    open_names = {node["metadata"]["name"] for node in nodes}
    others = [pod for pod in pods if pod["spec"].get("nodeName") in open_names and not _of_release(plan, pod)]
    findings, short = [], False
    for resource, unit, scale in (("cpu", "cores", 1.0), ("memory", "GiB", 2.0**30)):
        free = sum(read_quantity(node["status"]["allocatable"][resource]) for node in nodes)
        free -= sum(_requested(pod["spec"], resource) for pod in others)
        needed = sum(
            _requested(body["spec"]["template"]["spec"], resource) * _pod_count(plan, body)
            for kind in _WORKLOADS
            for body in plan.of_kind(kind)
        )
        short = short or needed > free
        findings.append(f"{resource} {needed / scale:.2f} of {free / scale:.2f} {unit} free")
    return Finding("unhealthy" if short else "healthy", ", ".join(findings))


def _takes(node: Json, pod: Json) -> bool:
    """Whether the scheduler may put a pod on a node, by its labels and taints."""
    taints = [taint for taint in node["spec"].get("taints", []) if taint["effect"] != "PreferNoSchedule"]
    return (
        not node["spec"].get("unschedulable")
        and pod.get("nodeSelector", {}).items() <= labels_of(node).items()
        and all(any(_bears(each, taint) for each in pod.get("tolerations", [])) for taint in taints)
    )


def _bears(toleration: Json, taint: Json) -> bool:
    value = taint.get("value", "")
    told = (toleration["key"], toleration.get("effect", taint["effect"]), toleration.get("value", value))
    return told == (taint["key"], taint["effect"], value)


def _of_release(plan: Plan, pod: Json) -> bool:
    labels = {f"{key}={value}" for key, value in labels_of(pod).items()}
    return pod["metadata"].get("namespace", NAMESPACE) == plan.helm.namespace and set(LABELS.split(",")) <= labels


def _requested(spec: Json, resource: str) -> float:
    return sum(
        read_quantity(container.get("resources", {}).get("requests", {}).get(resource, "0"))
        for container in spec["containers"]
    )


def _pod_count(plan: Plan, body: Json) -> int:
    if "replicas" in body["spec"]:
        return int(body["spec"]["replicas"])
    scalers = [scaler["spec"] for scaler in plan.of_kind("HorizontalPodAutoscaler")]
    return next(
        (
            int(spec.get("minReplicas", 1))
            for spec in scalers
            if spec["scaleTargetRef"]["name"] == body["metadata"]["name"]
        ),
        1,
    )


CHECKS: tuple[Check[Plan], ...] = (
    Check("Kubernetes API", "use a cluster of Kubernetes 1.29 or newer", True, 10, _check_api_server),
    Check("helm and chart", "install helm 3.14 or newer", True, 30, _check_helm),
    Check("Release", "choose another --namespace, or uninstall that one", True, 10, _check_owner),
    Check("Permissions", "ask an administrator of the cluster for these rights", True, 30, _check_permissions),
    Check("Secrets", "create them as docs/security.md says, or choose another security.secrets.source or "
          "security.certificates.source", False, 10, _check_secrets),
    Check("Storage", "correct infrastructure.storage_class, or map the tier in storage_classes", False, 10,
          _check_storage),
    Check("Zones", "correct infrastructure.availability_zones", False, 10, _check_zones),
    Check("Capacity", "add nodes, or ask for less: infrastructure.instance_type and node_count, deployment.replicas",
          False, 10, _check_capacity),
)  # fmt: skip
