"""Pod Security `restricted`, least privilege, and no secret in a manifest."""

from typing import Any

import pytest

from crdt_service.__main__ import _parser as main_parser
from crdt_service.certificates.renewal import read_wanted
from crdt_service.net.credentials import BACKEND_NAME, is_named
from crdt_service.net.operator import OPERATOR_NAME
from tests.chart.conftest import CHART, Manifest, Render

_API_TESTS = {"Pod/jarvis-test-health", "Pod/jarvis-test-write"}
_BACKUP_MOUNTS = {"jarvis-config", "jarvis-backup", "jarvis-cluster", "jarvis-operator-tls", "jarvis-backup-key"}
_TLS_SECRETS = {"jarvis-authority", "jarvis-node-tls", "jarvis-backend-tls", "jarvis-operator-tls", "jarvis-api-tls"}


def _pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    pods = {}
    for manifest in manifests:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["kind"] == "Pod":
            pods[name] = manifest["spec"]
        elif manifest["kind"] in {"Deployment", "StatefulSet", "Job"}:
            pods[name] = manifest["spec"]["template"]["spec"]
        elif manifest["kind"] == "CronJob":
            pods[name] = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return pods


@pytest.fixture(scope="module")
def pods(render: Render) -> dict[str, Manifest]:
    return _pods(render())


def test_every_pod_is_restricted(pods: dict[str, Manifest]):
    assert {
        "Pod/jarvis-test-health",
        "Pod/jarvis-test-write",
        "Pod/jarvis-test-backup",
        "CronJob/jarvis-bkp",
        "Deployment/jarvis-backend",
        "Deployment/jarvis-grafana",
        "StatefulSet/jarvis-crdt",
        "Job/jarvis-secret-hook",
        "Job/jarvis-fill-hook",
        "Job/jarvis-resize-hook",
        "CronJob/jarvis-tls",
        "Deployment/jarvis-alertmanager",
        "Deployment/jarvis-prometheus",
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


def test_only_jobs_that_make_secrets_and_prometheus_get_a_token_and_each_right_is_narrow(
    render: Render, pods: dict[str, Manifest]
):
    with_token = {name for name, pod in pods.items() if pod["automountServiceAccountToken"]}
    values = {"security": {"api_key_required": False}}
    rules = {m["metadata"]["name"]: m["rules"] for m in render(values) if m["kind"] in {"Role", "ClusterRole"}}
    named = {"secrets": _TLS_SECRETS, "configmaps": {"jarvis-ca"}}

    hooks = {"Job/jarvis-secret-hook", "Job/jarvis-fill-hook"}
    assert {*hooks, "CronJob/jarvis-tls", "Deployment/jarvis-prometheus"} == with_token
    finding = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    assert finding == rules.pop("jarvis-prometheus")
    assert {"jarvis-secret-hook", "jarvis-fill-hook", "jarvis-tls"} == set(rules)
    creating = rules.pop("jarvis-secret-hook")
    assert [["secrets"], ["configmaps"], ["persistentvolumeclaims"]] == [rule["resources"] for rule in creating]
    assert [["create"]] * 3 == [rule["verbs"] for rule in creating]
    for name, of_role in rules.items():
        assert named == {rule["resources"][0]: set(rule["resourceNames"]) for rule in of_role}, name
        assert [["get", "update"]] * 2 == [rule["verbs"] for rule in of_role], name


def test_without_tls_the_hooks_may_only_create_secrets_and_fill_that_of_api_keys(render: Render):
    def rules(**security: bool) -> list[Any]:
        manifests = render({"security": {"enable_tls": False, **security}, "backup": {"enabled": False}})
        roles = {m["metadata"]["name"]: m["rules"] for m in manifests if m["kind"] in {"Role", "ClusterRole"}}
        assert "jarvis-prometheus" in roles
        return [roles.get(f"jarvis-{name}-hook") for name in ("secret", "fill")]

    create = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}
    fill = {**create, "verbs": ["get", "update"], "resourceNames": ["jarvis-api-keys"]}
    read = {**create, "verbs": ["get"], "resourceNames": ["jarvis-admin-token"]}
    assert [[create], [fill, read]] == rules()
    assert [[create], None] == rules(api_key_required=False)


