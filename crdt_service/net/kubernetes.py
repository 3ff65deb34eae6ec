"""A namespace's Secrets, ConfigMaps and claims through the Kubernetes API, with the pod's own service account."""

import base64
import binascii
import http.client
import json
import os
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crdt_service.kernel.config import SECRET_BYTES_MIN
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.kernel.trust import trust_any

ACCOUNT_DIRECTORY = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SECRET, CONFIG_MAP = "secret", "configmap"
_KINDS = {SECRET: ("secrets", "Secret"), CONFIG_MAP: ("configmaps", "ConfigMap")}
_LABELS = {"app.kubernetes.io/name": "jarvis"}
_SECONDS_MAX = 30
_REMEDY = "check the hook's ServiceAccount and its Role"


@dataclass(frozen=True)
class Stored:
    """What an object holds, and the version by which it may be replaced."""

    data: dict[str, bytes]
    version: str


class ExistsError(ServiceError):
    """There is an object of that name already."""

    def __init__(self, name: str) -> None:
        super().__init__("kubernetes_conflict", f"{name} exists already", "run it again")


class Kubernetes:
    """The API, limited to one namespace.

    Args:
        namespace: Where the objects are.
        account: Directory with the pod's token and the API's authority.

    Raises:
        ConfigError: The program does not run in a pod with a service account.
    """

    def __init__(self, namespace: str, account: Path = ACCOUNT_DIRECTORY) -> None:
        self.namespace = namespace
        self._host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
        self._port = int(os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
        try:
            self._token = (account / "token").read_text().strip()
            self._context = ssl.create_default_context(cafile=str(account / "ca.crt"))
            trust_any(self._context)
        except OSError as error:
            raise ConfigError(f"{account}: no service account: {error.strerror}", "run this inside a pod") from error
        if not self._host:
            raise ConfigError("KUBERNETES_SERVICE_HOST is not set", "run this inside a pod")

    def read(self, kind: str, name: str) -> Stored | None:
        """Return what an object of `SECRET` or `CONFIG_MAP` holds, or None if there is none.

        Raises:
            ServiceError: The API cannot be reached, refuses, or answers what is no such object.
        """
        status, answer = self._ask("GET", self._path(kind, name))
        if status == http.client.NOT_FOUND:
            return None
        if status != http.client.OK:
            raise _refusal(status, answer)
        try:
            body = json.loads(answer)
            data = {key: _decode(kind, text) for key, text in (body.get("data") or {}).items()}
            return Stored(data, str(body["metadata"]["resourceVersion"]))
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise ServiceError("kubernetes_refused", f"{kind} {name} is not understood: {error}", _REMEDY) from error

    def create(self, kind: str, name: str, data: Mapping[str, bytes], *, dry_run: bool = False) -> None:
        """Create an object; with `dry_run` nothing is created, so that who may not read finds out what there is.

        Raises:
            ExistsError: There is one of that name.
            ServiceError: The API cannot be reached or refuses.
        """
        query = "?dryRun=All" if dry_run else ""
        self._create(self._path(kind) + query, name, self._body(kind, name, data))

    def create_claim(self, name: str, *, size: str, storage_class: str, labels: Mapping[str, str]) -> None:
        """Create a PersistentVolumeClaim, for one node of the cluster at a time.

        Args:
            name: Of the claim.
            size: A quantity such as ``10Gi``.
            storage_class: Empty for the cluster's default.
            labels: Beside that of its name.

        Raises:
            ExistsError: There is one of that name.
            ServiceError: The API cannot be reached or refuses.
        """
        spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
        if storage_class:
            spec["storageClassName"] = storage_class
        metadata = {"name": name, "namespace": self.namespace, "labels": {**_LABELS, **labels}}
        body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
        path = f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims"
        self._create(path, name, json.dumps(body))

    def replace(self, kind: str, name: str, data: Mapping[str, bytes], version: str) -> None:
        """Replace an object, if it has not changed since `version` was read.

        Raises:
            ServiceError: It has changed, or the API cannot be reached or refuses.
        """
        status, answer = self._ask("PUT", self._path(kind, name), self._body(kind, name, data, version))
        if status == http.client.CONFLICT:
            raise ServiceError("kubernetes_conflict", f"{name} was changed by somebody else", "run it again")
        if status != http.client.OK:
            raise _refusal(status, answer)

    def _create(self, path: str, name: str, body: str) -> None:
        status, answer = self._ask("POST", path, body)
        if status == http.client.CONFLICT:
            raise ExistsError(name)
        if status != http.client.CREATED:
            raise _refusal(status, answer)

    def _path(self, kind: str, name: str = "") -> str:
        path = f"/api/v1/namespaces/{self.namespace}/{_KINDS[kind][0]}"
        return f"{path}/{name}" if name else path

    def _body(self, kind: str, name: str, data: Mapping[str, bytes], version: str = "") -> str:
        metadata: dict[str, Any] = {
            "name": name,
            "namespace": self.namespace,
            "labels": _LABELS,
        }
        if version:
            metadata["resourceVersion"] = version
        body = {"apiVersion": "v1", "kind": _KINDS[kind][1], "metadata": metadata}
        body["data"] = {key: _encode(kind, value) for key, value in data.items()}
        return json.dumps({**body, "type": "Opaque"} if kind == SECRET else body)

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        connection = http.client.HTTPSConnection(self._host, self._port, context=self._context, timeout=_SECONDS_MAX)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServiceError(
                "kubernetes_unreachable", f"Kubernetes API at {self._host}:{self._port}: {error}", _REMEDY
            ) from error
        finally:
            connection.close()


def create_secret(kubernetes: Kubernetes, name: str, key: str) -> str:
    """Create a Secret with 32 random bytes in hex under `key`, unless it exists; return what was done.

    Raises:
        ServiceError: The API cannot be reached or refuses.
    """
    try:
        kubernetes.create(SECRET, name, {key: secrets.token_hex(SECRET_BYTES_MIN).encode()})
    except ExistsError:
        return f"secret {kubernetes.namespace}/{name} exists and is kept"
    return f"secret {kubernetes.namespace}/{name} created"


def create_empty(kubernetes: Kubernetes, kind: str, name: str) -> str:
    """Create an object with nothing in it, unless it exists; return what was done.

    Another account, which may not create any, fills it.

    Raises:
        ServiceError: The API cannot be reached or refuses.
    """
    try:
        kubernetes.create(kind, name, {})
    except ExistsError:
        return f"{kind} {kubernetes.namespace}/{name} exists and is kept"
    return f"{kind} {kubernetes.namespace}/{name} created, empty"


def create_volume(
    kubernetes: Kubernetes, name: str, *, size: str, storage_class: str, release: str, component: str
) -> str:
    """Claim a volume, unless that was done before; return what was done. The claim outlives the release.

    Raises:
        ServiceError: The API cannot be reached or refuses.
    """
    labels = {"app.kubernetes.io/instance": release, "app.kubernetes.io/component": component}
    try:
        kubernetes.create_claim(name, size=size, storage_class=storage_class, labels=labels)
    except ExistsError:
        return f"persistentvolumeclaim {kubernetes.namespace}/{name} exists and is kept"
    return f"persistentvolumeclaim {kubernetes.namespace}/{name} created"


def _encode(kind: str, value: bytes) -> str:
    return base64.b64encode(value).decode() if kind == SECRET else value.decode()


def _decode(kind: str, text: str) -> bytes:
    return base64.b64decode(text, validate=True) if kind == SECRET else text.encode()


def _refusal(status: int, answer: bytes) -> ServiceError:
    reason = answer.decode(errors="replace")[:500]
    return ServiceError("kubernetes_refused", f"Kubernetes API answered {status}: {reason}", _REMEDY)
