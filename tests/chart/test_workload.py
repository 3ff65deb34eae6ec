"""How pods are placed, rolled, drained and scaled."""

from typing import Any

import pytest

from tests.chart.conftest import Manifest, Render, find_pods


def _find(manifests: list[Manifest], kind: str, name: str) -> Any:
    return next(m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))


def _alone() -> Manifest:
    return {
        "infrastructure": {"node_count": 1},
        "crdt": {"replication_factor": 1},
        "deployment": {"replicas": 1, "auto_scaling": {"enabled": False}},
    }


@pytest.mark.parametrize("values", [{}, _alone()], ids=["defaults", "one pod each"])
def test_budgets_let_every_drain_end(render: Render, values: Manifest):
    manifests = render(values)
    budgets = [manifest["spec"] for manifest in manifests if manifest["kind"] == "PodDisruptionBudget"]

    assert 2 <= len(budgets)
    for budget in budgets:
        # `maxUnavailable: 1` lets even the only pod go, and pods that are not ready hold nobody up.
        assert (1, "AlwaysAllow") == (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"])
        assert "minAvailable" not in budget


def test_nodes_are_rolled_down_to_the_partition_and_volumes_are_kept(render: Render):
    spec = _find(render({"infrastructure": {"update_partition": 2}}), "StatefulSet", "jarvis-crdt")["spec"]

    assert {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}} == spec["updateStrategy"]
    assert "Parallel" == spec["podManagementPolicy"]
    assert {"whenDeleted": "Retain", "whenScaled": "Retain"} == spec["persistentVolumeClaimRetentionPolicy"]


def _counted(count: int, **values: Any) -> Manifest:
    return {"infrastructure": {"node_count": count}, **values}


def test_nodes_are_told_how_many_they_are_by_a_file_that_rolls_none_of_them(render: Render):
    def node(count: int) -> Any:
        return _find(render(_counted(count)), "StatefulSet", "jarvis-crdt")["spec"]

    [container] = node(5)["template"]["spec"]["containers"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    [volume] = [each for each in node(5)["template"]["spec"]["volumes"] if each["name"] == "config"]
    config = _find(render(_counted(5)), "ConfigMap", volume["configMap"]["name"])["data"]

    assert "5" == config["node-count"]
    assert f"--node-count-file={mounted['config']}/node-count" in container["args"]
    assert "subPath" not in str(container["volumeMounts"])  # Such a mount would never be updated.
    assert (node(3)["template"], [3, 5]) == (node(5)["template"], [node(count)["replicas"] for count in (3, 5)])


def test_processes_are_told_the_cluster_s_name_by_a_file_that_rolls_none_of_them(render: Render):
    def rendered(name: str) -> Any:
        return render({"infrastructure": {"cluster_name": name}, "backup": {"enabled": True}})

    before, after = rendered("jarvis"), rendered("other")
    pods = [
        (kind, _find(after, kind, name)["spec"])
        for kind, name in (("StatefulSet", "jarvis-crdt"), ("Deployment", "jarvis-backend"), ("CronJob", "jarvis-bkp"))
    ]

    assert "other/jarvis-system/jarvis" == _find(after, "ConfigMap", "jarvis-config")["data"]["cluster-name"]
    assert ["jarvis/jarvis-system/jarvis"] == [
        each["data"]["cluster-name"] for each in before if "cluster-name" in each.get("data", {})
    ]
    for kind, spec in pods:
        assert "--cluster-name-file=/etc/jarvis/cluster-name" in str(spec), kind
    for kind, name in (("StatefulSet", "jarvis-crdt"), ("Deployment", "jarvis-backend")):
        assert _find(before, kind, name)["spec"]["template"] == _find(after, kind, name)["spec"]["template"]


@pytest.mark.parametrize("count", [3, 5])
def test_before_each_upgrade_nodes_decide_on_count_and_factor(render: Render, count: int):
    job = _find(render(_counted(count, crdt={"replication_factor": 2})), "Job", "jarvis-resize-hook")
    [container] = job["spec"]["template"]["spec"]["containers"]

    assert "pre-upgrade,pre-rollback" == job["metadata"]["annotations"]["helm.sh/hook"]
    assert ["resize", f"--nodes={count}", "--replication-factor=2"] == container["args"][:3]


def test_nodes_that_are_not_ready_find_each_other(render: Render):
    """They decide on their first placement before any of them is ready."""
    assert _find(render(), "Service", "jarvis-crdt-headless")["spec"]["publishNotReadyAddresses"]
    [container] = _find(render(), "StatefulSet", "jarvis-crdt")["spec"]["template"]["spec"]["containers"]
    pages = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert {"startup": "/live", "liveness": "/live", "readiness": "/ready"} == pages


def test_a_rollout_of_the_backend_never_has_fewer_pods(render: Render):
    strategy = _find(render(), "Deployment", "jarvis-backend")["spec"]["strategy"]

    assert {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}} == strategy


