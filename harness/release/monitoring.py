"""Whether the bundled monitoring answers, asked through forwarded ports, which no NetworkPolicy closes."""

import http.client
from dataclasses import dataclass

from harness.kube import Kube, KubeError, UnreachableError
from harness.release.name import ALERTMANAGER, GRAFANA, LABELS, PROMETHEUS

_OK = 200


@dataclass(frozen=True, slots=True)
class Probe:
    """Where a component says that it works.

    Attributes:
        name: Its Deployment.
        component: Its label.
        port: The port of its pod.
        path: The page that answers with 200 when all is well.
    """

    name: str
    component: str
    port: int
    path: str


PROBES = (
    Probe(PROMETHEUS, "prometheus", 9090, "/-/ready"),
    Probe(ALERTMANAGER, "alertmanager", 9093, "/-/ready"),
    Probe(GRAFANA, "grafana", 3000, "/api/health"),
)


def read_probes(kube: Kube, namespace: str) -> list[Probe]:
    """Return the probes of what is deployed."""
    return [probe for probe in PROBES if kube.read("deployments", namespace, probe.name) is not None]


def ask(kube: Kube, namespace: str, probe: Probe, timeout_seconds: float) -> str:
    """Return what is amiss with a component; empty when it says that it works.

    Raises:
        KubeError: The cluster itself does not answer, or refuses to list pods.
    """
    selector = f"{LABELS},app.kubernetes.io/component={probe.component}"
    pods = [
        pod["metadata"]["name"]
        for pod in kube.read_all("pods", namespace, labels=selector)
        if pod.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]
    if not pods:
        return "no pod runs"
    try:
        status = _get(kube, namespace, pods[0], probe, timeout_seconds)
    except KubeError as error:
        return error.message
    return "" if status == _OK else f"{probe.path} says {status}"


def _get(kube: Kube, namespace: str, pod: str, probe: Probe, timeout_seconds: float) -> int:
    forwarded = kube.forward(namespace, pod, probe.port)
    forwarded.settimeout(timeout_seconds)
    connection = http.client.HTTPConnection(probe.name)
    connection.auto_open = 0  # It would resolve the name itself.
    connection.sock = forwarded
    try:
        connection.request("GET", probe.path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(f"{pod}: {error or type(error).__name__}") from error
    finally:
        connection.close()
