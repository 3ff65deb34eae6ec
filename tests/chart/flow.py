"""Reads which flows the rendered policies allow, and which ones docs/network.md names.

A flow is (from, to, port). Pods are named by their component; everything else by what a policy says of it:
`this namespace`, `namespace NAME`, `CIDR` for infrastructure.vpc_cidr and `anywhere`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.chart.conftest import Manifest, find_pods

_COMPONENT = "app.kubernetes.io/component"
_NAMESPACE = "kubernetes.io/metadata.name"
ANYWHERE, THIS_NAMESPACE, NETWORK = "anywhere", "this namespace", "vpc_cidr"


class Flow(NamedTuple):
    """Traffic that a policy lets through, in one direction; the port is the target's."""

    source: str
    target: str
    port: str


class Flows(NamedTuple):
    """What the policies of one rendered chart say: who may send, and who may receive."""

    egress: frozenset[Flow]
    ingress: frozenset[Flow]


def read_flows(manifests: Sequence[Manifest], vpc_cidr: str) -> Flows:
    """Return the flows of every component's policy; the policy that denies the rest selects no component."""
    ports = dict(_named_ports(manifests))
    egress, ingress = set(), set()
    for manifest in manifests:
        if manifest["kind"] != "NetworkPolicy":
            continue
        spec = manifest["spec"]
        component = spec["podSelector"]["matchLabels"].get(_COMPONENT)
        for rule in spec.get("egress", []):
            for name in _names(rule.get("to"), vpc_cidr):
                egress |= {Flow(component, name, port) for port in _ports(rule, {})}
        for rule in spec.get("ingress", []):
            for name in _names(rule.get("from"), vpc_cidr):
                ingress |= {Flow(name, component, port) for port in _ports(rule, ports.get(component, {}))}
    return Flows(frozenset(egress), frozenset(ingress))


def read_components(manifests: Sequence[Manifest]) -> set[str]:
    """Return the components that have pods."""
    return {manifest["metadata"]["labels"][_COMPONENT] for manifest in manifests if find_pods(manifest)}


def read_table(page: Path) -> set[Flow]:
    """Return the flows of the table whose columns are From, To, Port and Why."""
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in page.read_text().splitlines()]
    begin = next(number for number, row in enumerate(rows) if [*row[:3]] == ["From", "To", "Port"]) + 2
    flows = set()
    for row in rows[begin:]:
        if len(row) != 4:
            break
        flows |= {Flow(row[0], row[1], port) for port in re.split(r",\s*", row[2])}
    return flows


def _named_ports(manifests: Sequence[Manifest]) -> Iterator[tuple[str, dict[str, int]]]:
    for manifest in manifests:
        for pod in find_pods(manifest):
            found = {
                port["name"]: port["containerPort"]
                for container in pod["containers"]
                for port in container.get("ports", [])
            }
            yield manifest["metadata"]["labels"][_COMPONENT], found


def _names(peers: Sequence[Mapping[str, Any]] | None, vpc_cidr: str) -> Iterator[str]:
    if not peers:
        yield ANYWHERE
    for peer in peers or []:
        if "ipBlock" in peer:
            yield NETWORK if peer["ipBlock"] == {"cidr": vpc_cidr} else str(peer["ipBlock"])
        elif "namespaceSelector" in peer:
            labels = peer["namespaceSelector"].get("matchLabels", {})
            yield f"namespace {labels[_NAMESPACE]}" if labels else "any namespace"
        else:
            labels = peer["podSelector"].get("matchLabels", {})
            yield labels[_COMPONENT] if labels else THIS_NAMESPACE


def _ports(rule: Mapping[str, Any], named: Mapping[str, int]) -> Iterator[str]:
    if not rule.get("ports"):
        yield "any"
    for port in rule.get("ports", []):
        number = port["port"] if isinstance(port["port"], int) else named[port["port"]]
        yield f"{number}/UDP" if port.get("protocol") == "UDP" else str(number)
