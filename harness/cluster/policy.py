"""Enforces NetworkPolicies where the pod network does not: nftables rules in the nodes, from the API's objects.

`ptp` forwards whatever it is given, so on an air-gapped cluster policies would be decoration. The rules hold for the
pods and policies at the time of the call; call again after either changed. Traffic between a node and its own pods is
left alone, as Kubernetes wants it for probes.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.cluster.manager import Cluster, read_objects
from harness.process import run

_TABLE = "jarvis_policy"
# Declared first, so that deleting it never fails.
_EMPTY = f"table inet {_TABLE}\ndelete table inet {_TABLE}\n"
_KINDS = ("namespaces", "pods", "networkpolicies")
Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pod:
    """What a policy sees of a running pod.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        address: Its IPv4 address.
        labels: Its labels.
        ports: Named container ports.
    """

    namespace: str
    name: str
    address: str
    labels: Mapping[str, str]
    ports: Mapping[str, int]


def enforce_policies(cluster: Cluster) -> None:
    """Make every node enforce the NetworkPolicies there are."""
    read = {kind: read_objects(cluster, kind, "--all-namespaces") for kind in _KINDS}
    namespaces = {item["metadata"]["name"]: item["metadata"].get("labels", {}) for item in read["namespaces"]}
    pods = tuple(read_pods(read["pods"]))
    rules = render_rules(read["networkpolicies"], pods, namespaces)
    _load_rules(cluster, rules)


def lift_policies(cluster: Cluster) -> None:
    """Remove the rules from every node."""
    _load_rules(cluster, _EMPTY)


def _load_rules(cluster: Cluster, rules: str) -> None:
    for node in cluster.nodes:
        run(["docker", "exec", "-i", node, "nft", "--file", "-"], input=rules, timeout_seconds=30)


def read_pods(items: Iterable[Object]) -> Iterator[Pod]:
    """Yield the pods that have an address of the pod network."""
    for item in items:
        address = item.get("status", {}).get("podIP")
        if address and not item["spec"].get("hostNetwork") and item["status"].get("phase") == "Running":
            ports = [port for container in item["spec"]["containers"] for port in container.get("ports", [])]
            yield Pod(
                item["metadata"]["namespace"],
                item["metadata"]["name"],
                address,
                item["metadata"].get("labels", {}),
                {port["name"]: port["containerPort"] for port in ports if "name" in port},
            )


def render_rules(policies: Sequence[Object], pods: Sequence[Pod], namespaces: Mapping[str, Mapping[str, str]]) -> str:
    """Return the nftables script that replaces the table of these rules at once.

    A packet passes if the source's egress rules and the target's ingress rules both let it; a direction of a pod that
    no policy selects lets everything.
    """
    chains: list[str] = []
    maps: dict[str, list[str]] = {"Ingress": [], "Egress": []}
    for number, pod in enumerate(pods):
        for direction, verdicts in maps.items():
            holding = [policy for policy in policies if _selects(policy, pod) and direction in _directions(policy)]
            if holding:
                name = f"{direction.lower()}_{number}"
                lines = [line for policy in holding for line in _allow(policy, direction, pod, pods, namespaces)]
                chains += [
                    f"  chain {name} {{ # {pod.namespace}/{pod.name}",
                    *(f"    {line}" for line in lines),
                    "    drop",
                    "  }",
                ]
                verdicts.append(f"{pod.address} : jump {name}")
    forward = [f"    ip saddr vmap {{ {', '.join(maps['Egress'])} }}"] if maps["Egress"] else []
    forward += [f"    ip daddr vmap {{ {', '.join(maps['Ingress'])} }}"] if maps["Ingress"] else []
    body = [
        "  chain forward {",
        "    type filter hook forward priority filter; policy accept;",
        "    ct state established,related accept",
    ]
    return _EMPTY + "\n".join([f"table inet {_TABLE} {{", *chains, *body, *forward, "  }", "}", ""])


def _directions(policy: Object) -> Sequence[str]:
    spec = policy["spec"]
    return spec.get("policyTypes") or (["Ingress", "Egress"] if "egress" in spec else ["Ingress"])


def _selects(policy: Object, pod: Pod) -> bool:
    inside = policy["metadata"]["namespace"] == pod.namespace
    return inside and _matches(policy["spec"].get("podSelector", {}), pod.labels)


def _allow(
    policy: Object, direction: str, pod: Pod, pods: Sequence[Pod], namespaces: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    """Yield a rule for each allowed flow of `pod` in one direction; `return` lets the packet on to the next check."""
    side, field = ("from", "saddr") if direction == "Ingress" else ("to", "daddr")
    for rule in policy["spec"].get(direction.lower()) or []:
        peers = rule.get(side)
        if not peers:
            sources = [""]
        else:
            sources = [f"ip {field} {_set(addresses)} " for addresses in _addresses(peers, policy, pods, namespaces)]
        for source in sources:
            for port in _ports(rule.get("ports"), pod if direction == "Ingress" else None):
                yield f"{source}{port}return"


def _addresses(
    peers: Sequence[Object], policy: Object, pods: Sequence[Pod], namespaces: Mapping[str, Mapping[str, str]]
) -> Iterator[list[str]]:
    for peer in peers:
        if "ipBlock" in peer:
            block = ipaddress.ip_network(peer["ipBlock"]["cidr"])
            blocks = [block]
            for hole in map(ipaddress.ip_network, peer["ipBlock"].get("except") or []):
                blocks = [part for kept in blocks for part in _without(kept, hole)]
            yield [str(part) for part in sorted(blocks)]
            continue
        own = policy["metadata"]["namespace"]
        inside = {
            name
            for name, labels in namespaces.items()
            if (_matches(peer["namespaceSelector"], labels) if "namespaceSelector" in peer else name == own)
        }
        found = [p.address for p in pods if p.namespace in inside and _matches(peer.get("podSelector", {}), p.labels)]
        if found:
            yield sorted(found)


def _without(block: Any, hole: Any) -> list[Any]:
    if not block.overlaps(hole):
        return [block]
    return list(block.address_exclude(hole)) if hole.subnet_of(block) and hole != block else []


def _ports(ports: Sequence[Object] | None, target: Pod | None) -> Iterator[str]:
    """Yield a match for each port; a name is looked up in the pod that is reached."""
    if not ports:
        yield ""
        return
    for port in ports:
        protocol = port.get("protocol", "TCP").lower()
        number = port.get("port")
        if isinstance(number, str):
            number = target.ports.get(number) if target else None
            if number is None:
                continue
        if number is None:
            yield f"meta l4proto {protocol} "
        else:
            last = f"-{port['endPort']}" if "endPort" in port else ""
            yield f"{protocol} dport {number}{last} "


def _set(addresses: Sequence[str]) -> str:
    return addresses[0] if len(addresses) == 1 else f"{{ {', '.join(addresses)} }}"


def _matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; an empty one matches everything."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions") or [])


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise ValueError(f"unknown operator {expression['operator']}")
