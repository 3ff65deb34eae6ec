"""Every version the cluster is made of, in one place."""

from typing import Final

CLUSTER_NAME: Final = "jarvis"
ZONES: Final = ("zone-a", "zone-b", "zone-c")
POD_SUBNET: Final = "10.244.0.0/16"

KIND: Final = "v0.33.0"
HELM: Final = "v3.22.0"
KUBERNETES: Final = "v1.36.3"
CONTAINERD: Final = "v2.3.7"
LOCAL_PATH_PROVISIONER: Final = "v0.0.30"
METRICS_SERVER: Final = "v0.9.0"
DEBIAN: Final = "bookworm"

STOCK_NODE_IMAGE: Final = f"kindest/node:{KUBERNETES}"
SERVICE_IMAGE: Final = "jarvis/crdt-service"
PUBLISHED_PYTHON_IMAGE: Final = "python:3.11-slim-bookworm"

GO_TOOLS: Final = {
    "kind": f"sigs.k8s.io/kind@{KIND}",
    "helm": f"helm.sh/helm/v3/cmd/helm@{HELM}",
}

# Installed from its module, Helm knows neither its own version nor which Kubernetes it renders for.
TOOL_STAMPS: Final = {
    "helm": {
        "helm.sh/helm/v3/internal/version.version": HELM,
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor": "1",
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor": KUBERNETES.split(".")[1],
        "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor": "1",
        "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor": KUBERNETES.split(".")[1],
    },
}