def test_each_pod_mounts_only_the_secrets_that_it_needs(render: Render):
    def mounted(values: Manifest) -> dict[str, set[str]]:
        return {
            name: {
                volume["secret"]["secretName"] if "secret" in volume else volume["configMap"]["name"]
                for volume in pod.get("volumes", [])
                if {"secret", "configMap"} & set(volume)
            }
            for name, pod in _pods(render(values)).items()
        }

    assert {
        "Pod/jarvis-test-health": {"jarvis-ca"},
        "Pod/jarvis-test-write": {"jarvis-ca", "jarvis-admin-token"},
        "Deployment/jarvis-backend": {
            *("jarvis-config", "jarvis-cluster", "jarvis-api-keys", "jarvis-backend-tls", "jarvis-api-tls")
        },
        "Deployment/jarvis-grafana": {"jarvis-dashboards", "jarvis-grafana"},
        "StatefulSet/jarvis-crdt": {"jarvis-config", "jarvis-cluster", "jarvis-encryption", "jarvis-node-tls"},
        "Job/jarvis-secret-hook": set(),
        "Job/jarvis-fill-hook": set(),
        "Job/jarvis-resize-hook": {"jarvis-cluster", "jarvis-operator-tls"},
        "CronJob/jarvis-tls": set(),
        "CronJob/jarvis-bkp": _BACKUP_MOUNTS,
        "Pod/jarvis-test-backup": _BACKUP_MOUNTS,
        "Deployment/jarvis-alertmanager": {"jarvis-alertmanager"},
        "Deployment/jarvis-prometheus": {"jarvis-prometheus", "jarvis-rules", "jarvis-ca"},
    } == mounted({})
    plain = mounted({"security": {"enable_tls": False}})
    assert set() == set().union(*plain.values()) & {*_TLS_SECRETS, "jarvis-ca"}


def test_a_mounted_certificate_follows_its_renewal(pods: dict[str, Manifest]):
    mounts = [mount for pod in pods.values() for each in pod["containers"] for mount in each.get("volumeMounts", [])]

    assert {"/etc/jarvis-tls", "/etc/jarvis-https", "/etc/jarvis-ca"} <= {mount["mountPath"] for mount in mounts}
    assert [] == [mount for mount in mounts if "subPath" in mount]


def test_hook_and_renewal_ask_for_the_same_certificates_and_each_process_gets_one_that_names_it(
    pods: dict[str, Manifest],
):
    [renewal] = pods["CronJob/jarvis-tls"]["containers"]
    hook = next(each for each in pods["Job/jarvis-fill-hook"]["containers"] if each["name"] == "certificates")
    options = main_parser().parse_args(renewal["args"])
    peers = dict(read_wanted(text, is_peer=True) for text in options.peer)
    servers = dict(read_wanted(text, is_peer=False) for text in options.server)

    assert renewal == hook
    assert {options.authority, *peers, *servers} == _TLS_SECRETS
    assert ("jarvis-system", "jarvis-ca") == (options.namespace, options.bundle)
    nodes = frozenset(peers["jarvis-node-tls"].names)
    assert [True] * 10 == [is_named(nodes, f"jarvis-crdt-{number}") for number in range(10)]
    assert not is_named(nodes, BACKEND_NAME)
    assert (BACKEND_NAME,) == peers["jarvis-backend-tls"].names
    assert (OPERATOR_NAME,) == peers["jarvis-operator-tls"].names
    assert {"jarvis-backend", "jarvis-backend.jarvis-system.svc", "localhost"} <= set(servers["jarvis-api-tls"].names)


