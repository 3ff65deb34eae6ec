"""Every flow that a policy allows is named in docs/network.md, and allowed at both of its ends."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.chart.conftest import ROOT, Manifest
from tests.chart.flow import ANYWHERE, NETWORK, THIS_NAMESPACE, Flow, Flows, read_components, read_flows, read_table
from tests.chart.matrix import CASES

Rendered = Callable[[str], list[Manifest]]
_PAGE = ROOT / "docs/network.md"
_TABLE = read_table(_PAGE)
# What the table calls the namespaces that values name.
_CALLED = {
    "namespace edge": "namespace gateway",
    **{f"namespace {name}": "namespace ingress" for name in ("projectcontour", "ingress-nginx", "traefik")},
}


def _call(flow: Flow) -> Flow:
    return Flow(_CALLED.get(flow.source, flow.source), _CALLED.get(flow.target, flow.target), flow.port)


def _read(manifests: list[Manifest], name: str) -> Flows:
    flows = read_flows(manifests, CASES[name].complete()["infrastructure"]["vpc_cidr"])
    return Flows(frozenset(map(_call, flows.egress)), frozenset(map(_call, flows.ingress)))


def _one_sided(flows: Flows, components: set[str]) -> set[Flow]:
    """Flows between components of which only one end knows."""
    out = {flow for flow in flows.egress if flow.target in components}
    into = {flow for flow in flows.ingress if flow.source in components}
    return {flow for flow in out - into if Flow(THIS_NAMESPACE, *flow[1:]) not in flows.ingress} | (into - out)


@pytest.mark.parametrize("name", CASES)
def test_every_allowed_flow_is_in_the_table_and_allowed_at_both_ends(rendered: Rendered, name: str):
    manifests = rendered(name)
    flows = _read(manifests, name)

    assert set() == (flows.egress | flows.ingress) - _TABLE
    assert set() == _one_sided(flows, read_components(manifests))


@pytest.mark.parametrize("name", CASES)
def test_a_policy_denies_the_rest_in_both_directions(rendered: Rendered, name: str):
    deny = [each["spec"] for each in rendered(name) if each["metadata"]["name"].endswith("-default-deny")]
    labels = {"app.kubernetes.io/name": "jarvis", "app.kubernetes.io/instance": "jarvis"}
    expected = {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress", "Egress"]}

    assert [expected] * CASES[name].complete()["security"]["network_policies"] == deny


@pytest.mark.parametrize("name", CASES)
def test_every_component_that_has_pods_has_a_policy_of_its_own(rendered: Rendered, name: str):
    manifests = rendered(name)
    selected = {
        each["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
        for each in manifests
        if each["kind"] == "NetworkPolicy"
    }

    assert set() == read_components(manifests) - (selected or read_components(manifests))


def test_every_flow_of_the_table_is_allowed_by_some_policy(rendered: Rendered):
    flows = [_read(rendered(name), name) for name in CASES]

    assert set() == _TABLE - {flow for each in flows for flow in each.egress | each.ingress}


def test_every_component_of_the_table_is_in_the_picture():
    picture = _PAGE.read_text().partition("```mermaid")[2].partition("```")[0]
    named = {name for flow in _TABLE for name in flow[:2] if " " not in name and name not in {ANYWHERE, NETWORK}}

    assert set() == {name for name in named if name not in picture}


def _policy(manifests: list[Manifest], name: str) -> Any:
    return next(m for m in manifests if (m["kind"], m["metadata"]["name"]) == ("NetworkPolicy", name))["spec"]


def test_a_flow_that_nobody_named_or_that_one_end_alone_allows_is_found(rendered: Rendered):
    manifests = copy.deepcopy(rendered("production"))
    _policy(manifests, "jarvis-backend")["egress"].append({"ports": [{"port": 25}]})
    _policy(manifests, "jarvis-test")["egress"].append({})
    del _policy(manifests, "jarvis-crdt")["ingress"][0]["from"][1]
    flows = _read(manifests, "production")

    assert {Flow("backend", ANYWHERE, "25"), Flow("test", ANYWHERE, "any")} == flows.egress - _TABLE
    assert {Flow("backend", "crdt", "8001")} == _one_sided(flows, read_components(manifests))

    del _policy(manifests, "jarvis-backend")["egress"][0]
    assert set() == _one_sided(_read(manifests, "production"), read_components(manifests))


@pytest.mark.parametrize(
    ("peer", "called"),
    [
        ({"namespaceSelector": {}}, "any namespace"),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "a"}}}, "namespace a"),
        ({"ipBlock": {"cidr": "0.0.0.0/0"}}, "{'cidr': '0.0.0.0/0'}"),
        ({"ipBlock": {"cidr": "10.0.0.0/16"}}, NETWORK),
        ({"podSelector": {}}, THIS_NAMESPACE),
    ],
)
def test_who_is_meant_is_not_mistaken_for_somebody_known(rendered: Rendered, peer: Manifest, called: str):
    manifests = copy.deepcopy(rendered("production"))
    _policy(manifests, "jarvis-crdt")["ingress"] = [{"from": [peer], "ports": [{"port": "peers"}]}]

    assert {Flow(called, "crdt", "8001")} == {
        flow for flow in _read(manifests, "production").ingress if flow.target == "crdt"
    }
