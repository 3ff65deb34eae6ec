"""The pod network of an air-gapped cluster, where no CNI image can be had: `ptp` in each node, routes between them.

kind's nodes share one layer-2 network, so a static route to each other node's pod subnet is all that is needed.
"""

import json
from dataclasses import dataclass

from harness.cluster import version
from harness.process import run


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where a node and its pods are: container name, address on kind's network, and pod subnet (CIDR)."""

    name: str
    address: str
    pod_subnet: str


def connect_pods(nodes: tuple[NodeAddress, ...]) -> None:
    """Configure every node so that its pods reach all pods, services and the outside. May be repeated."""
    for node in nodes:
        config = json.dumps(_cni_config(node.pod_subnet), indent=2)
        script = "\n".join(
            [
                "set -eu",
                *(f"ip route replace {peer.pod_subnet} via {peer.address}" for peer in nodes if peer != node),
                # ptp's own ipMasq would hide pods from each other across nodes.
                f"rule='POSTROUTING -s {node.pod_subnet} ! -d {version.POD_SUBNET} -j MASQUERADE'",
                "iptables -t nat -C $rule 2>/dev/null || iptables -t nat -A $rule",
                # What kube-proxy sends to no pod would leave by the default route; and where something outside answers,
                # a pod takes that for the Service for as long as the connection lives.
                f"refuse='FORWARD -d {version.SERVICE_SUBNET} -j REJECT'",
                "iptables -C $refuse 2>/dev/null || iptables -I $refuse",
                "mkdir -p /etc/cni/net.d",
                # Last: the node turns Ready when this file appears.
                "cat > /etc/cni/net.d/.jarvis && mv /etc/cni/net.d/.jarvis /etc/cni/net.d/10-jarvis.conflist",
            ]
        )
        run(["docker", "exec", "-i", node.name, "sh", "-c", script], input=config, timeout_seconds=30)


def _cni_config(pod_subnet: str) -> dict[str, object]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": pod_subnet}]], "routes": [{"dst": "0.0.0.0/0"}]}
    return {
        "cniVersion": "0.4.0",
        "name": "jarvis",
        "plugins": [
            {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": ipam},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
