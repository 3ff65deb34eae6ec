from typing import Any

import pytest

from harness.checks.check import Row
from harness.checks.preflight import Plan, check_preflight
from harness.spec.quantity import read_quantity
from harness.spec.schema import defaults
from tests.unit.harness.fake_api import FakeApi, deployed_api


class FakeHelm:
    """Renders a StatefulSet of three and a Deployment whose replicas an autoscaler decides."""

    namespace = "jarvis-system"

    def __init__(
        self,
        *,
        version: tuple[int, ...] = (4, 3, 0),
        cpu: str = "500m",
        storage: str = "1Gi",
        claim: str = "fast-ssd",
        claimed: str = "1Gi",
        placement: dict[str, Any] | None = None,
    ) -> None:
        self._version = version
        self._cpu = cpu
        self._storage = storage
        self._claim = claim
        self._claimed = claimed
        self._placement = placement or {}

    def version(self) -> tuple[int, ...]:
        return self._version

    def render(self, _values: dict[str, Any]) -> list[dict[str, Any]]:
        container = {"name": "c", "resources": {"requests": {"cpu": self._cpu, "memory": "512Mi"}}}
        template = {"spec": {"containers": [container], **self._placement}}
        claim = {
            "metadata": {"name": "data"},
            "spec": {"storageClassName": "fast-ssd", "resources": {"requests": {"storage": self._storage}}},
        }
        named = {"name": "jarvis-backend"}
        return [
            {
                "apiVersion": "apps/v1",
                "kind": "StatefulSet",
                "metadata": {"name": "jarvis-crdt"},
                "spec": {"replicas": 3, "template": template, "volumeClaimTemplates": [claim]},
            },
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": named, "spec": {"template": template}},
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "jarvis-prometheus"},
                "spec": {"storageClassName": self._claim, "resources": {"requests": {"storage": self._claimed}}},
            },
            {
                "apiVersion": "autoscaling/v2",
                "kind": "HorizontalPodAutoscaler",
                "metadata": named,
                "spec": {"scaleTargetRef": named, "minReplicas": 2},
            },
        ]


def ready_api() -> FakeApi:
    api = deployed_api()
    for plural in ("statefulsets", "deployments"):
        api.objects = {key: body for key, body in api.objects.items() if key[0] != plural}
    api.resources = {
        "/api/v1": [{"kind": "PersistentVolumeClaim", "name": "persistentvolumeclaims"}],
        "/apis/apps/v1": [
            {"kind": "StatefulSet", "name": "statefulsets"},
            {"kind": "Deployment", "name": "deployments"},
        ],
        "/apis/autoscaling/v2": [{"kind": "HorizontalPodAutoscaler", "name": "horizontalpodautoscalers"}],
    }
    api.put("storageclasses", "", "fast-ssd")
    return api


def rows_of(
    api: FakeApi, helm: FakeHelm | None = None, zones: tuple[str, ...] = (), security: dict[str, Any] | None = None
) -> dict[str, Row]:
    values = {"infrastructure": {"availability_zones": list(zones)}, "security": security or defaults()["security"]}
    plan = Plan(api.kube(), helm or FakeHelm(), values, {})  # type: ignore[arg-type]
    return {row.name: row for row in check_preflight(plan)}


def test_a_fit_cluster_passes_and_nothing_is_changed() -> None:
    api = ready_api()

    rows = rows_of(api, zones=("zone-a", "zone-b"))

    assert [row for row in rows.values() if row.verdict != "healthy"] == []
    assert rows["Capacity"].detail == "cpu 2.50 of 12.00 cores free, memory 2.50 of 24.00 GiB free"
    assert api.changes == []


def test_secrets_of_yours_have_to_be_there_before_anything_is_changed() -> None:
    api, security = ready_api(), defaults()["security"]
    names = {**security["secrets"]["names"], "cluster": "own"}
    existing = {**security, "secrets": {**security["secrets"], "source": "existing", "names": names}}
    volumes = [
        {"name": name, "secret": {"secretName": name}} for name in ("own", "jarvis-encryption", "jarvis-node-tls")
    ]
    helm = FakeHelm(placement={"volumes": [*volumes, {"name": "config", "configMap": {"name": "jarvis-config"}}]})

    row = rows_of(api, helm, security=existing)["Secrets"]
    assert ("unhealthy", "jarvis-system lacks jarvis-encryption, own") == (row.verdict, row.detail)
    for name in ("own", "jarvis-encryption"):
        api.put("secrets", "jarvis-system", name)
    assert "2 of yours present" == rows_of(api, helm, security=existing)["Secrets"].detail
    assert "none of yours asked for" == rows_of(ready_api(), helm)["Secrets"].detail
    api.refused["/secrets"] = 403
    assert "skipped" == rows_of(api, helm, security=existing)["Secrets"].verdict


def test_an_old_helm_is_refused() -> None:
    assert rows_of(ready_api(), FakeHelm(version=(3, 9, 4)))["helm and chart"].verdict == "unhealthy"


def test_objects_of_another_release_are_left_alone() -> None:
    api = ready_api()
    api.put(
        "statefulsets", "jarvis-system", "jarvis-crdt", metadata={"annotations": {"meta.helm.sh/release-name": "x"}}
    )

    assert rows_of(api)["Release"].detail == "jarvis-crdt belongs to the helm release x"


def test_missing_rights_are_listed() -> None:
    api = ready_api()
    api.denied = {"statefulsets", "namespaces"}

    found = rows_of(api)["Permissions"]

    assert found.detail == "not allowed in jarvis-system: create namespaces, create statefulsets.apps"


