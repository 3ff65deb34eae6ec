"""The cluster that `make up` promises, on either path to its node image."""

import json
from typing import Any

import pytest

from harness.cluster import version
from harness.cluster.manager import Cluster, ensure_cluster, find_cluster, kubectl
from harness.cluster.progress import Progress
from harness.poll import Done, Pending, wait_until
from harness.process import CommandError, run

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    found = find_cluster()
    assert found, "no cluster runs: `make up` brings it up"
    return found


def _items(cluster: Cluster, kind: str) -> list[dict[str, Any]]:
    return json.loads(kubectl(cluster, "get", kind, "--output=json"))["items"]


def test_a_control_plane_and_a_ready_worker_in_each_zone(cluster: Cluster):
    nodes = _items(cluster, "nodes")
    ready = [
        any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"]) for node in nodes
    ]
    zones = [node["metadata"]["labels"].get("topology.kubernetes.io/zone") for node in nodes]

    assert [True] * 4 == ready
    assert sorted(version.ZONES) == sorted(zone for zone in zones if zone)


def test_every_storage_tier_has_a_class_and_one_is_the_default(cluster: Cluster):
    default = "storageclass.kubernetes.io/is-default-class"
    classes = {
        item["metadata"]["name"]: item["metadata"].get("annotations", {}).get(default)
        for item in _items(cluster, "storageclasses")
    }

    assert {"standard": "true", "fast-ssd": None, "premium": None} == classes


def test_the_metrics_api_feeds_autoscaling(cluster: Cluster):
    def probe() -> Done[None] | Pending:
        try:
            asked = kubectl(cluster, "get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes")
        except CommandError as error:
            return Pending(error.stderr_tail)
        measured = len(json.loads(asked)["items"])
        return Done(None) if measured == len(cluster.nodes) else Pending(f"metrics of {measured} nodes")

    wait_until(probe, what="node metrics", deadline_seconds=180)


def test_bringing_it_up_again_changes_nothing(cluster: Cluster):
    before = _containers(cluster)

    again = ensure_cluster(Progress())

    assert cluster == again
    assert before == _containers(cluster)


def _containers(cluster: Cluster) -> str:
    return run(["docker", "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *cluster.nodes]).stdout
