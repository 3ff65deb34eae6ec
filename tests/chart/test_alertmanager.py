"""Alertmanager: its own tool judges the configuration, and says who is told of which alert."""

import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cluster import version
from harness.cluster.tool import find_tool
from tests.chart.conftest import CHART, ROOT, Manifest, Render, find_pods

_SLACK = {"enabled": True, "existing_secret": "slack"}
_EMAIL = {
    "enabled": True,
    "to": ["team@example.com", "night+shift@example.com"],
    "from": "jarvis@example.com",
    "smarthost": "smtp.example.com:587",
    "username": "jarvis",
    "existing_secret": "smtp",
}
_PAGERDUTY = {"enabled": True, "existing_secret": "pagerduty"}
_ALL = {"slack": _SLACK, "email": _EMAIL, "pagerduty": _PAGERDUTY}
_VARIANTS: dict[str, list[Manifest | None]] = {
    "slack": [None, _SLACK, {**_SLACK, "channel": "#<alerts>-größe", "severities": ["info"]}],
    "email": [None, _EMAIL, {**_EMAIL, "username": "", "existing_secret": "", "require_tls": False}],
    "pagerduty": [None, _PAGERDUTY, {**_PAGERDUTY, "url": "http://sink.jarvis-e2e:8080/v2/enqueue"}],
}
_MATRIX = [
    {name: settings for name, settings in zip(_VARIANTS, choice, strict=True) if settings}
    for choice in itertools.product(*_VARIANTS.values())
]


def _find(manifests: list[Manifest], kind: str, name: str = "jarvis-alertmanager") -> Any:
    return next((m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name)), None)


def _write(render: Render, folder: Path, notifications: Manifest) -> Path:
    """The files that Alertmanager reads; returns its configuration."""
    data = _find(render({"notifications": notifications}), "ConfigMap")["data"]
    for name, text in data.items():
        (folder / name).write_text(text.replace("/etc/alertmanager/", f"{folder}/"))
    return folder / "alertmanager.yml"


def _amtool(*arguments: str) -> tuple[int, str]:
    command = [str(find_tool("amtool")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def _told(config: Path, **labels: str) -> list[str]:
    """The receivers of an alert, by Alertmanager's own judgement."""
    pairs = [f"{name}={value}" for name, value in {"namespace": "jarvis-system", **labels}.items()]
    status, said = _amtool("config", "routes", "test", f"--config.file={config}", *pairs)
    assert 0 == status, said
    return said.strip().split(",")


@pytest.mark.parametrize("notifications", _MATRIX, ids=lambda each: "+".join(each) or "none")
def test_its_tool_accepts_every_configuration(render: Render, tmp_path: Path, notifications: Manifest):
    config = _write(render, tmp_path, notifications)

    status, said = _amtool("check-config", str(config))

    assert 0 == status, said
    # A file of templates that it would not find is no error to it.
    assert "1 templates" in said
    assert f" - {1 + len(notifications)} receivers" in said


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ({"alertname": "JarvisNodeDown", "severity": "critical"}, ["slack", "email", "pagerduty"]),
        ({"alertname": "JarvisDiskUsageHigh", "severity": "warning"}, ["slack", "email"]),
        ({"alertname": "JarvisNews", "severity": "info"}, ["slack", "email"]),
        ({"alertname": "JarvisWatchdog", "severity": "critical"}, ["null"]),
        ({"alertname": "Watchdog", "severity": "none"}, ["null"]),
        ({"alertname": "Unknown"}, ["null"]),
    ],
    ids=lambda value: value["alertname"] if isinstance(value, dict) else "",
)
def test_slack_is_told_everything_mail_too_and_pagerduty_what_is_critical(
    render: Render, tmp_path: Path, labels: dict[str, str], receivers: list[str]
):
    assert receivers == _told(_write(render, tmp_path, _ALL), **labels)


