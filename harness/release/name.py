"""The names that the chart and the CLI agree on; kept in one place because the cluster stores them."""

from pathlib import Path

RELEASE = "jarvis"
NAMESPACE = "jarvis-system"
CHART = Path(__file__).resolve().parents[2] / "charts" / "jarvis"

CRDT = "jarvis-crdt"
BACKEND = "jarvis-backend"
ADMIN_TOKEN = "jarvis-admin-token"  # noqa: S105 - the name of a Secret.
API_PORT = 8000
# What jobs of the chart make and helm does not know.
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


def node_names(node_count: int) -> list[str]:
    """Return the ids of the CRDT nodes, which are their pods' names."""
    return [f"{CRDT}-{index}" for index in range(node_count)]
