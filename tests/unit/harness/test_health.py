import pytest

from harness.checks.check import Check, Finding, Row, overall_of, run_checks
from harness.checks.health import CHECKS, Target, check_health
from harness.failure import Failure
from tests.unit.harness.fake_api import FakeApi, FakeClock, deployed_api, put_monitoring


def rows_of(api: FakeApi) -> dict[str, Row]:
    clock = FakeClock()
    return {row.name: row for row in check_health(Target(api.kube(), "jarvis-system", clock, clock.sleep))}


def row(verdict: str) -> Row:
    return Row(name="x", verdict=verdict, detail="", hint="", duration_ms=0)


def test_the_worst_verdict_counts_and_skipped_ones_do_not() -> None:
    assert overall_of([row("healthy"), row("skipped")]) == "healthy"
    assert overall_of([row("degraded"), row("healthy")]) == "degraded"
    assert overall_of([row("degraded"), row("unhealthy")]) == "unhealthy"


def test_a_fatal_check_skips_the_rest_and_a_failure_is_a_finding() -> None:
    def fail(_subject: str, _deadline: float) -> Finding:
        raise Failure("it is broken", "mend it")

    def pass_(_subject: str, _deadline: float) -> Finding:
        return Finding("healthy", "fine")

    checks = [Check("a", "", False, 1, fail), Check("b", "usual hint", True, 1, fail), Check("c", "", False, 1, pass_)]

    found = [(row.name, row.verdict, row.detail, row.hint) for row in run_checks(checks, "subject")]

    assert found == [
        ("a", "unhealthy", "it is broken", "mend it"),
        ("b", "unhealthy", "it is broken", "mend it"),
        ("c", "skipped", "needs: b", ""),
    ]


def test_a_healthy_deployment_passes_every_check() -> None:
    api = deployed_api()
    put_monitoring(api, "prometheus", 9090, {"/-/ready": 200})

    rows = rows_of(api)

    assert [row.name for row in rows.values() if row.verdict != "healthy"] == []
    assert list(rows) == [check.name for check in CHECKS]
    assert rows["CRDT synchronization"].detail == "3 of 3 nodes show a new value after 0 ms"


def test_an_unreachable_cluster_is_unhealthy_and_nothing_else_is_asked() -> None:
    api = deployed_api()
    api.down = True

    rows = rows_of(api)

    assert rows["Kubernetes API"].verdict == "unhealthy"
    assert {row.verdict for name, row in rows.items() if name != "Kubernetes API"} == {"skipped"}


def test_nothing_deployed_is_unhealthy() -> None:
    rows = rows_of(FakeApi())

    assert rows["Deployment"].verdict == "unhealthy"
    assert rows["Deployment"].detail == "nothing is deployed in the namespace jarvis-system"


def test_an_interrupted_deploy_is_degraded() -> None:
    api = deployed_api()
    api.objects["configmaps", "jarvis-system", "jarvis-deployment"]["data"]["phase"] = "deploying"

    assert rows_of(api)["Deployment"].verdict == "degraded"


def test_a_node_scaled_away_is_missing_from_the_configured_count() -> None:
    api = deployed_api()
    stateful = api.objects["statefulsets", "jarvis-system", "jarvis-crdt"]
    stateful["spec"]["replicas"] = 2
    stateful["status"] |= {"replicas": 2, "readyReplicas": 2, "updatedReplicas": 2}

    found = rows_of(api)["CRDT workload"]

    assert (found.verdict, found.detail) == ("degraded", "2 of 3 ready")


def test_no_ready_pod_is_unhealthy() -> None:
    api = deployed_api()
    api.objects["deployments", "jarvis-system", "jarvis-backend"]["status"]["readyReplicas"] = 0

    assert rows_of(api)["Backend workload"].verdict == "unhealthy"


def test_a_cluster_node_down_or_under_pressure_is_degraded() -> None:
    api = deployed_api()
    api.objects["nodes", "", "worker-1"]["status"]["conditions"] = [
        {"type": "Ready", "status": "False"},
        {"type": "DiskPressure", "status": "True"},
    ]

    found = rows_of(api)["Cluster nodes"]

    assert (found.verdict, found.detail) == ("degraded", "2 of 3 ready; worker-1: DiskPressure")