def test_pods_may_end_what_they_do_before_they_are_killed(render: Render):
    for kind, name in (("StatefulSet", "jarvis-crdt"), ("Deployment", "jarvis-backend")):
        pod = _find(render(), kind, name)["spec"]["template"]["spec"]
        linger = [int(arg.partition("=")[2]) for arg in pod["containers"][0]["args"] if arg.startswith("--linger=")]
        # A node drains for 5 seconds at most, a backend for as long again once it no longer lingers.
        assert pod["terminationGracePeriodSeconds"] > sum(linger) + 2 * 5


def test_memory_scales_only_where_it_is_asked_to(render: Render):
    def metrics(**scaling: int) -> list[tuple[str, int]]:
        scaler = _find(render({"deployment": {"auto_scaling": scaling}}), "HorizontalPodAutoscaler", "jarvis-backend")
        sources = [metric["resource"] for metric in scaler["spec"]["metrics"]]
        return [(source["name"], source["target"]["averageUtilization"]) for source in sources]

    assert [("cpu", 70)] == metrics()
    assert [("cpu", 60), ("memory", 80)] == metrics(target_cpu_utilization=60, target_memory_utilization=80)


def test_pods_go_slower_than_they_come(render: Render):
    behavior = _find(render(), "HorizontalPodAutoscaler", "jarvis-backend")["spec"]["behavior"]

    assert (0, 300) == tuple(behavior[way]["stabilizationWindowSeconds"] for way in ("scaleUp", "scaleDown"))
    assert [{"type": "Pods", "value": 1, "periodSeconds": 60}] == behavior["scaleDown"]["policies"]


def test_every_pod_is_bound_to_the_nodes_that_are_given(render: Render):
    scheduling = {
        "node_selector": {"pool": "jarvis", "on": "true"},
        "tolerations": [{"key": "example.com/pool", "value": "true", "effect": "NoSchedule"}, {"key": "arm"}],
    }
    expected = [
        {"key": "example.com/pool", "operator": "Equal", "value": "true", "effect": "NoSchedule"},
        {"key": "arm", "operator": "Exists"},
    ]

    for pod in find_pods(render({"scheduling": scheduling})):
        assert ({"pool": "jarvis", "on": "true"}, expected) == (pod["nodeSelector"], pod["tolerations"])


def test_each_workload_has_a_priority_of_its_own(render: Render):
    manifests = render({"scheduling": {"crdt_priority_class": "high", "backend_priority_class": "low"}})
    classes = {
        manifest["metadata"]["name"]: manifest["spec"]["template"]["spec"].get("priorityClassName")
        for manifest in manifests
        if manifest["metadata"]["name"] in {"jarvis-crdt", "jarvis-backend"}
        and manifest["kind"] in {"StatefulSet", "Deployment"}
    }

    assert {"jarvis-crdt": "high", "jarvis-backend": "low"} == classes


def test_a_load_balancer_checks_nodes_and_lets_in_the_network_alone(render: Render):
    service = {"type": "LoadBalancer", "annotations": {"cloud.example/internal": "true"}}
    values = {"deployment": {"service": service}, "infrastructure": {"vpc_cidr": "192.168.0.0/16"}}
    inside = _find(render(), "Service", "jarvis-backend")
    outside = _find(render(values), "Service", "jarvis-backend")

    assert ("ClusterIP", "LoadBalancer") == (inside["spec"]["type"], outside["spec"]["type"])
    assert ("Local", ["192.168.0.0/16"]) == (
        outside["spec"]["externalTrafficPolicy"],
        outside["spec"]["loadBalancerSourceRanges"],
    )
    assert service["annotations"] == outside["metadata"]["annotations"]
    assert not {"externalTrafficPolicy", "loadBalancerSourceRanges"} & set(inside["spec"])
