"""Backups: what the job is given, what a backup keeps of the release, and how it is tested."""

import json
from typing import Any

import pytest

from crdt_service.__main__ import _parser as main_parser
from harness.spec.rule import judge
from harness.spec.schema import defaults
from tests.chart.conftest import Manifest, Render
from tests.chart.matrix import merge


def _find(manifests: list[Manifest], kind: str, name: str) -> Any:
    return next(m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))


def _pod(manifests: list[Manifest]) -> Manifest:
    return _find(manifests, "CronJob", "jarvis-bkp")["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def _names(manifests: list[Manifest]) -> list[tuple[str, str]]:
    return [(m["kind"], m["metadata"]["name"]) for m in manifests]


def test_it_is_hourly_by_default_and_never_two_at_once(render: Render):
    job = _find(render(), "CronJob", "jarvis-bkp")["spec"]

    assert ("0 * * * *", "Etc/UTC", "Forbid") == (job["schedule"], job["timeZone"], job["concurrencyPolicy"])
    # A job that hangs ends, and one that is late is not skipped: without a deadline, a hundred misses stop a CronJob.
    assert 0 < job["startingDeadlineSeconds"] < 3600
    assert 0 < job["jobTemplate"]["spec"]["activeDeadlineSeconds"]


@pytest.mark.parametrize("on", [True, False])
def test_the_service_takes_the_jobs_arguments_for_each_action(render: Render, on: bool):
    values = {
        "infrastructure": {"node_count": 4},
        "security": {"enable_tls": on, "encryption_enabled": on},
        "backup": {"verify": on, "retention": {"hourly": 3, "daily": 2, "weekly": 1}},
        "plugins": [{"name": "a", "source": "x = 1"}] if on else [],
    }
    [container] = _pod(render(values))["containers"]
    backup, action, *arguments = container["args"]

    assert ("backup", "take") == (backup, action)
    for each in ("take", "list", "verify", "restore", "configuration", "prune"):
        options = main_parser().parse_args([backup, each, *arguments])
        assert (3, 2, 1) == (options.keep_hourly, options.keep_daily, options.keep_weekly)
        assert [f"jarvis-crdt-{number}" for number in range(4)] == [peer.partition(".")[0] for peer in options.peer]
        assert (on, on, on) == (options.verify, bool(options.tls_cert), bool(options.encryption_key_file))
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(folder) for folder in (*options.include, *options.encryption_key_file, options.destination)} <= mounted
    assert on == ("/etc/jarvis-plugins" in mounted)


