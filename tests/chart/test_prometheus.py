"""The bundled Prometheus: promtool takes its configuration, and it may go where it has to and nowhere else."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cluster.tool import find_tool
from harness.cluster.version import PROMETHEUS_IMAGE
from harness.process import Completed, run
from harness.spec.quantity import read_quantity
from tests.chart.conftest import VALUES_FILES, Manifest, Render
from tests.chart.crd import validate

_SWITCHES = [
    {"security": dict(zip(("enable_tls", "enable_rbac", "network_policies"), given, strict=True))}
    for given in itertools.product([True, False], repeat=3)
]


def _find(manifests: list[Manifest], kind: str, name: str = "jarvis-prometheus") -> Any:
    return next(m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))


def _prometheus(manifests: list[Manifest]) -> list[Manifest]:
    return [m for m in manifests if m["metadata"]["labels"]["app.kubernetes.io/component"] == "prometheus"]


def _check(folder: Path, text: str) -> Completed:
    """What promtool says of a configuration; files of pods that it names are made up."""
    trust = folder / "jarvis-ca/ca.crt"
    trust.parent.mkdir()
    trust.touch()
    text = text.replace("/etc/", f"{folder}/")
    config = folder / "prometheus.yml"
    config.write_text(text)
    return run([str(find_tool("promtool")), "check", "config", "--lint=all", "--lint-fatal", str(config)], check=False)


def _config(manifests: list[Manifest], name: str = "jarvis-prometheus") -> str:
    text: str = _find(manifests, "ConfigMap", name)["data"]["prometheus.yml"]
    return text


@pytest.mark.parametrize("values", _SWITCHES, ids=lambda values: json.dumps(list(values["security"].values())))
def test_promtool_takes_the_configuration_whatever_is_switched(render: Render, tmp_path: Path, values: Manifest):
    done = _check(tmp_path, _config(render(values)))

    assert (0, "") == (done.returncode, "" if done.returncode == 0 else done.stdout + done.stderr)


@pytest.mark.parametrize("file", VALUES_FILES, ids=lambda file: file.stem)
def test_promtool_takes_the_configuration_of_every_values_file(render: Render, tmp_path: Path, file: Path):
    manifests = render(files=(file,))
    enabled = yaml.safe_load(file.read_text()).get("monitoring", {}).get("prometheus_enabled", True)

    assert enabled == bool(_prometheus(manifests))
    if enabled:
        assert 0 == _check(tmp_path, _config(manifests)).returncode


@pytest.mark.parametrize("retention", ["1h", "999999h", "99999d", "9999w", "99y"])
@pytest.mark.parametrize("size", ["1Gi", "999999Ti"])
def test_promtool_takes_the_longest_and_the_shortest_limits(render: Render, tmp_path: Path, retention: str, size: str):
    values = {"monitoring": {"metrics_retention": retention, "prometheus": {"storage_size": size}}}
    text = _config(render(values, release="r" * 47, namespace="1"), f"{'r' * 47}-prometheus")

    assert 0 == _check(tmp_path, text).returncode


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("metrics_retention", "100y"),
        ("metrics_retention", "99999999999d"),
        ("metrics_retention", "0d"),
        ("metrics_retention", "30"),
        ("metrics_retention", "1d12h"),
        ("prometheus", {"storage_size": "512Mi"}),
        ("prometheus", {"storage_size": "0Gi"}),
        ("prometheus", {"storage_size": "1.5Gi"}),
        ("prometheus", {"storage_class": "gp3"}),
        ("prometheus", {"image": {"tag": ""}}),
        ("prometheus", {"resources": {"limits": {"gpu": "1"}}}),
        ("prometheus", {"resources": {"limits": {"memory": "1Ti"}}}),
    ],
)
def test_what_prometheus_could_not_start_with_is_refused(template: Any, key: str, value: Any):
    done = template({"monitoring": {key: value}})

    assert (1, True) == (done.returncode, f"/monitoring/{key}" in done.stderr)


def test_the_image_is_the_one_that_clusters_without_registries_have(render: Render):
    [container] = _find(render(), "Deployment")["spec"]["template"]["spec"]["containers"]

    assert PROMETHEUS_IMAGE == container["image"]


@pytest.mark.parametrize("size", ["1Gi", "7Gi", "20Gi", "3Ti"])
def test_old_metrics_go_before_the_volume_is_full(render: Render, size: str):
    manifests = render({"monitoring": {"prometheus": {"storage_size": size}}})
    limit = yaml.safe_load(_config(manifests))["storage"]["tsdb"]["retention"]["size"]
    volume = _find(manifests, "PersistentVolumeClaim")["spec"]["resources"]["requests"]["storage"]

    assert size == volume
    # Prometheus' MB is 2 ** 20 bytes.
    share = read_quantity(limit.replace("MB", "Mi")) / read_quantity(volume)
    assert 0.799 < share <= 0.8


@pytest.mark.parametrize(
    ("tier", "nodes", "expected"),
    [("", "premium", "gold"), ("standard", "premium", "plain"), ("", "fast-ssd", None), ("fast-ssd", "premium", None)],
)
def test_the_volume_is_of_the_nodes_tier_unless_it_has_its_own(
    render: Render, tier: str, nodes: str, expected: str | None
):
    values = {
        "infrastructure": {"storage_class": nodes},
        "storage_classes": {"standard": "plain", "fast-ssd": "", "premium": "gold"},
        "monitoring": {"prometheus": {"storage_class": tier}},
    }

    assert expected == _find(render(values), "PersistentVolumeClaim")["spec"].get("storageClassName")


def test_only_one_at_a_time_has_the_volume_and_no_uninstall_takes_it(render: Render):
    manifests = render()
    deployment, claim = _find(manifests, "Deployment"), _find(manifests, "PersistentVolumeClaim")
    volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}

    assert ({"type": "Recreate"}, 1) == (deployment["spec"]["strategy"], deployment["spec"]["replicas"])
    assert claim["metadata"]["name"] == volumes["data"]["persistentVolumeClaim"]["claimName"]
    assert "keep" == claim["metadata"]["annotations"]["helm.sh/resource-policy"]


_OFF = {"prometheus_enabled": False, "grafana_enabled": False}


@pytest.mark.parametrize("off", [_OFF, {"stack": "existing"}], ids=["off", "existing"])
def test_nothing_of_it_is_left_when_it_is_off(render: Render, off: Manifest):
    manifests = render({"monitoring": off})

    assert [] == _prometheus(manifests)
    assert "prometheus" not in json.dumps([m for m in manifests if m["kind"] == "NetworkPolicy"])


@pytest.mark.parametrize(
    ("monitoring", "expected"),
    [({}, ["jarvis-alertmanager:9093"]), ({"alerting_enabled": False}, [])],
    ids=["with alerts", "without"],
)
def test_alerts_go_to_the_alertmanager_that_there_is(render: Render, monitoring: Manifest, expected: list[str]):
    manifests = render({"monitoring": monitoring})
    alerting = yaml.safe_load(_config(manifests)).get("alerting", {"alertmanagers": []})
    services = [f"{m['metadata']['name']}:{m['spec']['ports'][0]['port']}" for m in manifests if m["kind"] == "Service"]

    assert expected == [
        target
        for manager in alerting["alertmanagers"]
        for static in manager["static_configs"]
        for target in static["targets"]
    ]
    assert set(expected) <= set(services)


def test_without_rbac_its_account_gets_its_rights_from_the_operator(render: Render):
    kinds = {m["kind"] for m in _prometheus(render({"security": {"enable_rbac": False}}))}

    assert {"Role", "RoleBinding"} == {m["kind"] for m in _prometheus(render())} - kinds
    assert {"ServiceAccount", "Deployment"} < kinds


def _component(selector: Manifest) -> str:
    name: str = selector["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
    return name


def test_policies_let_it_in_where_it_scrapes(render: Render):
    manifests = render()
    policies = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"}
    ways_out = {
        (_component(peer), rule["ports"][0]["port"])
        for rule in policies["jarvis-prometheus"]["egress"]
        for peer in rule.get("to", [])
        if "podSelector" in peer
    }
    ways_in = {
        rule["ports"][0]["port"]
        for rule in policies["jarvis-crdt"]["ingress"]
        if "prometheus" in map(_component, rule["from"])
    }

    assert {("backend", 8000), ("crdt", 9101), ("alertmanager", 9093)} == ways_out
    assert {"metrics"} == ways_in
    assert {} in [peer.get("podSelector") for peer in policies["jarvis-backend"]["ingress"][0]["from"]]


def test_jobs_keep_only_the_ports_that_pods_have(render: Render):
    manifests = render()
    jobs = {job["job_name"]: job for job in yaml.safe_load(_config(manifests))["scrape_configs"]}
    workloads = {"jarvis-backend": ("Deployment", 8000), "jarvis-crdt": ("StatefulSet", 9101)}

    assert set(workloads) == set(jobs)
    for name, (kind, port) in workloads.items():
        template = _find(manifests, kind, name)["spec"]["template"]
        [kept] = [rule["regex"] for rule in jobs[name]["relabel_configs"] if rule.get("action") == "keep"]
        [container] = template["spec"]["containers"]
        assert [port] == [each["containerPort"] for each in container["ports"] if each["name"] == kept]
        [selector] = jobs[name]["kubernetes_sd_configs"][0]["selectors"]
        wanted = dict(pair.split("=") for pair in selector["label"].split(","))
        assert wanted.items() <= template["metadata"]["labels"].items()


_EXISTING = {"stack": "existing", "existing": {"namespace": "1e3", "labels": {"release": "true"}}}


def _monitors(render: Render, **security: Any) -> dict[str, Manifest]:
    manifests = render({"monitoring": _EXISTING, "security": security})
    monitors = {m["metadata"]["name"]: m for m in manifests if m["kind"] == "PodMonitor"}
    for monitor in monitors.values():
        validate(monitor, "1.37")
    return monitors


def _snake_case(rule: Manifest) -> Manifest:
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return {names.get(name, name): value for name, value in rule.items()}


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_a_prometheus_that_exists_is_told_to_scrape_as_the_bundled_one_does(render: Render, tls: bool):
    bundled = yaml.safe_load(_config(render({"security": {"enable_tls": tls}})))
    jobs = {job["job_name"]: job for job in bundled["scrape_configs"]}
    monitors = _monitors(render, enable_tls=tls)

    assert set(jobs) == set(monitors)
    for name, monitor in monitors.items():
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        *rules, named = map(_snake_case, endpoint["relabelings"])
        assert (jobs[name]["relabel_configs"], {"target_label": "job", "replacement": name}) == (rules, named)
        assert jobs[name].get("scheme") == endpoint.get("scheme")
        times = (bundled["global"]["scrape_interval"], bundled["global"]["scrape_timeout"])
        assert times == (endpoint["interval"], endpoint["scrapeTimeout"])
        [selector] = jobs[name]["kubernetes_sd_configs"][0]["selectors"]
        assert selector["label"].split(",") == [
            f"{key}={value}" for key, value in monitor["spec"]["selector"]["matchLabels"].items()
        ]
        server = jobs[name].get("tls_config", {}).get("server_name")
        assert server == endpoint.get("tlsConfig", {}).get("serverName")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("self_signed", {"configMap": {"name": "jarvis-ca", "key": "ca.crt"}}),
        ("existing", {"secret": {"name": "jarvis-api-tls", "key": "ca.crt"}}),
    ],
)
def test_it_trusts_the_authority_wherever_certificates_come_from(render: Render, source: str, expected: Manifest):
    [endpoint] = _monitors(render, certificates={"source": source})["jarvis-backend"]["spec"]["podMetricsEndpoints"]

    assert expected == endpoint["tlsConfig"]["ca"]


def test_what_the_operator_selects_by_is_on_all_that_is_for_it_and_names_of_ours_stay(render: Render):
    labels = {"release": "true", "app.kubernetes.io/name": "other"}
    manifests = render({"monitoring": {**_EXISTING, "existing": {"labels": labels}}})
    handed = [m for m in manifests if m["apiVersion"].startswith("monitoring.coreos.com/")]

    assert ["PodMonitor", "PodMonitor", "PrometheusRule"] == sorted(m["kind"] for m in handed)
    for manifest in handed:
        own = manifest["metadata"]["labels"]
        assert ("true", "jarvis") == (own["release"], own["app.kubernetes.io/name"])


def test_a_prometheus_elsewhere_is_let_in_to_metrics_alone(render: Render):
    def let_in(values: Manifest) -> dict[str, set[str]]:
        policies = {m["metadata"]["name"]: m["spec"] for m in render(values) if m["kind"] == "NetworkPolicy"}
        peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "1e3"}}}
        return {
            name: ports
            for name, spec in policies.items()
            if (ports := {r["ports"][0]["port"] for r in spec.get("ingress", []) if peer in r["from"]})
        }

    assert {"jarvis-crdt": {"metrics"}, "jarvis-backend": {"http"}} == let_in({"monitoring": _EXISTING})
    assert {} == let_in({"monitoring": {**_EXISTING, "stack": "bundled"}})
    assert {} == let_in({"monitoring": {**_EXISTING, "prometheus_enabled": False}})
