"""Where the API's authority and the first API key are: annotations of the backend's Deployment say so."""

from dataclasses import dataclass

from harness.kube import Kube, annotations_of
from harness.release.name import ADMIN_TOKEN, BACKEND, TRUST


@dataclass(frozen=True, slots=True)
class Pointers:
    """Names of objects beside the deployment.

    Attributes:
        trust_kind: What holds `ca.crt`, the certificate to trust: `configmap` or `secret`.
        trust_name: Its name.
        admin_token: The Secret with the first API key.
    """

    trust_kind: str = "configmap"
    trust_name: str = TRUST
    admin_token: str = ADMIN_TOKEN


def read_pointers(kube: Kube, namespace: str) -> Pointers:
    """Return what the Deployment says, or where it says nothing the names that charts give by default.

    Raises:
        KubeError: It cannot be read.
    """
    annotations = annotations_of(kube.read("deployments", namespace, BACKEND) or {})
    kind, _, name = annotations.get("jarvis/trust", "").partition("/")
    usual = Pointers()
    if kind not in {"configmap", "secret"} or not name:
        kind, name = usual.trust_kind, usual.trust_name
    return Pointers(kind, name, annotations.get("jarvis/admin-token") or usual.admin_token)