def test_nodes_that_may_not_be_listed_are_skipped() -> None:
    api = deployed_api()
    api.refused["/nodes"] = 403

    assert rows_of(api)["Cluster nodes"].verdict == "skipped"


def test_an_unbound_volume_is_degraded() -> None:
    api = deployed_api()
    api.objects["persistentvolumeclaims", "jarvis-system", "data-jarvis-crdt-2"]["status"] = {"phase": "Pending"}

    assert rows_of(api)["Storage"].detail == "2 of 3 volumes bound; data-jarvis-crdt-2: Pending"


def test_only_volumes_of_nodes_count() -> None:
    api = deployed_api()
    labels = {"app.kubernetes.io/name": "jarvis", "app.kubernetes.io/instance": "jarvis"}
    metadata = {"labels": labels}
    api.put(
        "persistentvolumeclaims", "jarvis-system", "jarvis-prometheus", metadata=metadata, status={"phase": "Pending"}
    )

    found = rows_of(api)["Storage"]

    assert (found.verdict, found.detail) == ("healthy", "3 of 3 volumes bound")


def test_the_service_s_own_verdict_is_taken_over() -> None:
    for said in ("degraded", "unhealthy"):
        api = deployed_api()
        api.service.status = said

        assert rows_of(api)["API endpoints"].verdict == said


def test_a_silent_node_degrades_synchronization_and_is_named() -> None:
    api = deployed_api()
    api.service.silent = {"jarvis-crdt-0"}

    found = rows_of(api)["CRDT synchronization"]

    assert found.verdict == "degraded"
    assert "jarvis-crdt-0: status 503: jarvis-crdt-0 does not answer" in found.detail


def test_nodes_that_miss_writes_are_unhealthy() -> None:
    api = deployed_api()
    api.service.deaf = {"jarvis-crdt-1", "jarvis-crdt-2"}

    found = rows_of(api)["CRDT synchronization"]

    assert found.verdict == "unhealthy"
    assert "1 of 3 nodes show the value written through jarvis-crdt-0" in found.detail


def test_no_node_taking_writes_is_unhealthy() -> None:
    api = deployed_api()
    api.service.silent = set(api.service.nodes)

    assert rows_of(api)["CRDT synchronization"].detail.startswith("no node takes a write")


def test_an_error_of_the_proxy_itself_is_reported() -> None:
    api = deployed_api()
    api.refused["/proxy/"] = 503

    found = rows_of(api)["API endpoints"]

    assert (found.verdict, found.detail) == ("unhealthy", "status 503: /proxy/ is refused")


def test_monitoring_that_is_not_deployed_is_not_missed() -> None:
    found = rows_of(deployed_api())["Monitoring systems"]

    assert (found.verdict, found.detail) == ("skipped", "none is deployed")


def test_each_monitoring_system_that_is_deployed_is_asked_and_named() -> None:
    api = deployed_api()
    put_monitoring(api, "prometheus", 9090, {"/-/ready": 200})
    put_monitoring(api, "alertmanager", 9093, {"/-/ready": 200})
    put_monitoring(api, "grafana", 3000, {"/api/health": 200})

    found = rows_of(api)["Monitoring systems"]

    detail = "jarvis-prometheus: ready; jarvis-alertmanager: ready; jarvis-grafana: ready"
    assert (found.verdict, found.detail) == ("healthy", detail)


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (503, "/api/health says 503"),
        (0, "jarvis-grafana-0: Remote end closed connection without response"),
        (None, "cannot connect to jarvis-grafana-0"),
        ("no pod", "no pod runs"),
    ],
)
def test_monitoring_that_is_down_degrades_and_is_named(status: int | str | None, trouble: str) -> None:
    api = deployed_api()
    put_monitoring(api, "prometheus", 9090, {"/-/ready": 200})
    put_monitoring(api, "grafana", 3000, {"/api/health": status} if isinstance(status, int) else {})
    if status is None:
        del api.pages["jarvis-grafana-0", 3000]
    if status == "no pod":
        api.objects["pods", "jarvis-system", "jarvis-grafana-0"]["status"]["phase"] = "Pending"

    found = rows_of(api)["Monitoring systems"]

    assert (found.verdict, found.detail) == ("degraded", f"jarvis-prometheus: ready; jarvis-grafana: {trouble}")
    assert found.hint == "kubectl describe deployment jarvis-grafana; kubectl logs deployment/jarvis-grafana"
