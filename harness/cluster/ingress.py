"""Keeps an ingress controller in the cluster: Contour and Envoy, the same on either path to their images."""

import json

from harness.cluster.contour import NAMESPACE, read_manifest
from harness.cluster.manager import Cluster, kubectl
from harness.cluster.progress import Progress
from harness.failure import Failure


def ensure_ingress_controller(cluster: Cluster, progress: Progress) -> None:
    """Apply what is not as the manifest says; without Go there is no manifest, and only Ingresses go without."""
    try:
        objects = read_manifest()
    except Failure as failure:
        progress.say(f"no ingress controller: {failure}", style="yellow")
        return
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    # Client-side, each custom resource's definition would be kept a second time in an annotation.
    kubectl(cluster, "apply", "--server-side", "--force-conflicts", "--filename", "-", input=text)
    progress.say(f"Ingresses of class contour are answered by the pods in {NAMESPACE}")