def test_the_service_takes_every_command_line(render: Render):
    for tls in (True, False):
        for name, pod in _pods(render({"security": {"enable_tls": tls}})).items():
            for container in pod["containers"]:
                if "args" in container and "/crdt-service:" in container["image"]:
                    options = vars(main_parser().parse_args(container["args"]))
                    assert tls == bool(options.get("tls_cert", tls)), name
                    assert tls == bool(options.get("https_cert", tls)), name


def test_probes_service_and_test_speak_what_the_api_speaks(render: Render):
    def spoken(tls: bool) -> tuple[set[str], str, bool]:
        manifests = render({"security": {"enable_tls": tls}})
        [container] = _pods(manifests)["Deployment/jarvis-backend"]["containers"]
        probes = {container[f"{name}Probe"]["httpGet"]["scheme"] for name in ("startup", "liveness", "readiness")}
        service = next(m for m in manifests if (m["kind"], m["metadata"]["name"]) == ("Service", "jarvis-backend"))
        tests = [pod["containers"][0]["command"] for name, pod in _pods(manifests).items() if name in _API_TESTS]
        (url,) = {command[3] for command in tests}
        return probes, service["spec"]["ports"][0]["appProtocol"], url

    assert ({"HTTPS"}, "https", "https://jarvis-backend:8000") == spoken(True)
    assert ({"HTTP"}, "http", "http://jarvis-backend:8000") == spoken(False)


@pytest.mark.parametrize("on", [True, False])
def test_a_test_runs_its_script_with_the_files_that_there_are(render: Render, on: bool):
    tests = {
        name: pod
        for name, pod in _pods(render({"security": {"enable_tls": on, "api_key_required": on}})).items()
        if name in _API_TESTS
    }
    expected = {"health": ["/etc/jarvis-ca/ca.crt"], "write": ["/etc/jarvis-ca/ca.crt", "/etc/jarvis-token/token"]}

    assert {f"Pod/jarvis-test-{check}" for check in expected} == set(tests)
    for check, files in expected.items():
        [container] = tests[f"Pod/jarvis-test-{check}"]["containers"]
        script, _, *arguments = container["command"][2:]
        folders = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        assert (CHART / f"checks/{check}.py").read_text().strip() == script.strip()
        assert (files if on else [""] * len(files)) == arguments
        assert [file.rpartition("/")[0] for file in files if on] == folders


def test_the_longest_release_name_leaves_jobs_of_the_renewal_theirs(render: Render):
    names = [m["metadata"]["name"] for m in render(release="a" * 47) if m["kind"] == "CronJob"]

    assert [51, 51] == [len(name) for name in names]


def test_no_manifest_holds_a_secret(render: Render):
    assert [] == [manifest for manifest in render() if manifest["kind"] == "Secret"]


def test_only_the_nodes_get_the_encryption_key_and_only_as_a_file(render: Render):
    def uses(values: Manifest) -> dict[str, list[Any]]:
        return {
            name: [pod["containers"][0]["args"], *pod.get("volumes", [])]
            for name, pod in _pods(render(values)).items()
            if "jarvis-encryption" in str(pod)
        }

    assert {} == uses({"security": {"encryption_enabled": False}})
    found = uses({"security": {"encryption_enabled": True}})
    assert {"StatefulSet/jarvis-crdt", "Job/jarvis-secret-hook"} == set(found)
    arguments, *volumes = found["StatefulSet/jarvis-crdt"]
    assert "--encryption-key-file=/etc/jarvis-encryption" in arguments
    assert {"name": "encryption", "secret": {"secretName": "jarvis-encryption", "defaultMode": 0o440}} in volumes


