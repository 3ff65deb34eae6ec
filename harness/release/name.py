"""The names that the chart and the CLI agree on; kept in one place because the cluster stores them."""

from pathlib import Path

RELEASE = "jarvis"
NAMESPACE = "jarvis-system"
CHART = Path(__file__).resolve().parents[2] / "charts" / "jarvis"

CRDT = "jarvis-crdt"
BACKEND = "jarvis-backend"
SECRET = "jarvis-cluster"  # noqa: S105 -- an object's name.
RECORD = "jarvis-deployment"

LABELS = f"app.kubernetes.io/name=jarvis,app.kubernetes.io/instance={RELEASE}"
ID_LABEL = "jarvis/deployment-id"
CREATED_BY = "jarvis/created-by"
CLI = "deployment-cli"


def node_names(node_count: int) -> list[str]:
    """Return the ids of the CRDT nodes, which are their pods' names."""
    return [f"{CRDT}-{index}" for index in range(node_count)]
