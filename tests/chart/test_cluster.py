"""Clusters and releases that are not the usual ones: DNS elsewhere, another domain, IPv6, odd versions, long names."""

import ipaddress
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.process import run
from tests.chart.conftest import CHART, Manifest, Render, find_pods

_LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
# A pod of a CronJob's Job, a Job's or StatefulSet's own: what Kubernetes adds has to fit into 63 characters as well.
_ADDED = {"CronJob": 11, "StatefulSet": 11, "Job": 0}
_ALL_ON: Manifest = {
    "ingress": {"enabled": True, "hosts": ["jarvis.example"]},
    "gateway": {"enabled": True, "parent_refs": [{"name": "web"}]},
    "plugins": [{"name": "shapes", "source": "x"}],
}


def _maps(body: Any, names: set[str]) -> Iterator[Manifest]:
    if isinstance(body, dict):
        for name, below in body.items():
            if name in names and isinstance(below, dict):
                yield below
            yield from _maps(below, names)
    elif isinstance(body, list):
        for below in body:
            yield from _maps(below, names)


@pytest.mark.parametrize(
    "version",
    [
        "0.19.0+git.1a2b3c4",
        "0.19.0-rc.1+build.7",
        f"1.2.3+{'a' * 40}.{'b' * 60}",
        f"1.2.3-{'a' * 49}.-.b",
        f"1.2.3+{'1' * 43}-----",
    ],
)
def test_a_version_of_any_form_gives_labels_and_tags_that_kubernetes_takes(helm: Path, tmp_path: Path, version: str):
    command = ["package", str(CHART), "--version", version, "--app-version", version, "-d", str(tmp_path)]
    run([str(helm), *command])
    [package] = tmp_path.glob("*.tgz")
    done = run([str(helm), "template", "jarvis", str(package), "--values", "-"], input=json.dumps(_ALL_ON))
    manifests = [each for each in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if each]

    labels = {value for found in _maps(manifests, {"labels", "matchLabels"}) for value in found.values()}
    assert [] == [value for value in labels if not _LABEL.fullmatch(value)]
    images = {each["image"] for pod in find_pods(manifests) for each in pod["containers"]}
    assert [] == [image for image in images if not _IMAGE.fullmatch(image)]
    assert any(version.partition("+")[0][:30] in value for value in labels)


def test_the_longest_release_name_gives_names_that_kubernetes_takes(render: Render):
    manifests = render(_ALL_ON, release="a" * 47, namespace="n" * 63)
    long = {
        body["metadata"]["name"]
        for body in manifests
        if len(body["metadata"]["name"]) + _ADDED.get(body["kind"], 0) > 63
        or not _NAME.fullmatch(body["metadata"]["name"])
    }
    assert set() == long
    labels = {value for found in _maps(manifests, {"labels", "matchLabels"}) for value in found.values()}
    assert [] == [value for value in labels if not _LABEL.fullmatch(value)]


def test_pods_look_names_up_without_the_clusters_domain(render: Render):
    manifests = render(_ALL_ON, namespace="agents")
    config = next(each["data"]["config.json"] for each in manifests if each["metadata"]["name"] == "jarvis-config")
    assert "jarvis-crdt-headless.agents.svc" == json.loads(config)["peer_service"]
    api = [argument for argument in _arguments(manifests) if argument.startswith("--server=")]
    assert set() == {each for each in _arguments(manifests) - {*api} if "cluster.local" in each}
    assert [] == [
        text for text in map(str, manifests) if "http" in text and re.search(r"https?://[^ '\"]*cluster\.local", text)
    ]


def test_the_certificate_of_the_api_has_the_clusters_own_domain(render: Render):
    manifests = render({"infrastructure": {"cluster_domain": "example.internal"}}, namespace="agents")
    [api] = {argument for argument in _arguments(manifests) if argument.startswith("--server=")}
    names = api.rpartition("=")[2].split(",")
    assert {"jarvis-backend.agents.svc", "jarvis-backend.agents.svc.example.internal", "127.0.0.1", "::1"} <= set(names)
    assert "cluster.local" not in str(_arguments(manifests))


def _arguments(manifests: list[Manifest]) -> set[str]:
    return {text for pod in find_pods(manifests) for each in pod["containers"] for text in each.get("args", [])}


@pytest.mark.parametrize("address", ["169.254.20.10", "fd00:10:96::a", "10.96.0.10"])
def test_every_pod_that_sends_anything_may_ask_dns_wherever_it_is(render: Render, address: str):
    policies = [each["spec"] for each in render(_ALL_ON) if each["kind"] == "NetworkPolicy"]
    sending = [each["egress"] for each in policies if each.get("egress")]
    assert len(sending) >= 8
    for port in (53, 5353):
        for protocol in ("UDP", "TCP"):
            assert [] == [rules for rules in sending if not any(_lets(rule, address, port, protocol) for rule in rules)]


def _lets(rule: Manifest, address: str, port: int, protocol: str) -> bool:
    if not any((each["port"], each.get("protocol", "TCP")) == (port, protocol) for each in rule.get("ports", [])):
        return False
    blocks = [each["ipBlock"]["cidr"] for each in rule.get("to", []) if "ipBlock" in each]
    return not rule.get("to") or any(ipaddress.ip_address(address) in ipaddress.ip_network(each) for each in blocks)


def test_every_process_listens_on_both_families(render: Render):
    listened = {each for each in _arguments(render(_ALL_ON)) if "listen" in each and not each.endswith("=")}
    assert {
        "--listen=[::]:8000",
        "--listen=[::]:8001",
        "--metrics-listen=[::]:9101",
        "--web.listen-address=:9090",
        "--web.listen-address=:9093",
    } == listened


@pytest.mark.parametrize(
    ("network", "blocks"),
    [
        ("fd00:1234::/48", ["fd00:1234::/48"]),
        ("::/0", ["::/0"]),
        ("10.0.0.0/8,fd00::/8", ["10.0.0.0/8", "fd00::/8"]),
        ("fd00::/8,10.0.0.0/8", ["fd00::/8", "10.0.0.0/8"]),
    ],
)
def test_the_network_outside_may_be_of_ipv6_or_of_both_families(render: Render, network: str, blocks: list[str]):
    values = {"infrastructure": {"vpc_cidr": network}, "deployment": {"service": {"type": "LoadBalancer"}}}
    manifests = render(values)
    named = {(each["kind"], each["metadata"]["name"]): each["spec"] for each in manifests if "spec" in each}
    rules = named["NetworkPolicy", "jarvis-backend"]["ingress"]
    assert blocks == [peer["ipBlock"]["cidr"] for rule in rules for peer in rule["from"] if "ipBlock" in peer]
    assert blocks == named["Service", "jarvis-backend"]["loadBalancerSourceRanges"]


@pytest.mark.parametrize(
    "network", ["fd00::/129", "10.0.0.0/8,10.1.0.0/16", "fd00::/8,fd01::/8", "fd00::", "10.0.0.0/8,"]
)
def test_a_network_that_is_none_is_refused(template: Any, network: str):
    done = template({"infrastructure": {"vpc_cidr": network}})
    assert (True, True) == (done.returncode != 0, "vpc_cidr" in done.stderr)
