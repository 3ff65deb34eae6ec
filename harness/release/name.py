"""The names that the chart and the CLI agree on; kept in one place because the cluster stores them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

RELEASE = "jarvis"
NAMESPACE = "jarvis-system"
CHART = Path(__file__).resolve().parents[2] / "charts" / "jarvis"

CRDT = "jarvis-crdt"
BACKEND = "jarvis-backend"
PROMETHEUS = "jarvis-prometheus"
ALERTMANAGER = "jarvis-alertmanager"
GRAFANA = "jarvis-grafana"
# What watches the other two; each is there if the configuration says so.
MONITORING = (PROMETHEUS, ALERTMANAGER, GRAFANA)
ADMIN_TOKEN = "jarvis-admin-token"  # noqa: S105 - the name of a Secret.
API_PORT = 8000
# What jobs of the chart make by default, and helm does not know.
SECRETS = (
    "jarvis-cluster",
    "jarvis-encryption",
    "jarvis-backup-key",
    "jarvis-api-keys",
    ADMIN_TOKEN,
    "jarvis-grafana",
    "jarvis-authority",
    "jarvis-node-tls",
    "jarvis-backend-tls",
    "jarvis-operator-tls",
    "jarvis-api-tls",
)
_NAMED = ("secrets", "certificates")
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
    security = values["security"]
    sources = {of: security[of]["source"] for of in _NAMED}
    has_jobs = {"generated", "self_signed"} if security["enable_rbac"] else set()
    made = [
        name for of in _NAMED if sources[of] in {"external", "cert_manager", *has_jobs} for name in _names(values, of)
    ]
    return tuple(made)


def own_secrets(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the Secrets that whoever deploys these complete values has to make."""
    made = set(made_secrets(values))
    return tuple(name for of in _NAMED for name in _names(values, of) if name not in made)


def _names(values: Mapping[str, Any], of: str) -> list[str]:
    suffix = "-tls" if of == "certificates" else ""
    given = values["security"][of]["names"].items()
    names = [name or f"{RELEASE}-{key.replace('_', '-')}{suffix}" for key, name in given]
    return [*names, f"{RELEASE}-authority"] if of == "certificates" else names


def node_names(node_count: int) -> list[str]:
    """Return the ids of the CRDT nodes, which are their pods' names."""
    return [f"{CRDT}-{index}" for index in range(node_count)]
