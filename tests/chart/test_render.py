"""What every values file and every key renders."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.spec.config import render_template
from harness.spec.schema import walk
from tests.chart.conftest import CHART, ROOT, VALUES_FILES, Manifest, Render, nested
from tests.chart.crd import validate
from tests.chart.matrix import CASES, merge
from tests.chart.restricted import judge, pods_of

_QUICK_START = ROOT / "tests/guide/quick-start.yaml"
_FILES = (_QUICK_START, *VALUES_FILES)
_KUBERNETES = ("1.29", "1.32", "1.36", "1.37")


def _leaves(schema: Manifest, path: tuple[str, ...] = (), planned: bool = False) -> Any:
    for name, node in schema.get("properties", {}).items():
        below = planned or node.get("x-status") == "planned"
        if "default" in node:
            yield (*path, name), node, below
        else:
            yield from _leaves(node, (*path, name), below)


_LEAVES = list(_leaves(yaml.safe_load((CHART / "values.schema.yaml").read_text())))
_LIVE = [(path, node) for path, node, planned in _LEAVES if not planned and node.get("enum") != [True]]
_PLANNED = [(path, node) for path, node, planned in _LEAVES if planned]

# Another value where the schema alone cannot tell one, or where a key counts only beside others.
_OTHER: dict[str, Any] = {
    "infrastructure.node_count": 4,
    "infrastructure.cluster_name": "other",
    "infrastructure.availability_zones": ["elsewhere"],
    "infrastructure.storage_size": "7Gi",
    "infrastructure.vpc_cidr": "192.168.0.0/24",
    "infrastructure.cluster_domain": "example.internal",
    "deployment.resource_limits.cpu": "3",
    "deployment.resource_limits.memory": "3Gi",
    "deployment.resource_limits.storage": "3Gi",
    "deployment.resource_requests.cpu": "300m",
    "deployment.resource_requests.memory": "300Mi",
    "deployment.resource_requests.storage": "300Mi",
    "deployment.auto_scaling.target_memory_utilization": 50,
    "crdt.conflict_rules": [{"prefix": "price/", "strategy": "max"}],
    "monitoring.metrics_retention": "7d",
    "monitoring.existing.namespace": "observability",
    "monitoring.existing.labels": {"release": "stack"},
    "monitoring.prometheus.image.repository": "elsewhere/prometheus",
    "monitoring.prometheus.image.tag": "other",
    "monitoring.prometheus.image.digest": f"sha256:{'0' * 64}",
    "monitoring.prometheus.storage_size": "7Gi",
    "monitoring.prometheus.resources.requests": {"cpu": "50m"},
    "monitoring.prometheus.resources.limits": {"cpu": "7"},
    "monitoring.runbook_base_url": "https://git.example/runbooks/",
    "monitoring.grafana.image.repository": "elsewhere/grafana",
    "monitoring.grafana.image.tag": "other",
    "monitoring.grafana.image.digest": f"sha256:{'0' * 64}",
    "monitoring.grafana.resources.requests": {"cpu": "70m"},
    "monitoring.grafana.resources.limits": {"memory": "3Gi"},
    "monitoring.existing.dashboard_labels": {"dashboards": "jarvis"},
    "image.repository": "elsewhere/crdt-service",
    "deployment.service.annotations": {"cloud.example/internal": "true"},
    "scheduling.node_selector": {"pool": "jarvis"},
    "scheduling.tolerations": [{"key": "jarvis"}],
    "scheduling.crdt_priority_class": "high",
    "scheduling.backend_priority_class": "high",
    "image.tag": "other",
    "backup.schedule": "30 * * * *",
    "backup.volume.size": "7Gi",
    "backup.s3.endpoint": "http://other:9000",
    **dict.fromkeys(("backup.s3.bucket", "backup.s3.prefix", "backup.s3.region", "backup.s3.existing_secret"), "other"),
    "image.digest": f"sha256:{'0' * 64}",
    "global.image_registry": "mirror.example:5000/proxy",
    "global.image_pull_secrets": ["mirror"],
    "plugins": [{"name": "other"}],
    "tracing.endpoint": "http://collector:4318",
    "ingress.class_name": "internal",
    "ingress.controller_namespace": "elsewhere",
    "ingress.hosts": ["other.example"],
    "ingress.annotations": {"example.com/colour": "blue"},
    "ingress.tls.existing_secret": "other",
    "ingress.tls.cluster_issuer": "other",
    "gateway.parent_refs": [{"name": "other"}],
    "gateway.hostnames": ["*.other.example"],
    "gateway.controller_namespace": "elsewhere",
    "monitoring.alertmanager.image.repository": "elsewhere/alertmanager",
    "monitoring.alertmanager.image.tag": "other",
    "monitoring.alertmanager.image.digest": f"sha256:{'0' * 64}",
    "monitoring.alertmanager.storage_size": "1Gi",
    "monitoring.alertmanager.resources.requests": {"cpu": "20m"},
    "monitoring.alertmanager.resources.limits": {"memory": "300Mi"},
    "notifications.ca_config_map": "authorities",
    "notifications.slack.existing_secret": "other",
    "notifications.slack.secret_key": "other",
    "notifications.slack.channel": "#other",
    "notifications.slack.severities": ["critical"],
    "notifications.email.to": ["other@example.com"],
    "notifications.email.from": "other@example.com",
    "notifications.email.smarthost": "smtp.example.com:25",
    "notifications.email.username": "other",
    "notifications.email.existing_secret": "other",
    "notifications.email.secret_key": "other",
    "notifications.email.severities": ["critical"],
    "notifications.pagerduty.existing_secret": "other",
    "notifications.pagerduty.secret_key": "other",
    "notifications.pagerduty.url": "https://events.eu.pagerduty.com/v2/enqueue",
    "notifications.pagerduty.severities": ["critical", "warning"],
    "security.secrets.external.refresh_interval": "7m",
    "security.certificates.cert_manager.issuer_kind": "ClusterIssuer",
    "security.certificates.cert_manager.issuer_group": "issuers.example",
}
_RECEIVERS: dict[str, Manifest] = {
    "slack": {"existing_secret": "slack"},
    "email": {
        "to": ["team@example.com"],
        "from": "jarvis@example.com",
        "smarthost": "smtp.example.com:587",
        "username": "jarvis",
        "existing_secret": "smtp",
    },
    "pagerduty": {"existing_secret": "pagerduty"},
}


def _external(**external: Any) -> Manifest:
    return {"security": {"secrets": {"source": "external", "external": {"store_name": "vault", **external}}}}


def _certificates(source: str, **manager: str) -> Manifest:
    return {"security": {"certificates": {"source": source, "cert_manager": manager}}}


_INGRESS = {"ingress": {"enabled": True, "hosts": ["jarvis.example"]}}
_GATEWAY = {"gateway": {"enabled": True, "parent_refs": [{"name": "web"}]}}
_S3 = {"destination": "s3", "s3": {"endpoint": "https://s3.example", "bucket": "b-1", "existing_secret": "s3"}}
_BESIDE: dict[str, Manifest] = {
    **{f"monitoring.existing.{key}": {"monitoring": {"stack": "existing"}} for key in ("namespace", "labels")},
    "backup.destination": {"backup": {"s3": _S3["s3"]}},
    **{
        f"backup.{key}": {"backup": _S3}
        for key in ("s3.endpoint", "s3.bucket", "s3.prefix", "s3.region", "s3.existing_secret")
    },
    "ingress.enabled": {"ingress": {"hosts": ["jarvis.example"]}},
    "gateway.enabled": {"gateway": {"parent_refs": [{"name": "web"}]}},
    **{
        f"ingress.{key}": _INGRESS
        for key in ("controller", "class_name", "controller_namespace", "hosts", "annotations")
    },
    **{f"ingress.tls.{key}": _INGRESS for key in ("existing_secret", "cluster_issuer")},
    **{f"gateway.{key}": _GATEWAY for key in ("parent_refs", "hostnames", "controller_namespace")},
    **{
        key.dotted: {"notifications": {name: {**receiver, "enabled": key.path[-1] != "enabled"}}}
        for name, receiver in _RECEIVERS.items()
        for key in walk()
        if key.path[:2] == ("notifications", name) and key.is_leaf
    },
    "monitoring.prometheus_enabled": {"monitoring": {"grafana_enabled": False}},
    "monitoring.existing.dashboard_labels": {"monitoring": {"stack": "existing"}},
    "tracing.sampling_percent": {"tracing": {"endpoint": "http://collector:4318"}},
    "deployment.replicas": {"deployment": {"auto_scaling": {"enabled": False}}},
    **{f"storage_classes.{tier}": {"infrastructure": {"storage_class": tier}} for tier in ("standard", "premium")},
    **{
        f"instance_presets.{size}": {"infrastructure": {"instance_type": size}} for size in ("small", "large", "xlarge")
    },
    # The longest path that fits counts for every key below it.
    "security.secrets.source": nested(("security", "secrets", "names", "cluster"), "own"),
    "security.secrets.external": _external(),
    "security.secrets.external.remote.encryption_previous.property": _external(
        remote={"encryption_previous": {"key": "before"}}
    ),
    "security.certificates.names": _certificates("existing"),
    "security.certificates.cert_manager": _certificates("cert_manager"),
    **{
        f"security.certificates.cert_manager.issuer_{name}": _certificates("cert_manager", issuer_name="own")
        for name in ("kind", "group")
    },
}


def _other(path: tuple[str, ...], node: Manifest) -> Any:
    dotted = ".".join(path)
    if dotted in _OTHER:
        return _OTHER[dotted]
    default = node["default"]
    if isinstance(default, bool):
        return not default
    if "enum" in node:
        return next(value for value in node["enum"] if value != default)
    if isinstance(default, int):
        return default - 1 if default > node["minimum"] else default + 1
    if path[0] in {"storage_classes", "security"}:
        return "other"
    if path[0] == "instance_presets":
        return {"limits": {"cpu": "7"}}
    raise AssertionError(f"{dotted}: say in _OTHER which other value to try")


def _without_values(manifests: list[Manifest]) -> list[Manifest]:
    """All but the object in which the values themselves are, for backups to keep: every key changes that."""
    kept = [m for m in manifests if (m["kind"], m["metadata"]["name"]) != ("ConfigMap", "jarvis-backup")]
    assert len(manifests) - 1 <= len(kept)
    return kept


@pytest.mark.parametrize(("path", "node"), _LIVE, ids=lambda value: ".".join(value) if isinstance(value, tuple) else "")
def test_every_key_changes_a_rendered_object(render: Render, path: tuple[str, ...], node: Manifest):
    above = (".".join(path[:end]) for end in range(len(path), 0, -1))
    beside = next((_BESIDE[key] for key in above if key in _BESIDE), {})

    before, after = render(beside), render(merge(beside, nested(path, _other(path, node))))

    assert _without_values(before) != _without_values(after)
    assert [] == [(pod["metadata"], found) for pod in pods_of(after) for found in judge(pod)]


@pytest.mark.parametrize(
    ("path", "node"), _PLANNED, ids=lambda value: ".".join(value) if isinstance(value, tuple) else ""
)
def test_a_planned_key_is_accepted_and_changes_nothing(render: Render, path: tuple[str, ...], node: Manifest):
    beside = _BESIDE.get(".".join(path), {})

    assert _without_values(render(beside)) == _without_values(render(merge(beside, nested(path, _other(path, node)))))


@pytest.mark.parametrize("file", [None, *_FILES], ids=lambda file: file.stem if file else "defaults")
@pytest.mark.parametrize("version", _KUBERNETES)
def test_manifests_are_valid(render: Render, file: Path | None, version: str):
    for manifest in render(files=(file,) if file else ()):
        validate(manifest, version)


@pytest.mark.parametrize("name", CASES)
def test_manifests_of_any_two_settings_together_are_valid(rendered: Callable[[str], list[Manifest]], name: str):
    for version in (_KUBERNETES[0], _KUBERNETES[-1]):
        for manifest in rendered(name):
            validate(manifest, version)


@pytest.mark.parametrize("version", _KUBERNETES)
def test_text_that_looks_like_another_type_stays_text(render: Render, version: str):
    values = {"infrastructure": {"cluster_name": "123"}, "storage_classes": {"fast-ssd": "1e3"}, "image": {"tag": "1"}}

    for manifest in render(values, release="true", namespace="456"):
        validate(manifest, version)


def test_the_template_of_the_cli_renders_the_defaults(render: Render, tmp_path: Path):
    path = tmp_path / "cluster-config.yaml"
    path.write_text(render_template())

    assert render() == render(files=(path,))


def test_the_quick_start_is_the_default(render: Render):
    assert render() == render(files=(_QUICK_START,))


def test_the_notes_name_what_has_no_effect_yet():
    found = re.search(r"No effect yet: (.*?)\.\n", (CHART / "templates/NOTES.txt").read_text(), re.DOTALL)
    named = {name.removesuffix(".*") for name in re.split(r",\s+", found[1])} if found else set()

    assert {key.dotted for key in walk() if key.node.get("x-status") == "planned"} == named


def test_selectors_hold_only_stable_labels(render: Render):
    stable = {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}
    workloads = [manifest for manifest in render() if manifest["kind"] in {"Deployment", "StatefulSet"}]

    assert {"jarvis-crdt", "jarvis-backend"} <= {workload["metadata"]["name"] for workload in workloads}
    for workload in workloads:
        assert stable == set(workload["spec"]["selector"]["matchLabels"])
        for claim in workload["spec"].get("volumeClaimTemplates", []):
            assert stable == set(claim["metadata"]["labels"])


def test_the_guides_names(render: Render):
    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in render()}
    expected = {
        ("StatefulSet", "jarvis-crdt"),
        ("Service", "jarvis-crdt-headless"),
        ("Deployment", "jarvis-backend"),
        ("Service", "jarvis-backend"),
        ("ConfigMap", "jarvis-config"),
    }

    assert expected <= names


def test_the_autoscaler_owns_the_number_of_pods(render: Render):
    def kinds(values: Manifest) -> tuple[bool, bool]:
        backend = {m["kind"]: m for m in render(values) if m["metadata"]["name"] == "jarvis-backend"}
        return "HorizontalPodAutoscaler" in backend, "replicas" in backend["Deployment"]["spec"]

    assert (True, False) == kinds({"deployment": {"auto_scaling": {"enabled": True}}})
    assert (False, True) == kinds({"deployment": {"auto_scaling": {"enabled": False}}})


def test_zones_are_spread_strictly_only_where_there_are_several(render: Render):
    def rule(zones: list[str]) -> str:
        manifest = next(
            m for m in render({"infrastructure": {"availability_zones": zones}}) if m["kind"] == "StatefulSet"
        )
        return manifest["spec"]["template"]["spec"]["topologySpreadConstraints"][0]["whenUnsatisfiable"]

    assert "DoNotSchedule" == rule(["a", "b"])
    assert "ScheduleAnyway" == rule(["a"])


def test_nodes_learn_their_zone_and_address_from_their_pod(render: Render):
    [container] = next(m for m in render() if m["kind"] == "StatefulSet")["spec"]["template"]["spec"]["containers"]
    fields = {env["name"]: env["valueFrom"]["fieldRef"]["fieldPath"] for env in container["env"]}

    assert {"--zone=$(ZONE)", "--advertise=$(POD_IP):8001"} <= set(container["args"])
    assert ("metadata.labels['topology.kubernetes.io/zone']", "status.podIP") == (fields["ZONE"], fields["POD_IP"])
