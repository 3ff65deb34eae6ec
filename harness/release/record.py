"""What the CLI remembers about a deployment, in a ConfigMap beside it, so that any process can go on from there."""

import secrets
from datetime import UTC, datetime
from typing import Literal

import msgspec

from harness.failure import Failure
from harness.kube import Json, Kube
from harness.release.name import CLI, ID_LABEL, RECORD, SECRETS

Phase = Literal["deploying", "ready", "failed", "removing"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment.

    Attributes:
        id: `jarvis-` and eight hexadecimal digits; kept when the same deployment is deployed again.
        phase: How far the last command came. `deploying` and `removing` stay when that command was cut off.
        message: Why the phase is `failed`; otherwise empty.
        created: When the first deploy began (RFC 3339, UTC).
        updated: When the phase was last written.
        chart_version: The chart's version.
        config_digest: SHA-256 of the configuration's canonical JSON.
        node_count: How many CRDT nodes the configuration asks for.
        replication_factor: On how many of them each key is stored.
        secrets: Names of the Secrets that a cleanup deletes, with spaces between them.
    """

    id: str
    phase: Phase
    message: str
    created: str
    updated: str
    chart_version: str
    config_digest: str
    node_count: int
    replication_factor: int
    secrets: str = " ".join(SECRETS)


def new_id() -> str:
    """Return a deployment id that is not in use, up to chance."""
    return f"jarvis-{secrets.token_hex(4)}"


def now() -> str:
    """Return the present in RFC 3339, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_record(kube: Kube, namespace: str) -> Record | None:
    """Return the namespace's deployment, or None when there is none.

    Raises:
        Failure: Somebody changed the ConfigMap into something that is no record.
    """
    body = kube.read("configmaps", namespace, RECORD)
    if body is None:
        return None
    try:
        return msgspec.convert(body.get("data", {}), Record, strict=False)
    except msgspec.ValidationError as error:
        raise Failure(
            f"the ConfigMap {RECORD} in {namespace} is damaged: {error}",
            f"delete it (kubectl delete configmap {RECORD} -n {namespace}) and deploy again",
        ) from error


def write_record(kube: Kube, namespace: str, record: Record) -> None:
    """Store the deployment, over what was stored before."""
    body = _to_configmap(record)
    if kube.read("configmaps", namespace, RECORD) is None:
        kube.create("configmaps", namespace, body)
    else:
        kube.merge("configmaps", namespace, RECORD, body)


def change_phase(kube: Kube, namespace: str, record: Record, phase: Phase, message: str = "") -> Record:
    """Store the deployment in another phase and return it."""
    changed = msgspec.structs.replace(record, phase=phase, message=message, updated=now())
    write_record(kube, namespace, changed)
    return changed


def _to_configmap(record: Record) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": RECORD,
            "labels": {ID_LABEL: record.id, "app.kubernetes.io/managed-by": CLI},
        },
        "data": {key: str(value) for key, value in msgspec.to_builtins(record).items()},
    }