def test_every_rule_is_told_to_somebody_but_the_watchdog(render: Render, tmp_path: Path):
    files = _find(render(), "ConfigMap", "jarvis-rules")["data"].values()
    rules = [rule for file in files for group in yaml.safe_load(file)["groups"] for rule in group["rules"]]
    severities = {rule["alert"]: rule["labels"]["severity"] for rule in rules}
    config = _write(render, tmp_path, _ALL)

    told = {name: _told(config, alertname=name, severity=severity) for name, severity in severities.items()}
    assert 12 <= len(told)
    assert ["JarvisWatchdog"] == [name for name, receivers in told.items() if receivers == ["null"]]
    pages = {name for name, severity in severities.items() if severity == "critical"}
    assert pages == {name for name, receivers in told.items() if "pagerduty" in receivers}


def test_each_receiver_has_severities_of_its_own(render: Render, tmp_path: Path):
    config = _write(
        render,
        tmp_path,
        {
            "slack": {**_SLACK, "severities": ["info"]},
            "email": {**_EMAIL, "severities": ["critical"]},
            "pagerduty": {**_PAGERDUTY, "severities": ["critical", "warning"]},
        },
    )

    told = {each: _told(config, alertname="a", severity=each) for each in ("critical", "warning", "info")}
    assert {"critical": ["email", "pagerduty"], "warning": ["pagerduty"], "info": ["slack"]} == told


def test_without_receivers_nobody_is_told(render: Render, tmp_path: Path):
    assert ["null"] == _told(_write(render, tmp_path, {}), alertname="JarvisNodeDown", severity="critical")


def test_it_is_there_where_prometheus_sends_alerts(render: Render):
    def kinds(**monitoring: Any) -> set[str]:
        manifests = render({"monitoring": {"grafana_enabled": False, **monitoring}})
        return {m["kind"] for m in manifests if m["metadata"]["name"] == "jarvis-alertmanager"}

    assert {"ConfigMap", "Deployment", "Service", "ServiceAccount", "NetworkPolicy"} == kinds()
    off = ({"stack": "existing"}, {"prometheus_enabled": False}, {"alerting_enabled": False})
    assert [set()] * 3 == [kinds(**each) for each in off]


def test_its_image_is_the_one_that_the_cluster_has(render: Render):
    [container] = find_pods(_find(render(), "Deployment"))[0]["containers"]

    assert version.ALERTMANAGER_IMAGE == container["image"]


def test_secrets_are_files_and_only_those_of_receivers_that_are_enabled(render: Render):
    def mounted(notifications: Manifest) -> dict[str, tuple[str, list[Manifest]]]:
        [pod] = find_pods(_find(render({"notifications": notifications}), "Deployment"))
        paths = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        secrets = {volume["name"]: volume["secret"] for volume in pod["volumes"] if "secret" in volume}
        assert {0o440} >= {secret["defaultMode"] for secret in secrets.values()}
        return {paths[name]: (secret["secretName"], secret["items"]) for name, secret in secrets.items()}

    def item(key: str) -> list[Manifest]:
        return [{"key": key, "path": "secret"}]

    assert {} == mounted({"slack": {"existing_secret": "slack"}})
    assert {
        "/etc/jarvis-notifications/slack": ("slack", item("hook")),
        "/etc/jarvis-notifications/email": ("smtp", item("password")),
        "/etc/jarvis-notifications/pagerduty": ("pagerduty", item("routing-key")),
    } == mounted({**_ALL, "slack": {**_SLACK, "secret_key": "hook"}})
    assert {} == mounted({"email": {**_EMAIL, "username": "", "existing_secret": ""}})


