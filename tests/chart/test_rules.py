"""Alert rules: what is rendered where, and when each fires, as promtool sees it.

`rules/NAME.yaml` here tests `charts/jarvis/rules/NAME.yaml` as the defaults render it.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cluster.tool import find_tool
from harness.process import Completed, run
from tests.chart.conftest import CHART, ROOT, VALUES_FILES, Manifest, Render
from tests.chart.crd import validate
from tests.chart.series import find_grouped, find_selectors, read_series

_NAMES = sorted(path.stem for path in (CHART / "rules").glob("*.yaml"))
_TESTS = ROOT / "tests/chart/rules"
_FOR = {
    "JarvisBackupStale": "15m",
    "JarvisCPUUsageHigh": "5m",
    "JarvisCRDTConflictSpike": "3m",
    "JarvisCRDTSyncLatencyHigh": "5m",
    "JarvisCertificateExpiring": "15m",
    "JarvisClockOffset": "2m",
    "JarvisDatabaseConnectionIssues": "2m",
    "JarvisDiskUsageHigh": "5m",
    "JarvisHighErrorRate": "2m",
    "JarvisLossAccepted": "1m",
    "JarvisMemoryUsageHigh": "5m",
    "JarvisNodeDown": "1m",
    "JarvisNodeFenced": None,
    "JarvisPlacementStuck": "5m",
    "JarvisPluginFailure": "1m",
    "JarvisUnderReplicated": "10m",
    "JarvisWatchdog": None,
}
_SEVERITIES = {"critical", "warning", "none"}


def _find(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [m for m in manifests if (kind, "jarvis-rules") == (m["kind"], m["metadata"]["name"])]


@pytest.fixture(scope="module")
def files(render: Render) -> dict[str, str]:
    """The text of each file of rules by its name, as the defaults render it."""
    [config] = _find(render(), "ConfigMap")
    return config["data"]


def _write(folder: Path, files: dict[str, str]) -> Path:
    (folder / "rules").mkdir()
    for name, text in files.items():
        (folder / "rules" / name).write_text(text)
    return folder


def _promtool(folder: Path, *arguments: str) -> Completed:
    return run([str(find_tool("promtool")), *arguments], cwd=folder, check=False)


def _rules(files: dict[str, str]) -> dict[str, Manifest]:
    return {
        rule["alert"]: rule
        for text in files.values()
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
    }


def test_the_alerts_and_how_long_they_wait(files: dict[str, str]):
    assert {f"{name}.yaml" for name in _NAMES} == set(files)
    assert {name: rule.get("for") for name, rule in _rules(files).items()} == _FOR


@pytest.mark.parametrize("name", _NAMES)
def test_a_file_is_a_group_with_one_alert_of_its_name(files: dict[str, str], name: str):
    [group] = yaml.safe_load(files[f"{name}.yaml"])["groups"]
    [rule] = group["rules"]

    assert [name, name] == [group["name"], rule["alert"]]
    assert rule["labels"]["severity"] in _SEVERITIES
    assert {"summary", "description", "runbook_url"} == set(rule["annotations"])
    assert f"docs/runbooks/{name}.md" == rule["annotations"]["runbook_url"]
    assert not rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["description"].endswith(".")
    assert "${" not in files[f"{name}.yaml"]


@pytest.mark.parametrize("name", _NAMES)
def test_only_metrics_of_the_catalogue_are_asked_for_and_only_of_this_namespace(files: dict[str, str], name: str):
    series, expr = read_series(), _rules(files)[name]["expr"]
    asked = list(find_selectors(expr))

    assert (name == "JarvisWatchdog") == (not asked)
    for metric, labels in asked:
        assert {"namespace", "job"} <= labels <= series[metric], expr
    assert len(asked) == expr.count('{namespace="jarvis-system", job')
    assert find_grouped(expr) <= set().union(*(series[metric] for metric, _ in asked))


@pytest.mark.parametrize("values_file", [None, *VALUES_FILES], ids=lambda file: file.stem if file else "defaults")
def test_promtool_finds_nothing_wrong(render: Render, tmp_path: Path, values_file: Path | None):
    on = tmp_path / "on.yaml"
    on.write_text("monitoring: {stack: bundled, prometheus_enabled: true, alerting_enabled: true}")
    [config] = _find(render(files=(*([values_file] if values_file else []), on)), "ConfigMap")
    _write(tmp_path, config["data"])

    done = _promtool(tmp_path, "check", "rules", "--lint=all", "--lint-fatal", *(f"rules/{n}" for n in config["data"]))

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("name", _NAMES)
def test_an_alert_fires_and_is_silent_as_its_file_says(files: dict[str, str], tmp_path: Path, name: str):
    _write(tmp_path, files)
    (tmp_path / "test.yaml").write_text((_TESTS / f"{name}.yaml").read_text())

    done = _promtool(tmp_path, "test", "rules", "test.yaml")

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_firing_and_silent():
    assert _NAMES == sorted(path.stem for path in _TESTS.glob("*.yaml"))
    for name in _NAMES:
        tests = yaml.safe_load((_TESTS / f"{name}.yaml").read_text())
        assert [f"rules/{name}.yaml"] == tests["rule_files"]
        cases = [case for test in tests["tests"] for case in test.get("alert_rule_test", [])]
        assert {name} == {case["alertname"] for case in cases}
        fires = {True} if name == "JarvisWatchdog" else {True, False}
        assert fires == {bool(case["exp_alerts"]) for case in cases}


def _series(name: str, value: str, **labels: str) -> Manifest:
    given = {"namespace": "jarvis-system", "job": "jarvis-crdt", "instance": "jarvis-crdt-0", **labels}
    return {"series": f"{name}{{{','.join(f'{k}={json.dumps(v)}' for k, v in given.items())}}}", "values": value}


_SYNC = "jarvis_crdt_sync_latency_seconds_bucket"
_MEMORY = [_series("jarvis_memory_working_set_bytes", "60x80"), _series("jarvis_memory_limit_bytes", "100x80")]
_CPU = [_series("jarvis_cpu_seconds_total", "0+9x80"), _series("jarvis_cpu_limit_cores", "1x80")]
_DISK = [
    _series("jarvis_storage_bytes", "40x80", state="free"),
    _series("jarvis_storage_bytes", "100x80", state="capacity"),
]
_LATENCY = [
    _series(_SYNC, "0+0x80", le="0.25"),
    _series(_SYNC, "0+10x80", le="0.5"),
    _series(_SYNC, "0+10x80", le="+Inf"),
]
_BACKUP = [
    _series("jarvis_backup_last_success_timestamp_seconds", "0x80"),
    _series("process_start_time_seconds", "-7200x80"),
]
_CONFLICTS = [_series("jarvis_crdt_conflicts_total", "0+300x80", type="map", strategy="lww")]


def _up(nodes: int, backends: int) -> list[Manifest]:
    return [_series("up", "1x80", instance=f"jarvis-crdt-{index}") for index in range(nodes)] + [
        _series("up", "1x80", job="jarvis-backend", instance=f"jarvis-backend-{index}") for index in range(backends)
    ]


@pytest.mark.parametrize(
    ("alert", "key", "fires_at", "silent_at", "series"),
    [
        # 60 % of each, and 499 ms.
        ("JarvisMemoryUsageHigh", "monitoring.alert_thresholds.memory_usage", 59, 60, _MEMORY),
        ("JarvisCPUUsageHigh", "monitoring.alert_thresholds.cpu_usage", 59, 60, _CPU),
        ("JarvisDiskUsageHigh", "monitoring.alert_thresholds.disk_usage", 59, 60, _DISK),
        ("JarvisCRDTSyncLatencyHigh", "monitoring.alert_thresholds.crdt_sync_latency", 490, 500, _LATENCY),
        ("JarvisCRDTSyncLatencyHigh", "monitoring.alert_thresholds.crdt_sync_latency", 1, 3600000, _LATENCY),
        # Two hours without a backup when time begins.
        ("JarvisBackupStale", "monitoring.alert_thresholds.backup_age", 2, 3, _BACKUP),
        # 20 a second are counted: 10 conflicts of two owners each, or 20 of one.
        ("JarvisCRDTConflictSpike", "crdt.replication_factor", 1, 2, _CONFLICTS),
        ("JarvisNodeDown", "infrastructure.node_count", 5, 4, _up(4, 3)),
        ("JarvisNodeDown", "deployment.auto_scaling.min_replicas", 3, 2, _up(3, 2)),
    ],
)
def test_values_decide_when_an_alert_fires(
    render: Render, tmp_path: Path, alert: str, key: str, fires_at: int, silent_at: int, series: list[Manifest]
):
    for value, firing in ((fires_at, 1), (silent_at, 0)):
        values: Any = value
        for name in reversed(key.split(".")):
            values = {name: values}
        assert firing == _count_firing(render, tmp_path / str(value), values, alert, series)


def test_a_fixed_number_of_backends_is_expected_without_autoscaling(render: Render, tmp_path: Path):
    for replicas, firing in ((4, 1), (2, 0)):
        deployment = {"replicas": replicas, "auto_scaling": {"enabled": False}}
        series = _up(3, 2)
        values = {"deployment": deployment}
        assert firing == _count_firing(render, tmp_path / str(replicas), values, "JarvisNodeDown", series)


@pytest.mark.parametrize(("left_hours", "firing"), [(5, 0), (3, 1)])
def test_certificates_that_live_short_fire_when_half_the_time_for_renewing_them_is_over(
    render: Render, tmp_path: Path, left_hours: int, firing: int
):
    manager = {"duration_hours": 24, "renew_before_hours": 8}
    values = {"security": {"certificates": {"source": "cert_manager", "cert_manager": manager}}}
    expires = (left_hours * 60 + 20) * 60
    series = [_series("jarvis_certificate_expiry_timestamp_seconds", f"{expires}x80", certificate="api")]

    assert firing == _count_firing(render, tmp_path / "rules-of-it", values, "JarvisCertificateExpiring", series)


def _count_firing(render: Render, folder: Path, values: Manifest, alert: str, series: list[Manifest]) -> int:
    """How many alerts fire after twenty minutes of samples each 15 s: promtool says what it got if it is not none."""
    [config] = _find(render(values), "ConfigMap")
    folder.mkdir()
    _write(folder, config["data"])
    # The number of what fires, or 0.
    expr = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)'
    case = {"expr": expr, "eval_time": "20m", "exp_samples": [{"labels": "{}", "value": -1}]}
    test = {
        "rule_files": [f"rules/{alert}.yaml"],
        "evaluation_interval": "15s",
        "tests": [{"interval": "15s", "input_series": series, "promql_expr_test": [case]}],
    }
    (folder / "test.yaml").write_text(yaml.safe_dump(test))
    done = _promtool(folder, "test", "rules", "test.yaml")
    found = re.search(r"got:\s*\{\} (\S+)", done.stdout + done.stderr)
    assert found, done.stdout + done.stderr
    return int(float(found[1]))


def test_the_names_of_release_and_namespace_are_those_of_the_targets(render: Render):
    [config] = [m for m in render(release="state", namespace="456") if m["metadata"]["name"] == "state-rules"]
    exprs = " ".join(rule["expr"] for rule in _rules(config["data"]).values())

    assert set(re.findall(r'namespace="([^"]*)"', exprs)) == {"456"}
    assert {f"state-crdt-{index}" for index in range(3)} == set(re.findall(r'instance="([^"]*)"', exprs))
    assert _rules(config["data"])["JarvisWatchdog"]["labels"]["namespace"] == "456"


@pytest.mark.parametrize(
    ("monitoring", "kinds"),
    [
        ({}, ["ConfigMap"]),
        ({"stack": "existing"}, ["PrometheusRule"]),
        ({"prometheus_enabled": False, "grafana_enabled": False}, []),
        ({"alerting_enabled": False}, []),
        ({"stack": "existing", "prometheus_enabled": False}, []),
        ({"stack": "existing", "alerting_enabled": False}, []),
    ],
)
def test_rules_are_there_where_somebody_evaluates_them(render: Render, monitoring: Manifest, kinds: list[str]):
    manifests = render({"monitoring": monitoring})

    assert kinds == [kind for kind in ("ConfigMap", "PrometheusRule") if _find(manifests, kind)]


def test_without_backups_none_is_late(render: Render, files: dict[str, str]):
    [config] = _find(render({"backup": {"enabled": False}}), "ConfigMap")

    assert {"JarvisBackupStale.yaml"} == set(files) - set(config["data"])


def test_the_operator_gets_the_same_rules(render: Render, files: dict[str, str]):
    [rules] = _find(render({"monitoring": {"stack": "existing"}}), "PrometheusRule")

    validate(rules, "1.37")
    groups = [group for name in sorted(files) for group in yaml.safe_load(files[name])["groups"]]
    assert groups == rules["spec"]["groups"]


def test_runbooks_are_where_they_are_published(render: Render):
    base = "https://git.example/jarvis/docs/runbooks/"
    [config] = _find(render({"monitoring": {"runbook_base_url": base}}), "ConfigMap")

    assert {f"{base}{name}.md" for name in _NAMES} == {
        rule["annotations"]["runbook_url"] for rule in _rules(config["data"]).values()
    }


def test_the_page_lists_every_alert(files: dict[str, str]):
    rows = [line.split("|")[1:-1] for line in (ROOT / "docs/alerts.md").read_text().splitlines() if "| Jarvis" in line]
    listed = [(name.strip(), severity.strip(), wait.strip()) for name, severity, _, wait in rows]

    assert [
        (name, rule["labels"]["severity"], rule.get("for", "")) for name, rule in sorted(_rules(files).items())
    ] == listed


def test_the_page_names_every_threshold_and_its_default(schema: Manifest):
    keys = schema["properties"]["monitoring"]["properties"]["alert_thresholds"]["properties"]
    page = (ROOT / "docs/alerts.md").read_text()

    assert {name: str(key["default"]) for name, key in keys.items()} == dict(
        re.findall(r"`(\w+)` (?:%|ms|h) \((\d+)\)", page)
    )


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    assert _NAMES == sorted(path.stem for path in (ROOT / "docs/runbooks").glob("*.md"))
    for name in _NAMES:
        text = (ROOT / f"docs/runbooks/{name}.md").read_text()
        assert text.startswith(f"# {name}\n")
        assert ["Impact", "Look", "Mend", "When it is false"] == re.findall(r"(?m)^## (.*)$", text)
