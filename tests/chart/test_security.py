"""Pod Security `restricted`, least privilege, and no secret in a manifest."""

from typing import Any

import pytest

from tests.chart.conftest import Manifest, Render


def _pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    pods = {}
    for manifest in manifests:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["kind"] == "Pod":
            pods[name] = manifest["spec"]
        elif manifest["kind"] in {"Deployment", "StatefulSet", "Job"}:
            pods[name] = manifest["spec"]["template"]["spec"]
    return pods


@pytest.fixture(scope="module")
def pods(render: Render) -> dict[str, Manifest]:
    return _pods(render())


def test_every_pod_is_restricted(pods: dict[str, Manifest]):
    assert {
        "Pod/jarvis-test-health",
        "Deployment/jarvis-backend",
        "StatefulSet/jarvis-crdt",
        "Job/jarvis-secret-hook",
    } == set(pods)
    for name, pod in pods.items():
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert {"type": "RuntimeDefault"} == context["seccompProfile"], name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["readOnlyRootFilesystem"] is True, name
            assert {"drop": ["ALL"]} == own["capabilities"], name
        volumes = {kind for volume in pod.get("volumes", []) for kind in volume if kind != "name"}
        assert volumes <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}, name


def test_every_container_has_requests_and_limits(pods: dict[str, Manifest]):
    for name, pod in pods.items():
        for container in pod["containers"]:
            for side in ("requests", "limits"):
                assert {"cpu", "memory", "ephemeral-storage"} == set(container["resources"][side]), name


def test_only_the_hook_gets_a_token_and_may_only_create_secrets(render: Render, pods: dict[str, Manifest]):
    with_token = {name for name, pod in pods.items() if pod["automountServiceAccountToken"]}
    rules = [manifest["rules"] for manifest in render() if manifest["kind"] in {"Role", "ClusterRole"}]

    assert {"Job/jarvis-secret-hook"} == with_token
    assert [[{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}]] == rules


def test_no_manifest_holds_a_secret(render: Render):
    assert [] == [manifest for manifest in render() if manifest["kind"] == "Secret"]


def test_without_rbac_the_secret_is_the_users_own(render: Render):
    kinds = {manifest["kind"] for manifest in render({"security": {"enable_rbac": False}})}

    assert not {"Role", "RoleBinding", "Job"} & kinds


def test_network_policies_deny_by_default_and_name_each_flow(render: Render):
    def policies(values: Manifest) -> dict[str, Any]:
        return {m["metadata"]["name"]: m["spec"] for m in render(values) if m["kind"] == "NetworkPolicy"}

    assert {} == policies({"security": {"network_policies": False}})
    deny = policies({})["jarvis-default-deny"]
    assert ["Ingress", "Egress"] == deny["policyTypes"]
    assert not {"ingress", "egress"} & set(deny)
    peers = policies({})["jarvis-crdt"]["ingress"]
    allowed = [source["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for source in peers[0]["from"]]
    assert ["crdt", "backend"] == allowed