@pytest.mark.parametrize(
    ("notifications", "ports"),
    [
        ({}, []),
        (_ALL, [443, 587]),
        ({"slack": {**_SLACK, "port": 8080}, "email": {**_EMAIL, "smarthost": "a:65535"}}, [8080, 65535]),
        ({"pagerduty": {**_PAGERDUTY, "url": "http://sink"}}, [80]),
        ({"pagerduty": {**_PAGERDUTY, "url": "https://sink:8443/v2/enqueue"}}, [8443]),
        ({name: {**receiver, "enabled": False} for name, receiver in _ALL.items()}, []),
    ],
    ids=["none", "all", "other ports", "http", "https", "disabled"],
)
def test_its_policy_lets_out_what_receivers_need_and_nothing_more(
    render: Render, notifications: Manifest, ports: list[int]
):
    spec = _find(render({"notifications": notifications}), "NetworkPolicy")["spec"]

    let_out = [port["port"] for rule in spec["egress"] if "to" not in rule for port in rule["ports"]]
    dns = {53, 5353}
    assert ports == [port for port in let_out if port not in dns]
    assert (dns, []) == (dns & set(let_out), [rule for rule in spec["egress"] if "to" in rule])


def test_its_policy_lets_prometheus_in_and_nobody_else(render: Render):
    """It has no accounts, and who reaches it may silence every alert."""
    [rule] = _find(render(), "NetworkPolicy")["spec"]["ingress"]
    [pods] = rule["from"]

    assert [{"port": "http"}] == rule["ports"]
    assert "prometheus" == pods["podSelector"]["matchLabels"]["app.kubernetes.io/component"]


def test_silences_are_kept_on_a_volume_where_one_is_asked_for(render: Render):
    def storage(size: str) -> tuple[Any, Any]:
        manifests = render({"monitoring": {"alertmanager": {"storage_size": size}}})
        [pod] = find_pods(_find(manifests, "Deployment"))
        claim = _find(manifests, "PersistentVolumeClaim")
        return next(volume for volume in pod["volumes"] if volume["name"] == "data"), claim and claim["spec"]

    assert ({"name": "data", "emptyDir": {"sizeLimit": "128Mi"}}, None) == storage("")
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast-ssd",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    assert ({"name": "data", "persistentVolumeClaim": {"claimName": "jarvis-alertmanager"}}, claim) == storage("1Gi")


def test_it_restarts_when_its_configuration_changes_and_is_never_there_twice(render: Render):
    def look(**slack: Any) -> tuple[str, Any]:
        spec = _find(render({"notifications": {"slack": {**_SLACK, **slack}}}), "Deployment")["spec"]
        assert (1, {"type": "Recreate"}) == (spec["replicas"], spec["strategy"])
        return spec["template"]["metadata"]["annotations"]["checksum/config"]

    assert look() == look()
    assert look() != look(channel="#other")


def test_certificates_of_your_own_are_trusted_beside_public_ones(render: Render):
    [pod] = find_pods(_find(render({"notifications": {"ca_config_map": "123"}}), "Deployment"))
    [container] = pod["containers"]

    assert [{"name": "SSL_CERT_DIR", "value": "/etc/ssl/certs:/etc/jarvis-notifications/ca"}] == container["env"]
    assert {"name": "ca", "configMap": {"name": "123"}} in pod["volumes"]
    assert {"name": "ca", "mountPath": "/etc/jarvis-notifications/ca", "readOnly": True} in container["volumeMounts"]


_CRITICAL = {"alertname": "JarvisNodeDown", "severity": "critical", "namespace": "jarvis-system"}
_WARNING = {"alertname": "JarvisDiskUsageHigh", "severity": "warning", "namespace": "jarvis-system"}


def _alert(labels: dict[str, str], status: str = "firing", **annotations: str) -> Manifest:
    times = {"startsAt": "2030-01-02T03:04:05Z", "endsAt": "2030-01-02T04:00:00Z"}
    return {"status": status, "labels": labels, "annotations": annotations, **times}


