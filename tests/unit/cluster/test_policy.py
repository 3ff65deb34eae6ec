"""NetworkPolicy semantics, on the rules that come out."""

import re
from typing import Any

import pytest

from harness.cluster.policy import Pod, read_pods, render_rules

_NAMESPACES = {"home": {"kubernetes.io/metadata.name": "home"}, "away": {"kubernetes.io/metadata.name": "away"}}
_NODE = Pod("home", "node", "10.0.0.1", {"role": "node"}, {"peers": 8001})
_BACKEND = Pod("home", "backend", "10.0.0.2", {"role": "backend"}, {"http": 8000})
_STRANGER = Pod("away", "stranger", "10.0.1.3", {"role": "backend"}, {})
_PODS = (_NODE, _BACKEND, _STRANGER)


def _policy(selector: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "home", "name": "p"}, "spec": {"podSelector": selector, **spec}}


def _rules(*policies: dict[str, Any]) -> dict[str, list[str]]:
    """Rules of each chain, by direction and pod; the last is what happens to everything else."""
    text = render_rules(policies, _PODS, _NAMESPACES)
    chains = re.findall(r"chain (\w+)_\d+ \{ # (\S+)\n(.*?)\n  \}", text, re.DOTALL)
    return {f"{direction} {pod}": [line.strip() for line in body.splitlines()] for direction, pod, body in chains}


_ROLE_NODE = {"matchLabels": {"role": "node"}}
_ROLE_BACKEND = {"matchLabels": {"role": "backend"}}


def test_without_policies_everything_passes():
    assert {} == _rules()


def test_a_selected_pod_is_closed_in_the_directions_that_are_named_only():
    assert {"ingress home/node": ["drop"]} == _rules(_policy(_ROLE_NODE))
    assert {"egress home/node": ["drop"]} == _rules(_policy(_ROLE_NODE, policyTypes=["Egress"]))
    both = _rules(_policy({}, policyTypes=["Ingress", "Egress"]))
    assert {f"{way} home/{pod}" for way in ("ingress", "egress") for pod in ("node", "backend")} == set(both)


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ({"podSelector": _ROLE_BACKEND}, ["ip saddr 10.0.0.2 return"]),
        ({"podSelector": {}}, ["ip saddr { 10.0.0.1, 10.0.0.2 } return"]),
        ({"namespaceSelector": {}}, ["ip saddr { 10.0.0.1, 10.0.0.2, 10.0.1.3 } return"]),
        (
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "away"}},
                "podSelector": _ROLE_BACKEND,
            },
            ["ip saddr 10.0.1.3 return"],
        ),
        (
            {"podSelector": {"matchExpressions": [{"key": "role", "operator": "NotIn", "values": ["node"]}]}},
            ["ip saddr 10.0.0.2 return"],
        ),
        ({"podSelector": {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}}, []),
        ({"ipBlock": {"cidr": "10.0.0.0/30"}}, ["ip saddr 10.0.0.0/30 return"]),
        (
            {"ipBlock": {"cidr": "10.0.0.0/30", "except": ["10.0.0.2/32"]}},
            ["ip saddr { 10.0.0.0/31, 10.0.0.3/32 } return"],
        ),
    ],
)
def test_peers(peer: dict[str, Any], allowed: list[str]):
    rules = _rules(_policy(_ROLE_NODE, ingress=[{"from": [peer]}]))

    assert [*allowed, "drop"] == rules["ingress home/node"]


@pytest.mark.parametrize(
    ("ports", "allowed"),
    [
        (None, ["return"]),
        ([{"port": 8001}], ["tcp dport 8001 return"]),
        ([{"port": "peers"}], ["tcp dport 8001 return"]),
        ([{"port": "no-such-port"}], []),
        ([{"port": 53, "protocol": "UDP"}, {"protocol": "SCTP"}], ["udp dport 53 return", "meta l4proto sctp return"]),
        ([{"port": 8000, "endPort": 8010}], ["tcp dport 8000-8010 return"]),
    ],
)
def test_ports(ports: list[dict[str, Any]] | None, allowed: list[str]):
    rule = {} if ports is None else {"ports": ports}

    assert [*allowed, "drop"] == _rules(_policy(_ROLE_NODE, ingress=[rule]))["ingress home/node"]


def test_policies_add_up():
    rules = _rules(_policy(_ROLE_NODE), _policy({}, ingress=[{"from": [{"podSelector": _ROLE_BACKEND}]}]))

    assert ["ip saddr 10.0.0.2 return", "drop"] == rules["ingress home/node"]


def test_only_running_pods_of_the_pod_network_count():
    def pod(**status: Any) -> dict[str, Any]:
        return {"metadata": {"namespace": "n", "name": "p"}, "spec": {"containers": [{}]}, "status": status}

    host = pod(podIP="10.0.0.9", phase="Running")
    host["spec"]["hostNetwork"] = True
    assert [] == list(read_pods([pod(), pod(podIP="10.0.0.9", phase="Succeeded"), host]))
    assert [Pod("n", "p", "10.0.0.9", {}, {})] == list(read_pods([pod(podIP="10.0.0.9", phase="Running")]))
