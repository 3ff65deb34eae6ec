"""Contour's own manifest, from its module and fitted to a small cluster: what answers an Ingress of class `contour`.

Envoy runs once, and is reached through a NodePort of every node: the ports of a node's host are not forwarded where
the pod network is our own, and not published by the engine anywhere.
"""

from typing import Any, Final

import yaml

from harness.cluster import version
from harness.cluster.tool import download_module

Manifest = dict[str, Any]
NAMESPACE: Final = "projectcontour"
INGRESS_CLASS: Final = "contour"
HTTPS_NODE_PORT: Final = 30443
HTTP_NODE_PORT: Final = 30080


def read_manifest() -> list[Manifest]:
    """Return the objects to apply.

    Raises:
        Failure: There is no Go, or its module cannot be fetched.
    """
    file = download_module(version.CONTOUR_MODULE.name) / "examples/render/contour.yaml"
    objects = [item for item in yaml.safe_load_all(file.read_text(encoding="utf-8")) if item]
    return [*(_fitted(item) for item in objects), _ingress_class()]


def envoy_image(objects: list[Manifest]) -> str:
    """Return the image of Envoy that the manifest names."""
    containers = next(item for item in objects if item["kind"] == "DaemonSet")["spec"]["template"]["spec"]["containers"]
    image: str = next(container["image"] for container in containers if container["name"] == "envoy")
    return image


def _fitted(item: Manifest) -> Manifest:
    match item["kind"], item["metadata"]["name"]:
        case "Service", "envoy":
            item["spec"] |= {"type": "NodePort", "externalTrafficPolicy": "Cluster"}
            for port in item["spec"]["ports"]:
                port["nodePort"] = {"http": HTTP_NODE_PORT, "https": HTTPS_NODE_PORT}[port["name"]]
        case "Deployment", "contour":
            item["spec"]["replicas"] = 1
        case "DaemonSet", "envoy":
            pod = item["spec"]["template"]["spec"]
            pod["nodeSelector"] = {"topology.kubernetes.io/zone": version.ZONES[0]}
            for container in pod["containers"]:
                for port in container.get("ports", []):
                    port.pop("hostPort", None)
    return item


def _ingress_class() -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": INGRESS_CLASS},
        "spec": {"controller": "projectcontour.io/ingress-controller"},
    }
