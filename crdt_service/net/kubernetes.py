"""Creates the cluster secret through the Kubernetes API, with the pod's own service account."""

import base64
import http.client
import json
import os
import secrets
import ssl
from pathlib import Path

from crdt_service.kernel.config import SECRET_BYTES_MIN
from crdt_service.kernel.error import ConfigError, ServiceError

ACCOUNT_DIRECTORY = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SECONDS_MAX = 30
_REMEDY = "check the hook's ServiceAccount and its Role"


def create_secret(namespace: str, name: str, key: str, account: Path = ACCOUNT_DIRECTORY) -> str:
    """Create a Secret with 32 random bytes in hex under `key`, unless it exists; return what was done.

    Raises:
        ConfigError: The program does not run in a pod with a service account.
        ServiceError: The API cannot be reached or refuses.
    """
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        token = (account / "token").read_text().strip()
        context = ssl.create_default_context(cafile=str(account / "ca.crt"))
    except OSError as error:
        raise ConfigError(f"{account}: no service account: {error.strerror}", "run this inside a pod") from error
    if not host:
        raise ConfigError("KUBERNETES_SERVICE_HOST is not set", "run this inside a pod")
    body = json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/name": "jarvis"}},
            "type": "Opaque",
            "data": {key: base64.b64encode(secrets.token_hex(SECRET_BYTES_MIN).encode()).decode()},
        }
    )
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=_SECONDS_MAX)
    try:
        connection.request("POST", f"/api/v1/namespaces/{namespace}/secrets", body, headers)
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServiceError("kubernetes_unreachable", f"Kubernetes API at {host}:{port}: {error}", _REMEDY) from error
    finally:
        connection.close()
    if response.status == http.client.CREATED:
        return f"secret {namespace}/{name} created"
    if response.status == http.client.CONFLICT:
        return f"secret {namespace}/{name} exists and is kept"
    reason = answer.decode(errors="replace")[:500]
    raise ServiceError("kubernetes_refused", f"Kubernetes API answered {response.status}: {reason}", _REMEDY)
