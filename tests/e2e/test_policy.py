"""The chart's NetworkPolicies, enforced: the allowed flows work, the others do not."""

from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from harness.cluster.manager import Cluster, find_cluster, is_airgapped, kubectl, read_objects
from harness.cluster.policy import enforce_policies, lift_policies
from harness.poll import Done, Pending, wait_until
from tests.e2e.conftest import NAMESPACE, Deployment, helm

pytestmark = pytest.mark.e2e

_CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()
except OSError as error:
    print(type(error).__name__)
else:
    print("connected")
"""


@pytest.fixture
def cluster(deployment: Deployment) -> Cluster:
    found = find_cluster()
    assert found
    enforce_policies(found)
    yield found
    lift_policies(found)


def _pods(cluster: Cluster, component: str) -> dict[str, str]:
    selector = f"--selector=app.kubernetes.io/component={component}"
    items = read_objects(cluster, "pods", "--namespace", NAMESPACE, selector)
    return {item["metadata"]["name"]: item["status"]["podIP"] for item in items}


def _try(cluster: Cluster, pod: str, address: str, port: int) -> str:
    command = ["exec", "--namespace", NAMESPACE, pod, "--", "python3", "-c", _CONNECT, address, str(port)]
    return kubectl(cluster, *command).strip()


def test_each_flow_is_as_the_policies_say(cluster: Cluster, deployment: Deployment):
    nodes, backends = _pods(cluster, "crdt"), _pods(cluster, "backend")
    (first, first_ip), (second, second_ip), *_ = sorted(nodes.items())
    backend, backend_ip = next(iter(backends.items()))

    assert "connected" == _try(cluster, first, second_ip, 8001)
    assert "connected" == _try(cluster, backend, first_ip, 8001)
    assert "connected" == _try(cluster, second, "10.96.0.10", 53)
    assert "TimeoutError" == _try(cluster, first, backend_ip, 8000)
    assert "TimeoutError" == _try(cluster, backend, first_ip, 9101)
    assert "TimeoutError" == _try(cluster, first, "10.96.0.1", 443)
    deployment.await_health()


def test_what_is_sent_to_no_service_does_not_leave_the_cluster(deployment: Deployment):
    found = find_cluster()
    assert found
    if not is_airgapped(found):
        pytest.skip("the stock node image brings a pod network of its own")
    assert "ConnectionRefusedError" == _try(found, min(_pods(found, "crdt")), "10.96.255.254", 80)


def test_a_pod_of_another_namespace_reaches_neither_nodes_nor_api(cluster: Cluster):
    image = kubectl(
        cluster,
        "get",
        "statefulset",
        "jarvis-crdt",
        "--namespace",
        NAMESPACE,
        "--output=jsonpath={.spec.template.spec.containers[0].image}",
    )
    targets = [
        (next(iter(_pods(cluster, "crdt").values())), 8001),
        (next(iter(_pods(cluster, "backend").values())), 8000),
    ]
    for number, (address, port) in enumerate(targets):
        name = f"stranger-{number}"
        command = ["--command", "--", "python3", "-c", _CONNECT, address, str(port)]
        kubectl(cluster, "run", name, "--namespace=default", f"--image={image}", "--restart=Never", *command)
        try:

            def probe(name: str = name) -> Done[None] | Pending:
                phase = kubectl(cluster, "get", "pod", name, "--namespace=default", "--output=jsonpath={.status.phase}")
                return Done(None) if phase == "Succeeded" else Pending(f"the pod is {phase}")

            wait_until(probe, what="the stranger's attempt", deadline_seconds=120)
            assert "TimeoutError" == kubectl(cluster, "logs", name, "--namespace=default").strip()
        finally:
            kubectl(cluster, "delete", "pod", name, "--namespace=default", "--wait=false")


def test_helm_test_passes_under_the_policies(cluster: Cluster):
    with ThreadPoolExecutor(1) as pool:
        testing = pool.submit(helm, "test", "jarvis")
        # What enforces them knows the pods of the moment; those of the test come and go.
        while not testing.done():
            enforce_policies(cluster)
            wait([testing], timeout=1)

    phases = [line.split()[1] for line in testing.result().splitlines() if line.startswith("Phase:")]
    assert 2 <= len(phases)
    assert {"Succeeded"} == set(phases)
