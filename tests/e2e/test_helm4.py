"""Helm 4 installs, tests and upgrades the chart, applying on the server, under Pod Security `restricted`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cluster.manager import Cluster, find_cluster, kubectl, read_objects
from harness.cluster.tool import find_tool
from harness.process import run
from tests.e2e.conftest import CONFIG, ROOT

pytestmark = pytest.mark.e2e
_NAMESPACE = "jarvis-e2e-helm4"
# One node and one backend: this is about Helm, and the machine may be small.
_SMALL = {"infrastructure": {"node_count": 1}, "crdt": {"replication_factor": 1}, "deployment": {"replicas": 1}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    found = find_cluster()
    assert found, "no cluster runs: `make up` brings it up"
    kubectl(found, "create", "namespace", _NAMESPACE)
    kubectl(found, "label", "namespace", _NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    yield found
    kubectl(found, "delete", "namespace", _NAMESPACE, "--wait=false")


def helm4(cluster: Cluster, *arguments: str, values: object = None) -> str:
    command = [str(find_tool("helm4")), *arguments, "--namespace", _NAMESPACE, "--kube-context", cluster.context]
    return run(command, input=None if values is None else json.dumps(values), timeout_seconds=420).stdout


def apply(cluster: Cluster, file: Path, values: object) -> None:
    chart = [str(ROOT / "charts/jarvis"), "--values", str(file), "--values", "-"]
    waiting = ["--wait", "--timeout", "300s", "--server-side=true"]
    helm4(cluster, "upgrade", "--install", "jarvis", *chart, *waiting, values=values)


def test_it_installs_tests_and_upgrades(cluster: Cluster) -> None:
    apply(cluster, CONFIG, _SMALL)
    helm4(cluster, "test", "jarvis")

    apply(cluster, CONFIG, _SMALL | {"deployment": {"replicas": 2}})

    where = ("--namespace", _NAMESPACE, "--selector=app.kubernetes.io/component=backend")
    (backend,) = read_objects(cluster, "deployments", *where, "--show-managed-fields")
    assert (2, 2) == (backend["spec"]["replicas"], backend["status"]["readyReplicas"])
    assert ("helm", "Apply") in {(each["manager"], each["operation"]) for each in backend["metadata"]["managedFields"]}