def _without_null(values: Manifest) -> Manifest:
    return {
        name: _without_null(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }


def test_the_values_are_kept_as_they_are_but_for_code(render: Render):
    """What Helm gives the chart is what a new release is installed with."""

    def kept(values: Manifest) -> Any:
        return json.loads(_find(render(values), "ConfigMap", "jarvis-backup")["data"]["values.json"])

    limits = {"security": {"rate_limiting": {"requests_per_minute": 1_000_000}}}
    assert _without_null({**defaults(), "plugins": []}) == kept({})
    assert 1_000_000 == kept(limits)["security"]["rate_limiting"]["requests_per_minute"]
    assert [{"name": "a"}] == kept({"plugins": [{"name": "a", "source": "x = 1"}]})["plugins"]
    assert render(limits) == render(kept(limits))


def test_the_volume_is_claimed_by_the_hook_so_that_no_install_waits_for_it(render: Render):
    def claim(values: Manifest) -> Any:
        manifests = render(values)
        assert ("PersistentVolumeClaim", "jarvis-backup") not in _names(manifests)
        hook = _find(manifests, "Job", "jarvis-secret-hook")["spec"]["template"]["spec"]["containers"]
        options = main_parser().parse_args(next(each["args"] for each in hook if each["name"] == "backup-volume"))
        [volume] = [each for each in _pod(manifests)["volumes"] if "persistentVolumeClaim" in each]
        assert {"claimName": options.name} == volume["persistentVolumeClaim"]
        return options.name, options.size, options.storage_class, options.release, options.component

    assert ("jarvis-backup", "100Gi", "standard", "jarvis", "backup") == claim({})
    values = {
        "backup": {"volume": {"size": "1Gi", "storage_class": "premium"}},
        "storage_classes": {"premium": ""},
    }
    assert ("jarvis-backup", "1Gi", "", "jarvis", "backup") == claim(values)


def test_the_key_of_backups_is_one_of_its_own(render: Render):
    def secrets(values: Manifest) -> set[str]:
        return {v["secret"]["secretName"] for v in _pod(render(values))["volumes"] if "secret" in v}

    assert {"jarvis-cluster", "jarvis-operator-tls", "jarvis-backup-key"} == secrets({})
    assert {"jarvis-cluster", "jarvis-operator-tls"} == secrets({"security": {"encryption_enabled": False}})


def test_the_test_reads_the_newest_backup_and_changes_nothing(render: Render):
    pod = _find(render(), "Pod", "jarvis-test-backup")
    [container] = pod["spec"]["containers"]
    options = main_parser().parse_args(container["args"])

    assert "test" == pod["metadata"]["annotations"]["helm.sh/hook"]
    assert ("verify", "", True) == (options.action, options.backup, options.none_is_fine)
    assert [True] * len(container["volumeMounts"]) == [mount.get("readOnly") for mount in container["volumeMounts"]]


def test_backups_reach_nodes_and_nothing_else(render: Render):
    policy = _find(render(), "NetworkPolicy", "jarvis-backup")["spec"]

    assert ["Egress"] == policy["policyTypes"]
    assert [8001, 53, 53, 5353, 5353] == [port["port"] for rule in policy["egress"] for port in rule["ports"]]


def test_without_backups_there_is_nothing_of_them(render: Render):
    manifests = render({"backup": {"enabled": False}})

    assert [] == [name for name in _names(manifests) if "backup" in name[1] or "bkp" in name[1]]
    hook = _find(manifests, "Job", "jarvis-secret-hook")
    assert "backup" not in str(hook)
    assert "persistentvolumeclaims" not in str(manifests)


_S3 = {"endpoint": "https://s3.example:9000", "bucket": "b-1", "existing_secret": "my-keys"}


def test_a_bucket_takes_the_place_of_the_volume(render: Render):
    manifests = render({"backup": {"destination": "s3", "s3": _S3}})
    [container] = _pod(manifests)["containers"]
    options = main_parser().parse_args(container["args"])
    policy = _find(manifests, "NetworkPolicy", "jarvis-backup")["spec"]

    assert "s3://b-1/jarvis" == options.destination
    assert ("https://s3.example:9000", "us-east-1") == (options.s3_endpoint, options.s3_region)
    assert str(options.s3_credentials) in {mount["mountPath"] for mount in container["volumeMounts"]}
    # Keys come as files of the user's own Secret, never as arguments or variables.
    assert "my-keys" in [v["secret"]["secretName"] for v in _pod(manifests)["volumes"] if "secret" in v]
    assert "env" not in container
    assert [8001, 53, 53, 5353, 5353, 9000] == [port["port"] for rule in policy["egress"] for port in rule["ports"]]
    assert "persistentvolumeclaims" not in str(manifests)
    assert "jarvis-backup" not in str([v for v in _pod(manifests)["volumes"] if "persistentVolumeClaim" in v])


@pytest.mark.parametrize(("endpoint", "port"), [("https://s3.example", 443), ("http://s3.example", 80)])
def test_the_way_to_a_bucket_is_by_the_port_of_its_scheme(render: Render, endpoint: str, port: int):
    manifests = render({"backup": {"destination": "s3", "s3": {**_S3, "endpoint": endpoint}}})

    assert [{"ports": [{"port": port}]}] == _find(manifests, "NetworkPolicy", "jarvis-backup")["spec"]["egress"][2:]


@pytest.mark.parametrize("key", sorted(_S3))
def test_a_bucket_that_is_not_told_whole_is_refused_by_chart_and_cli(template: Any, key: str):
    values = {"backup": {"destination": "s3", "s3": {**_S3, key: ""}}}
    done = template(values)

    assert (1, True) == (done.returncode, f"backup.s3.{key} is empty while backup.destination is s3" in done.stderr)
    [violation] = judge(merge(defaults(), values))
    assert ("backup", "s3", key) == violation.path
    assert [] == list(judge(merge(defaults(), {"backup": {**values["backup"], "enabled": False}})))
