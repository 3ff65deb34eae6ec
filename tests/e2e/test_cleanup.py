"""The end of the deployment: these tests run after all others."""

from typing import Any

import pytest

from harness.kube import connect
from tests.e2e.conftest import CONTEXT, NAMESPACE, Deployment, run_cli

pytestmark = pytest.mark.e2e


def test_cleanup_of_another_id_is_refused(deployment: Deployment) -> None:
    done = run_cli("cleanup", "jarvis-00000000")

    assert done.returncode == 1
    assert deployment.id in done.stderr
    assert run_cli("status").returncode == 0


def test_cleanup_leaves_nothing(deployment: Deployment) -> None:
    done = run_cli("cleanup", deployment.id)

    assert done.returncode == 0, done.stderr
    kube = connect(CONTEXT)
    assert kube.read("namespaces", "", NAMESPACE) is None
    volumes = kube.request("GET", "/api/v1/persistentvolumes")["items"]
    claimed = [volume["spec"].get("claimRef", {}).get("namespace") for volume in volumes if bound(volume)]
    assert NAMESPACE not in claimed

    again = run_cli("cleanup", deployment.id)
    assert again.returncode == 1
    assert "nothing is deployed" in again.stderr


def bound(volume: dict[str, Any]) -> bool:
    return volume["status"]["phase"] == "Bound"