def test_kinds_that_the_cluster_lacks_are_named() -> None:
    api = ready_api()
    del api.resources["/apis/autoscaling/v2"]
    api.refused["/apis/autoscaling"] = 404

    assert rows_of(api)["Permissions"].detail == ("the cluster does not know autoscaling/v2 HorizontalPodAutoscaler")


def test_a_missing_storage_class_names_those_that_are_there() -> None:
    api = ready_api()
    del api.objects["storageclasses", "", "fast-ssd"]
    api.put("storageclasses", "", "standard")

    assert rows_of(api)["Storage"].detail == "no StorageClass fast-ssd; the cluster has: standard"
    found = rows_of(ready_api(), FakeHelm(claim="gold"))["Storage"]
    assert found.detail == "no StorageClass gold; the cluster has: fast-ssd"


def test_a_volume_size_that_changes_under_a_running_set_is_refused_before_helm_tries() -> None:
    api = ready_api()
    owner = {"annotations": {"meta.helm.sh/release-name": "jarvis"}}
    claim = {"metadata": {"name": "data"}, "spec": {"storageClassName": "fast-ssd"}}
    claim["spec"]["resources"] = {"requests": {"storage": "1Gi"}}
    api.put("statefulsets", "jarvis-system", "jarvis-crdt", metadata=owner, spec={"volumeClaimTemplates": [claim]})

    assert rows_of(api, FakeHelm(storage="1024Mi"))["Storage"].verdict == "healthy"
    assert rows_of(api, FakeHelm(storage="2Gi"))["Storage"].detail == (
        "the volumes have 1Gi, the configuration asks for 2Gi"
    )


@pytest.mark.parametrize(
    ("helm", "grows", "expected"),
    [
        (FakeHelm(claimed="1024Mi"), False, ""),
        (FakeHelm(claimed="2Gi"), True, ""),
        (FakeHelm(claimed="2Gi"), False, "the volume jarvis-prometheus has 1Gi, the configuration asks for 2Gi"),
        (FakeHelm(claimed="512Mi"), True, "the volume jarvis-prometheus has 1Gi, the configuration asks for 512Mi"),
        (
            FakeHelm(claim="gold"),
            True,
            "the volume jarvis-prometheus is of StorageClass fast-ssd, the configuration asks for gold",
        ),
    ],
)
def test_a_volume_of_monitoring_that_cannot_change_is_refused_before_helm_tries(
    helm: FakeHelm, grows: bool, expected: str
) -> None:
    api = ready_api()
    for name in ("fast-ssd", "gold"):
        api.put("storageclasses", "", name, allowVolumeExpansion=grows)
    spec = {"storageClassName": "fast-ssd", "resources": {"requests": {"storage": "1Gi"}}}
    api.put("persistentvolumeclaims", "jarvis-system", "jarvis-prometheus", spec=spec)

    found = rows_of(api, helm)["Storage"]

    assert (found.verdict, found.detail if expected else "") == ("unhealthy" if expected else "healthy", expected)


def test_a_zone_without_nodes_is_refused() -> None:
    found = rows_of(ready_api(), zones=("zone-a", "us-west1-a"))["Zones"]

    assert found.detail == "no node in us-west1-a; nodes are in: zone-a, zone-b, zone-c"


def test_too_little_cpu_is_refused_counting_what_others_requested() -> None:
    api = ready_api()
    container = {"resources": {"requests": {"cpu": "10", "memory": "1Gi"}}}
    spec = {"nodeName": "worker-0", "containers": [container]}
    api.put("pods", "elsewhere", "big", spec=spec, status={"phase": "Running"})

    found = rows_of(api)["Capacity"]

    assert (found.verdict, found.detail) == (
        "unhealthy",
        "cpu 2.50 of 2.00 cores free, memory 2.50 of 23.00 GiB free",
    )


def test_nodes_with_taints_do_not_count() -> None:
    api = ready_api()
    api.objects["nodes", "", "worker-0"]["spec"] = {"taints": [{"key": "a", "effect": "NoSchedule"}]}
    api.objects["nodes", "", "worker-1"]["spec"] = {"unschedulable": True}

    assert "of 4.00 cores free" in rows_of(api)["Capacity"].detail


@pytest.mark.parametrize(
    ("toleration", "cores"),
    [
        ({"key": "pool", "operator": "Exists"}, 12),
        ({"key": "pool", "operator": "Equal", "value": "jarvis", "effect": "NoSchedule"}, 12),
        ({"key": "pool", "operator": "Equal", "value": "other"}, 8),
        ({"key": "pool", "operator": "Exists", "effect": "NoExecute"}, 8),
        ({"key": "other", "operator": "Exists"}, 8),
    ],
)
def test_nodes_whose_taints_are_borne_count(toleration: dict[str, str], cores: int) -> None:
    api = ready_api()
    taint = {"key": "pool", "value": "jarvis", "effect": "NoSchedule"}
    api.objects["nodes", "", "worker-0"]["spec"] = {"taints": [taint]}

    found = rows_of(api, FakeHelm(placement={"tolerations": [toleration]}))["Capacity"]

    assert f"of {cores}.00 cores free" in found.detail


def test_only_selected_nodes_count() -> None:
    api = ready_api()
    api.objects["nodes", "", "worker-0"]["metadata"]["labels"]["pool"] = "jarvis"

    found = rows_of(api, FakeHelm(placement={"nodeSelector": {"pool": "jarvis"}}))["Capacity"]

    assert "of 4.00 cores free" in found.detail


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("500m", 0.5), ("2Gi", 2 * 2**30), ("1e3", 1000), ("1.5k", 1500), ("12E", 12e18), (3, 3)],
)
def test_quantities(text: str, value: float) -> None:
    assert read_quantity(text) == value


@pytest.mark.parametrize("text", ["", "banana", "1X", "Gi", "1mm"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        read_quantity(text)