def test_the_hook_creates_each_secret_by_itself_so_that_an_upgrade_adds_what_is_missing(render: Render):
    hook = _pods(render())["Job/jarvis-secret-hook"]
    created = [
        each["args"][-4:] for each in hook["containers"] if each["name"] not in ("backup-volume", "certificates")
    ]

    assert [
        ["--name", "jarvis-cluster", "--key", "cluster-secret"],
        ["--name", "jarvis-encryption", "--key", "encryption-key"],
        ["--name", "jarvis-backup-key", "--key", "encryption-key"],
        ["--name", "jarvis-grafana", "--key", "admin-password"],
        ["--keys-secret", "jarvis-api-keys", "--token-secret", "jarvis-admin-token"],
    ] == created


def test_the_backend_alone_gets_the_hashes_of_api_keys_and_a_test_alone_the_token(render: Render):
    def users(values: Manifest, secret: str) -> set[str]:
        return {
            name
            for name, pod in _pods(render(values)).items()
            if any(volume.get("secret", {}).get("secretName") == secret for volume in pod.get("volumes", []))
        }

    on, off = {"security": {"api_key_required": True}}, {"security": {"api_key_required": False}}
    assert {"Deployment/jarvis-backend"} == users(on, "jarvis-api-keys")
    assert {"Pod/jarvis-test-write"} == users(on, "jarvis-admin-token")
    assert set() == users(off, "jarvis-admin-token") | users(off, "jarvis-api-keys")
    assert "api-key" not in str(_pods(render(off)))
    (backend,) = (pod for name, pod in _pods(render(on)).items() if name == "Deployment/jarvis-backend")
    assert "--api-keys-file=/etc/jarvis-api-keys/api-keys.json" in backend["containers"][0]["args"]


def test_a_change_of_limits_restarts_backends_and_no_node(render: Render):
    def checksums(values: Manifest) -> dict[str, str]:
        return {
            manifest["kind"]: manifest["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
            for manifest in render(values)
            if manifest["kind"] in {"Deployment", "StatefulSet"}
            and manifest["metadata"]["name"] in {"jarvis-backend", "jarvis-crdt"}
        }

    before, after = checksums({}), checksums({"security": {"rate_limiting": {"burst_limit": 7}}})
    assert before["Deployment"] != after["Deployment"]
    assert before["StatefulSet"] == after["StatefulSet"]
    assert before["StatefulSet"] != checksums({"crdt": {"sync_interval": 7}})["StatefulSet"]


def test_without_rbac_the_secret_is_the_users_own(render: Render):
    made = {
        (manifest["kind"], manifest["metadata"]["name"]) for manifest in render({"security": {"enable_rbac": False}})
    }

    assert not {"Role", "RoleBinding"} & {kind for kind, _ in made}
    assert ["jarvis-bkp"] == [name for kind, name in made if kind == "CronJob"]
    assert ("Job", "jarvis-secret-hook") not in made


def test_network_policies_deny_by_default_and_name_each_flow(render: Render):
    def policies(values: Manifest) -> dict[str, Any]:
        return {m["metadata"]["name"]: m["spec"] for m in render(values) if m["kind"] == "NetworkPolicy"}

    assert {} == policies({"security": {"network_policies": False}})
    deny = policies({})["jarvis-default-deny"]
    assert ["Ingress", "Egress"] == deny["policyTypes"]
    assert not {"ingress", "egress"} & set(deny)
    peers = policies({})["jarvis-crdt"]["ingress"]
    allowed = [source["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for source in peers[0]["from"]]
    assert ["crdt", "backend", "backup", "resize-hook"] == allowed


def test_a_smaller_cluster_is_told_so_before_its_pods_go(render: Render):
    job = next(
        m
        for m in render({"infrastructure": {"node_count": 4}})
        if (m["kind"], m["metadata"]["name"]) == ("Job", "jarvis-resize-hook")
    )

    assert "pre-upgrade,pre-rollback" == job["metadata"]["annotations"]["helm.sh/hook"]
    pod = job["spec"]["template"]["spec"]
    assert "--nodes=4" in pod["containers"][0]["args"]
    assert ["secret", "tls"] == [volume["name"] for volume in pod["volumes"]]
