"""One deployment for all tests on the running kind cluster, beside the one that `make up` keeps in jarvis-system.

pytest-helm-charts brings the cluster, whose kubectl is a witness that shares no code with the harness. Its waits are
not used: its StatefulSet wait ignores updatedReplicas.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_helm_charts.clusters import Cluster, ExistingCluster

from harness.cluster.tool import find_tool
from harness.kube import connect
from harness.poll import Done, Pending, wait_until
from harness.process import run
from harness.release.service import Service

ROOT = Path(__file__).parents[2]
CONTEXT = "kind-jarvis"
NAMESPACE = "jarvis-e2e"
CONFIG = ROOT / "values" / "kind.yaml"
NODES = ("jarvis-crdt-0", "jarvis-crdt-1", "jarvis-crdt-2")
# The cluster's own tests stop its nodes, so they come before there is a deployment; what removes it comes last, but for
# tests with releases of their own, which have the machine for themselves then.
_PLACES = {"test_cluster": -1, "test_cleanup": 1, "test_placement": 2}
# A thread of the Kubernetes client takes the end of a connection with something unread, as when a backend stops, for a
# fault, and leaves its sockets to the collector.
_OF_FORWARDED_PORTS = (
    "ignore:Exception in thread Kubernetes port forward proxy:pytest.PytestUnhandledThreadExceptionWarning",
    "ignore:Exception ignored in. <socket.socket fd=[0-9]+, family=1,:pytest.PytestUnraisableExceptionWarning",
)


@dataclass(frozen=True)
class Deployment:
    """What the tests act on: the command line, kubectl and the API."""

    id: str
    cluster: Cluster
    service: Service

    def kubectl(self, command: str, **options: str) -> Any:
        options = {"namespace": NAMESPACE, "context": CONTEXT, **options}
        return self.cluster.kubectl(command, **options)

    def await_health(self) -> None:
        """Wait until the health command finds nothing amiss."""

        def look() -> Done[None] | Pending:
            done = run_cli("health", "-o", "json")
            return Done(None) if done.returncode == 0 else Pending(done.stdout or done.stderr)

        wait_until(look, what="a healthy deployment", deadline_seconds=300, interval_seconds=3)

    def await_value(self, key: str, expected: Any) -> None:
        """Wait until every node shows the value."""

        def look() -> Done[None] | Pending:
            seen = {node: self.service.read(key, node=node) for node in NODES}
            return Done(None) if set(seen.values()) == {expected} else Pending(str(seen))

        wait_until(look, what=f"{key} = {expected} on every node", deadline_seconds=60)


def helm(*arguments: str) -> str:
    """Run helm on the deployment's namespace and return what it prints."""
    command = [str(find_tool("helm")), *arguments, "--namespace", NAMESPACE, "--kube-context", CONTEXT]
    return run(command, timeout_seconds=420).stdout


def cli_command(*arguments: str) -> list[str]:
    place = [] if arguments[0] == "template" else ["--context", CONTEXT, "--namespace", NAMESPACE]
    return [sys.executable, str(ROOT / "deployment_cli.py"), *arguments, *place]


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(cli_command(*arguments), capture_output=True, text=True, check=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; within each, tests stay as they are written."""
    items.sort(key=lambda item: _PLACES.get(item.path.stem, 0))
    for item in items:
        for text in _OF_FORWARDED_PORTS:
            item.add_marker(pytest.mark.filterwarnings(text))


@pytest.fixture(scope="session")
def kube_cluster() -> Iterator[Cluster]:
    """The running cluster, once for all tests; pytest-helm-charts' own fixture is made for each file."""
    cluster = ExistingCluster(os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config"))
    cluster.create()
    yield cluster
    cluster.destroy()


@pytest.fixture(scope="session")
def deployment(kube_cluster: Cluster) -> Iterator[Deployment]:
    """The deployment, made by the command line and removed by it if a test has not done so."""
    done = run_cli("deploy", str(CONFIG), "-o", "json")
    assert done.returncode == 0, done.stderr
    deployment_id = json.loads(done.stdout)["deployment_id"]
    with Service(connect(CONTEXT), NAMESPACE) as service:
        yield Deployment(deployment_id, kube_cluster, service)
    if run_cli("status", "-o", "json").stdout:
        removed = run_cli("cleanup", deployment_id)
        assert removed.returncode == 0, removed.stderr
