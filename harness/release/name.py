"""The names that the chart and the CLI agree on; kept in one place because the cluster stores them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

RELEASE = "jarvis"
NAMESPACE = "jarvis-system"
CHART = Path(__file__).resolve().parents[2] / "charts" / "jarvis"

CRDT = "jarvis-crdt"
BACKEND = "jarvis-backend"
ADMIN_TOKEN = "jarvis-admin-token"  # noqa: S105 - the name of a Secret.
API_PORT = 8000
# What jobs of the chart make by default, and helm does not know.
SECRETS = (
    "jarvis-cluster",
    "jarvis-encryption",
    "jarvis-api-keys",
    ADMIN_TOKEN,
    "jarvis-authority",
    "jarvis-node-tls",
    "jarvis-backend-tls",
    "jarvis-operator-tls",
    "jarvis-api-tls",
)
TRUST = "jarvis-ca"
RECORD = "jarvis-deployment"

LABELS = f"app.kubernetes.io/name=jarvis,app.kubernetes.io/instance={RELEASE}"
ID_LABEL = "jarvis/deployment-id"
CREATED_BY = "jarvis/created-by"
CLI = "deployment-cli"


def made_secrets(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the Secrets that nobody but a release with these complete values makes, and that its end may delete.

    Those that a person made are none of them.
    """
    secrets, certificates = values["security"]["secrets"], values["security"]["certificates"]
    is_drawn = secrets["source"] == "external" or (
        secrets["source"] == "generated" and values["security"]["enable_rbac"]
    )
    are_issued = certificates["source"] == "cert_manager" or (
        certificates["source"] == "self_signed" and values["security"]["enable_rbac"]
    )
    made = []
    if is_drawn:
        made += [given or f"{RELEASE}-{name.replace('_', '-')}" for name, given in secrets["names"].items()]
    if are_issued:
        made += [given or f"{RELEASE}-{name}-tls" for name, given in certificates["names"].items()]
        made.append(f"{RELEASE}-authority")
    return tuple(made)


def node_names(node_count: int) -> list[str]:
    """Return the ids of the CRDT nodes, which are their pods' names."""
    return [f"{CRDT}-{index}" for index in range(node_count)]
