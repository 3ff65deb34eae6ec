"""The deployed API, reached through the Kubernetes API server, so that no port has to be open to this machine."""

import json
from typing import Any
from urllib.parse import quote, urlencode

from harness.failure import Failure
from harness.kube import Json, Kube, Request, Response, UnreachableError
from harness.release.name import BACKEND


class ServiceError(Failure):
    """The API answered with an error, or not at all.

    Args:
        status: The HTTP status.
        message: What the answer says.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Service:
    """The API of the release in one namespace.

    Args:
        kube: The cluster.
        namespace: Where the release is.
        timeout_seconds: How long one request may take.
    """

    def __init__(self, kube: Kube, namespace: str, timeout_seconds: float = 10.0) -> None:
        self._kube = kube
        self._root = f"/api/v1/namespaces/{namespace}/services/{BACKEND}:http/proxy"
        self._timeout_seconds = timeout_seconds

    def read_health(self) -> Json:
        """Return the body of `/health`, also when it reports an unhealthy service with status 503."""
        response = self._send("GET", "/health")
        body = _object(response)
        if "status" not in body or response.status not in (200, 503):
            raise _error(response, body)
        return body

    def write(self, key: str, type_name: str, operation: Json, *, node: str = "") -> Any:
        """Apply an operation to a key, through one node if `node` names it, and return the new value.

        Returning means that the write is durable on the node that took it.
        """
        return self._call("POST", _key_path(key, node), {"type": type_name, "op": operation})["value"]

    def read(self, key: str, *, node: str = "") -> Any:
        """Return a key's value, as one node sees it if `node` names it; None when it knows no such key."""
        try:
            return self._call("GET", _key_path(key, node))["value"]
        except ServiceError as error:
            if error.status == 404:
                return None
            raise

    def _call(self, method: str, path: str, body: Json | None = None) -> Json:
        response = self._send(method, path, body)
        value = _object(response)
        if response.status != 200:
            raise _error(response, value)
        return value

    def _send(self, method: str, path: str, body: Json | None = None) -> Response:
        try:
            return self._kube.send(Request(method, self._root + path, body, timeout_seconds=self._timeout_seconds))
        except UnreachableError as error:
            raise ServiceError(504, f"no answer within {self._timeout_seconds:g} s: {error.message}") from error


def _key_path(key: str, node: str) -> str:
    return f"/v1/keys/{quote(key, safe='')}" + (f"?{urlencode({'node': node})}" if node else "")


def _object(response: Response) -> Json:
    try:
        value = json.loads(response.text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _error(response: Response, body: Json) -> ServiceError:
    error = body.get("error")
    # The service has its own error shape; the API server's proxy speaks Kubernetes' Status.
    message = error.get("message") if isinstance(error, dict) else body.get("message")
    return ServiceError(response.status, f"status {response.status}: {message or response.text.strip()[:200]}")