def _say(template: str, folder: Path, *alerts: Manifest) -> str:
    """What a template makes of these alerts, by Alertmanager's own tool."""
    common = dict(set.intersection(*(set(alert["labels"].items()) for alert in alerts)))
    status = "firing" if "firing" in {alert["status"] for alert in alerts} else "resolved"
    data = folder / "data.json"
    data.write_text(json.dumps({"status": status, "alerts": alerts, "commonLabels": common}))
    text = f'{{{{ template "jarvis.{template}" . }}}}'
    pattern = CHART / "notifications/*.tmpl"
    code, said = _amtool(
        *("template", "render", f"--template.glob={pattern}"), f"--template.text={text}", f"--template.data={data}"
    )
    assert 0 == code, said
    return said


@pytest.mark.parametrize(
    ("alerts", "title", "color", "severity"),
    [
        ([_alert(_CRITICAL)], "[FIRING 1] JarvisNodeDown (critical) in jarvis-system", "danger", "critical"),
        ([_alert(_WARNING)] * 2, "[FIRING 2] JarvisDiskUsageHigh (warning) in jarvis-system", "warning", "warning"),
        ([_alert(_CRITICAL), _alert(_WARNING)], "[FIRING 2] 2 alerts in jarvis-system", "danger", "critical"),
        (
            [_alert(_WARNING, "resolved")],
            "[RESOLVED] JarvisDiskUsageHigh (warning) in jarvis-system",
            "good",
            "warning",
        ),
        ([_alert({"alertname": "a"})], "[FIRING 1] a", "danger", "critical"),
    ],
    ids=["critical", "two", "mixed", "resolved", "bare"],
)
def test_a_title_says_what_fires_where(tmp_path: Path, alerts: list[Manifest], title: str, color: str, severity: str):
    said = [_say(template, tmp_path, *alerts) for template in ("title", "color", "severity")]

    assert [title, color, severity] == said


def test_a_message_holds_what_the_rule_says_and_where_to_read_on(tmp_path: Path):
    full = _alert(_CRITICAL, summary="node-1 is down", description="No answer.", runbook_url="https://a.example/b")
    over = _alert(_CRITICAL, "resolved", summary="node-2 is down")

    assert "node-1 is down\nNo answer.\nRunbook: https://a.example/b\nResolved: node-2 is down\n" == _say(
        "text", tmp_path, full, over
    )


def test_a_message_of_many_alerts_stays_short(tmp_path: Path):
    alerts = [_alert(_CRITICAL, summary=f"node-{number}") for number in range(200)]

    lines = _say("text", tmp_path, *alerts).splitlines()

    assert [*(f"node-{number}" for number in range(10)), "and others, 200 in all"] == lines


def test_a_mail_sums_up_what_fires_and_what_is_over(tmp_path: Path):
    firing = _alert(_CRITICAL, summary="node-1 is down", description="No answer.", runbook_url="https://a.example/b")
    over = _alert(_WARNING, "resolved", summary="a disk fills")

    assert (
        "Firing: 1\n\n"
        "  critical: JarvisNodeDown, since 2030-01-02 03:04:05 UTC\n"
        "  node-1 is down\n  No answer.\n  Runbook: https://a.example/b\n\n"
        "Resolved: 1\n\n"
        "  warning: JarvisDiskUsageHigh, since 2030-01-02 03:04:05 UTC until 2030-01-02 04:00:00 UTC\n"
        "  a disk fills\n\n" == _say("mail", tmp_path, firing, over)
    )


def test_the_example_of_the_documentation_works_with_the_secrets_that_it_makes(render: Render, tmp_path: Path):
    page = (ROOT / "docs/monitoring.md").read_text()
    notifications = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])["notifications"]
    made = dict(re.findall(r"create secret generic (\S+) --namespace jarvis-system --from-file=(\S+)\n", page))

    [pod] = find_pods(_find(render({"notifications": notifications}), "Deployment"))
    secrets = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert made == {secret["secretName"]: secret["items"][0]["key"] for secret in secrets}
    config = _write(render, tmp_path, notifications)
    assert ["slack", "email", "pagerduty"] == _told(config, alertname="TryNotifications", severity="critical")
