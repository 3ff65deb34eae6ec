"""Contour's manifest, as its module carries it, fitted to the cluster."""

import json

from harness.cluster import version
from harness.cluster.contour import HTTP_NODE_PORT, HTTPS_NODE_PORT, envoy_image, read_manifest


def test_envoy_is_reached_through_node_ports_alone():
    objects = read_manifest()

    service = next(item for item in objects if (item["kind"], item["metadata"]["name"]) == ("Service", "envoy"))
    assert [HTTP_NODE_PORT, HTTPS_NODE_PORT] == [port["nodePort"] for port in service["spec"]["ports"]]
    assert "hostPort" not in json.dumps([item for item in objects if item["kind"] in ("DaemonSet", "Deployment")])


def test_its_images_are_those_that_an_air_gapped_cluster_has():
    objects = read_manifest()

    pods = [item["spec"]["template"]["spec"] for item in objects if item["kind"] in ("DaemonSet", "Deployment", "Job")]
    images = {container["image"] for pod in pods for container in pod["containers"] + pod.get("initContainers", [])}
    assert {f"ghcr.io/projectcontour/contour:{version.CONTOUR}", envoy_image(objects)} == images


def test_the_class_that_ingresses_name_exists():
    classes = [item["metadata"]["name"] for item in read_manifest() if item["kind"] == "IngressClass"]

    assert ["contour"] == classes
