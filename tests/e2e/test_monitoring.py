"""The bundled monitoring on kind: all of it runs, and Prometheus has what rules and dashboards ask for."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from harness.dashboard.query import find_failures
from harness.kube import Kube, Request, conditions_of, connect
from harness.poll import Done, Pending, wait_until
from harness.release.service import ServiceError
from tests.e2e.conftest import CONTEXT, NAMESPACE, NODES, Deployment

pytestmark = pytest.mark.e2e
_PROXY = f"/api/v1/namespaces/{NAMESPACE}/services/jarvis-prometheus:9090/proxy"
_COMPONENTS = {"crdt", "backend", "prometheus", "alertmanager"}
# A scrape is due every 15 s, and a rate wants two of them.
_DEADLINE_SECONDS = 240


@cache
def _api() -> Kube:
    return connect(CONTEXT)


def ask(path: str, params: Mapping[str, str] | None = None) -> Any:
    """Return what Prometheus' API answers, through the API server; errors included."""
    answer = _api().send(Request("GET", f"{_PROXY}{path}?{urlencode(params or {})}"))
    return json.loads(answer.text)


def pods_of(deployment: Deployment, component: str = "") -> list[dict[str, Any]]:
    """Return the pods that stay, of all components or of one."""
    selector = "app.kubernetes.io/name=jarvis" + (f",app.kubernetes.io/component={component}" if component else "")
    return [pod for pod in deployment.kubectl("get pods", selector=selector) if stays(pod["metadata"])]


def stays(metadata: dict[str, Any]) -> bool:
    """Whether a pod is neither on its way out nor of a job."""
    owners = {owner["kind"] for owner in metadata.get("ownerReferences", [])}
    return "deletionTimestamp" not in metadata and "Job" not in owners


def test_every_pod_is_ready_where_restricted_is_enforced(deployment: Deployment) -> None:
    def look() -> Done[set[str]] | Pending:
        pods = pods_of(deployment)
        waiting = [pod["metadata"]["name"] for pod in pods if conditions_of(pod).get("Ready") != "True"]
        found = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods}
        return Pending(f"not ready: {waiting}; {found}") if waiting or not found >= _COMPONENTS else Done(found)

    labels = deployment.kubectl(f"get namespace {NAMESPACE}")["metadata"]["labels"]
    assert "restricted" == labels["pod-security.kubernetes.io/enforce"]
    assert _COMPONENTS <= wait_until(look, what="every pod", deadline_seconds=_DEADLINE_SECONDS)


def test_both_jobs_are_scraped_from_every_pod(deployment: Deployment) -> None:
    def look() -> Done[list[dict[str, Any]]] | Pending:
        pods = {
            (f"jarvis-{component}", pod["metadata"]["name"])
            for component in ("backend", "crdt")
            for pod in pods_of(deployment, component)
        }
        targets = ask("/api/v1/targets", {"state": "active"})["data"]["activeTargets"]
        seen = {(target["labels"]["job"], target["labels"]["instance"]): target for target in targets}
        down = {name: target["lastError"] for name, target in seen.items() if target["health"] != "up"}
        return (
            Done(targets) if seen.keys() == pods and not down else Pending(f"{sorted(seen)} of {sorted(pods)}; {down}")
        )

    for target in wait_until(look, what="every target", deadline_seconds=_DEADLINE_SECONDS):
        assert NAMESPACE == target["labels"]["namespace"]
        assert target["labels"]["instance"] == target["labels"]["pod"]


def test_every_rule_is_loaded_and_evaluates(deployment: Deployment) -> None:
    files = deployment.kubectl("get configmap jarvis-rules")["data"].values()
    expected = {rule["alert"] for file in files for group in yaml.safe_load(file)["groups"] for rule in group["rules"]}

    def look() -> Done[set[str]] | Pending:
        groups = ask("/api/v1/rules")["data"]["groups"]
        rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
        bad = {name: rule.get("lastError") or rule["health"] for name, rule in rules.items() if rule["health"] != "ok"}
        return Pending(f"{sorted(rules)}: {bad}") if bad or rules.keys() != expected else Done(set(rules))

    assert expected == wait_until(look, what="all rules", deadline_seconds=_DEADLINE_SECONDS)
    assert ask("/api/v1/status/runtimeinfo")["data"]["reloadConfigSuccess"]


def test_every_query_of_every_dashboard_has_a_number_to_show(deployment: Deployment) -> None:
    failures: list[str] = []

    def look() -> Done[None] | Pending:
        use(deployment)
        failures[:] = find_failures(ask)
        return Pending("\n".join(failures)) if failures else Done(None)

    wait_until(look, what="every query to be answered", deadline_seconds=_DEADLINE_SECONDS, interval_seconds=5)


def use(deployment: Deployment) -> None:
    """A little of what agents do: they write the same key at once, read, and make mistakes."""

    def assign(node: str) -> None:
        deployment.service.write("e2e.raced", "mv_register", {"assign": node}, node=node)

    with ThreadPoolExecutor(len(NODES)) as pool:
        list(pool.map(assign, NODES))
    deployment.service.write("e2e.visits", "pn_counter", {"increment": 1})
    assert deployment.service.read("e2e.visits") > 0
    with pytest.raises(ServiceError):
        deployment.service.write("e2e.visits", "none", {})
