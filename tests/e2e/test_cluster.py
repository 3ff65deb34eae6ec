"""The cluster that `make up` promises, on either path to its node image."""

import json
import shlex
import uuid
from pathlib import Path

import pytest
import yaml

from harness.cluster import version
from harness.cluster.manager import Cluster, ensure_cluster, find_cluster, kubectl, read_objects
from harness.cluster.progress import Progress
from harness.poll import Done, Pending, wait_until
from harness.process import CommandError, run

pytestmark = pytest.mark.e2e
_LOOK_UP = "import socket; print(socket.gethostbyname('kubernetes.default.svc.cluster.local'))"
_CHART = Path(__file__).parents[2] / "charts/jarvis/Chart.yaml"


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    found = find_cluster()
    assert found, "no cluster runs: `make up` brings it up"
    return found


def test_a_control_plane_and_a_ready_worker_in_each_zone(cluster: Cluster):
    nodes = read_objects(cluster, "nodes")
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
        for item in read_objects(cluster, "storageclasses")
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


def test_stopped_nodes_are_started_again_with_what_is_in_them(cluster: Cluster):
    kubectl(cluster, "create", "configmap", "kept", "--namespace=default")
    try:
        run(["docker", "kill", *cluster.nodes[:2]])

        assert cluster == ensure_cluster(Progress())

        assert "configmap/kept" == kubectl(cluster, "get", "configmap", "kept", "--output=name").strip()
        assert _look_up_from_a_pod(cluster).startswith("10.96.")
    finally:
        kubectl(cluster, "delete", "configmap", "kept", "--namespace=default")


def _containers(cluster: Cluster) -> str:
    return run(["docker", "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *cluster.nodes]).stdout


def test_a_pod_of_a_worker_reaches_one_of_the_control_plane(cluster: Cluster):
    assert _look_up_from_a_pod(cluster).startswith("10.96.")


def _look_up_from_a_pod(cluster: Cluster) -> str:
    """The address of the API's Service, as DNS, which runs in pods of the control plane, tells a pod of a worker."""
    name = f"resolve-{uuid.uuid4().hex[:8]}"
    image = f"{version.SERVICE_IMAGE}:{yaml.safe_load(_CHART.read_text())['appVersion']}"
    # DNS may need a moment after its pods were restarted.
    lookup = f"until python3 -c {shlex.quote(_LOOK_UP)} 2>/dev/null; do sleep 1; done"
    command = ["run", name, f"--image={image}", "--restart=Never", "--command", "--", "sh", "-c", lookup]
    kubectl(cluster, *command)
    try:

        def probe() -> Done[None] | Pending:
            phase = kubectl(cluster, "get", "pod", name, "--output=jsonpath={.status.phase}")
            assert phase != "Failed", kubectl(cluster, "logs", name)
            return Done(None) if phase == "Succeeded" else Pending(f"the pod is {phase}")

        wait_until(probe, what="a pod that looks a name up", deadline_seconds=120)
        return kubectl(cluster, "logs", name)
    finally:
        kubectl(cluster, "delete", "pod", name, "--wait=false")
