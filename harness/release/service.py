"""The deployed API, reached through the Kubernetes API server, so that no port has to be open to this machine.

With TLS through a forwarded port, because the API server's own proxy trusts any certificate; else through that proxy.
"""

import base64
import json
import threading
from typing import Any, Self

import httpx

from crdt_service.client import NEVER, ApiError, Client, Cluster, Concern, Health, NotFoundError, Retry
from harness.failure import Failure
from harness.kube import ForbiddenError, Json, Kube, RefusedError, Request, Response, UnreachableError
from harness.release.name import BACKEND
from harness.release.pointer import read_pointers
from harness.release.secure import SecureApi

# Of Kubernetes' own: the API server takes `Authorization` for itself and does not pass it on.
_KEY_HEADER = "X-API-Key"
_IDEMPOTENCY_HEADER = "Idempotency-Key"
_UNAUTHENTICATED = 401


class ServiceError(Failure):
    """The API answered with an error, or not at all."""


class Service:
    """The API of the release in one namespace; as a context manager it ends its connections.

    Nothing is sent twice unless `retry` says so: who checks looks again until a deadline.

    It is called with the API key in the Secret that the Deployment names, if there is one; it is read from the cluster
    when it is needed, and again once it is refused.

    Args:
        kube: The cluster.
        namespace: Where the release is.
        timeout_seconds: How long one request may take.
        retry: When a failed request is sent again.
    """

    def __init__(self, kube: Kube, namespace: str, timeout_seconds: float = 10.0, retry: Retry = NEVER) -> None:
        self._way = _Way(kube, namespace, timeout_seconds)
        self._client = Client(f"http://{BACKEND}", transport=self._way, retry=retry)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def open(self) -> None:
        """Find out how the API is reached, and connect; later requests do so by themselves.

        Raises:
            KubeError: The cluster does not answer, or nothing can be trusted.
        """
        self._way.open()

    def read_health(self) -> Health:
        """Return what `/health` says, also when it reports an unhealthy service.

        Raises:
            ServiceError: It says nothing.
        """
        try:
            return self._client.health()
        except ApiError as error:
            raise self._failure(error) from error

    def read_cluster(self) -> Cluster:
        """Return what `/v1/cluster` says.

        Raises:
            ServiceError: It says nothing.
        """
        try:
            return self._client.cluster()
        except ApiError as error:
            raise self._failure(error) from error

    def write(
        self,
        key: str,
        type_name: str,
        operation: Json,
        *,
        node: str = "",
        idempotency_key: str = "",
        concern: Concern = "one",
    ) -> Any:
        """Apply an operation to a key, through one node if `node` names it, and return the new value.

        Returning means that the write is durable on the node that took it, or on as many owners as `concern` says. With
        an `idempotency_key` the write has one effect however often it is sent, so a retry follows a lost answer, too.

        Raises:
            ServiceError: The write was refused, or its answer is lost.
        """
        try:
            return self._client.write(
                key, type_name, operation, concern=concern, node=node or None, idempotency_key=idempotency_key or None
            ).value
        except ApiError as error:
            raise self._failure(error) from error

    def read(self, key: str, *, node: str = "", concern: Concern = "one") -> Any:
        """Return a key's value, as one node sees it if `node` names it, or as `concern` says; None for no such key.

        Raises:
            ServiceError: It cannot be read now.
        """
        try:
            return self._client.read(key, concern=concern, node=node or None).value
        except NotFoundError:
            return None
        except ApiError as error:
            raise self._failure(error) from error

    def _failure(self, error: ApiError) -> ServiceError:
        if error.status == _UNAUTHENTICATED:
            return ServiceError(
                f"status {error.status}: {error.message}; the Secret {self._way.secret_name} must hold one, under the "
                "key token, that you may read"
            )
        return ServiceError(error.message if error.status is None else f"status {error.status}: {error.message}")


class _Way(httpx.BaseTransport):
    """A forwarded port of a pod where the Service says that it speaks HTTPS, or else the API server's proxy."""

    def __init__(self, kube: Kube, namespace: str, timeout_seconds: float) -> None:
        self._kube = kube
        self._namespace = namespace
        self._token: str | None = None
        self.secret_name = ""
        self._root = f"/api/v1/namespaces/{namespace}/services/{BACKEND}:http/proxy"
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._secure: SecureApi | None = None
        self._is_open = False

    def open(self) -> None:
        with self._lock:
            if self._is_open:
                return
            ports = (self._kube.read("services", self._namespace, BACKEND) or {}).get("spec", {}).get("ports", [])
            if any(port.get("appProtocol") == "https" for port in ports):
                self._secure = SecureApi(self._kube, self._namespace)
                self._secure.open(self._timeout_seconds)
            self._is_open = True

    def close(self) -> None:
        if self._secure is not None:
            self._secure.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        try:
            self.open()
            is_fresh = self._token is None
            answer = self._send(request)
            if answer.status == _UNAUTHENTICATED and not is_fresh:
                self._token = None
                answer = self._send(request)
        except (UnreachableError, RefusedError) as error:
            raise httpx.ReadTimeout(f"within {self._timeout_seconds:g} s: {error.message}") from error
        return httpx.Response(answer.status, text=answer.text)

    def _send(self, request: httpx.Request) -> Response:
        content = request.read()
        path = request.url.raw_path.decode("ascii")
        body = json.loads(content) if content else None
        headers = self._find_key() if request.url.path.startswith("/v1/") else {}
        if _IDEMPOTENCY_HEADER in request.headers:
            headers |= {_IDEMPOTENCY_HEADER: request.headers[_IDEMPOTENCY_HEADER]}
        send, root = (self._kube.send, self._root) if self._secure is None else (self._secure.send, "")
        return send(Request(request.method, root + path, body, timeout_seconds=self._timeout_seconds, headers=headers))

    def _find_key(self) -> dict[str, str]:
        """Return the header with the API key, or none if there is no key that this user may read."""
        if self._token is None:
            try:
                self.secret_name = read_pointers(self._kube, self._namespace).admin_token
                secret = self._kube.read("secrets", self._namespace, self.secret_name) or {}
                self._token = base64.b64decode(secret.get("data", {}).get("token", "")).decode("ascii").strip()
            except (ForbiddenError, ValueError):
                self._token = ""
        return {_KEY_HEADER: self._token} if self._token else {}
