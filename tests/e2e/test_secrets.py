"""Secrets and certificates that a person made, from files, under names of their choice: no job makes or renews any."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cluster.manager import Cluster, find_cluster, kubectl, read_objects
from harness.cluster.tool import find_tool
from harness.kube import connect
from harness.process import run
from harness.release.service import Service
from loadtests.authority import Authority
from loadtests.cluster import command, environment
from tests.e2e.conftest import CONFIG, ROOT

pytestmark = pytest.mark.e2e
_NAMESPACE = "jarvis-e2e-secrets"
_NODE = "jarvis-crdt-0"
_VALUES = {
    "infrastructure": {"node_count": 1},
    "crdt": {"replication_factor": 1},
    "deployment": {"replicas": 1},
    "monitoring": {"prometheus_enabled": False, "grafana_enabled": False, "alerting_enabled": False},
    "security": {
        "secrets": {
            "source": "existing",
            "names": {
                "cluster": "my-cluster",
                "encryption": "my-encryption",
                "backup_key": "my-backup",
                "api_keys": "my-api-keys",
                "admin_token": "my-token",
            },
        },
        "certificates": {
            "source": "existing",
            "names": {name: f"my-{name}-tls" for name in ("node", "backend", "operator", "api")},
        },
    },
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    found = find_cluster()
    assert found, "no cluster runs: `make up` brings it up"
    kubectl(found, "create", "namespace", _NAMESPACE)
    kubectl(found, "label", "namespace", _NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    yield found
    kubectl(found, "delete", "namespace", _NAMESPACE, "--wait=false")


def helm(cluster: Cluster, *arguments: str) -> str:
    options = ["--namespace", _NAMESPACE, "--kube-context", cluster.context]
    return run([str(find_tool("helm")), *arguments, *options], input=json.dumps(_VALUES), timeout_seconds=420).stdout


def create_secret(cluster: Cluster, name: str, **files: Path) -> None:
    """What `kubectl create secret generic NAME --from-file=ENTRY=FILE` makes."""
    data = {entry: base64.b64encode(file.read_bytes()).decode() for entry, file in files.items()}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": _NAMESPACE}, "data": data}
    kubectl(cluster, "create", "--filename=-", input=json.dumps(body))


def make_secrets(cluster: Cluster, folder: Path) -> None:
    """As docs/security.md says."""
    (folder / "cluster-secret").write_text(os.urandom(32).hex() + "\n")
    for name in ("encryption", "backup"):
        (folder / name).write_bytes(base64.b64encode(os.urandom(32)) + b"\n")
        create_secret(cluster, f"my-{name}", **{"encryption-key": folder / name})
    created = command("api-key", "create", str(folder / "api-keys.json"), "--name", "admin", "--scope", "admin")
    (folder / "token").write_bytes(subprocess.run(created, env=environment(), capture_output=True, check=True).stdout)
    for name, entry in (("cluster", "cluster-secret"), ("api-keys", "api-keys.json"), ("token", "token")):
        create_secret(cluster, f"my-{name}", **{entry: folder / entry})
    authority = Authority(folder / "authority")
    names = {
        "node": (_NODE,),
        "backend": ("jarvis-backend",),
        "operator": ("operator",),
        "api": (f"jarvis-backend.{_NAMESPACE}.svc", "jarvis-backend"),
    }
    for name, wanted in names.items():
        files = authority.issue(*wanted)
        entries = {"tls.crt": files.certificate, "tls.key": files.key, "ca.crt": files.authority}
        create_secret(cluster, f"my-{name}-tls", **entries)


def test_it_installs_tests_and_upgrades_with_what_is_there(cluster: Cluster, tmp_path: Path) -> None:
    make_secrets(cluster, tmp_path)
    before = {secret["metadata"]["name"] for secret in read_objects(cluster, "secrets", "--namespace", _NAMESPACE)}
    chart = [str(ROOT / "charts/jarvis"), "--values", str(CONFIG), "--values", "-", "--wait", "--timeout", "300s"]

    helm(cluster, "install", "jarvis", *chart)
    helm(cluster, "test", "jarvis")
    # The job before a resize is let in by the operator's certificate.
    helm(cluster, "upgrade", "jarvis", *chart)
    with Service(connect(cluster.context), _NAMESPACE) as service:
        service.write("k", "lww_register", {"assign": 1}, node=_NODE)
        assert 1 == service.read("k", node=_NODE)

    kinds = ("cronjobs", "roles", "rolebindings")
    assert {"cronjobs": ["jarvis-bkp"], "roles": [], "rolebindings": []} == {
        kind: [item["metadata"]["name"] for item in read_objects(cluster, kind, "--namespace", _NAMESPACE)]
        for kind in kinds
    }
    after = {secret["metadata"]["name"] for secret in read_objects(cluster, "secrets", "--namespace", _NAMESPACE)}
    assert before == {name for name in after if not name.startswith("sh.helm.release.")}
