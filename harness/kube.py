"""The Kubernetes API as plain JSON objects.

Owns the connection, the paths and what its errors mean to a person; knows nothing of what the objects are for.
The official client brings kubeconfig, credentials and TLS; objects stay the dictionaries that the API speaks.
"""

import json
import os
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode

import urllib3
from kubernetes.client import ApiClient, ApiException, CoreV1Api
from kubernetes.client.configuration import Configuration
from kubernetes.config import ConfigException, load_kube_config
from kubernetes.config.kube_config import KubeConfigMerger
from kubernetes.stream import portforward, ws_client
from urllib3.util.ssl_ import create_urllib3_context
from websocket import WebSocket, WebSocketException
from yaml import YAMLError

from crdt_service.client.trust import trust_any
from harness.failure import Failure

Json: TypeAlias = dict[str, Any]

REQUEST_TIMEOUT_SECONDS = 15.0

_GROUP = {
    "configmaps": "/api/v1",
    "events": "/api/v1",
    "namespaces": "/api/v1",
    "nodes": "/api/v1",
    "persistentvolumeclaims": "/api/v1",
    "pods": "/api/v1",
    "secrets": "/api/v1",
    "serviceaccounts": "/api/v1",
    "services": "/api/v1",
    "statefulsets": "/apis/apps/v1",
    "deployments": "/apis/apps/v1",
    "replicasets": "/apis/apps/v1",
    "jobs": "/apis/batch/v1",
    "roles": "/apis/rbac.authorization.k8s.io/v1",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
    "storageclasses": "/apis/storage.k8s.io/v1",
    "selfsubjectaccessreviews": "/apis/authorization.k8s.io/v1",
}


class KubeError(Failure):
    """A request to the Kubernetes API failed; the subclasses say in which way."""


class KubeconfigError(KubeError):
    """There is no kubeconfig, or it cannot be read."""


class UnknownContextError(KubeError):
    """The kubeconfig has no such context."""


class UnreachableError(KubeError):
    """No API server answers."""


class ForbiddenError(KubeError):
    """The API server knows the user, and does not let them."""


class RefusedError(KubeError):
    """The API server answered with an error.

    Args:
        status: The HTTP status.
        message: What the server says.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request: `path` starts with a slash and includes the query; `body` is JSON, `headers` may be secret."""

    method: str
    path: str
    body: Any = None
    content_type: str = "application/json"
    timeout_seconds: float = REQUEST_TIMEOUT_SECONDS
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to one HTTP request, whatever its status."""

    status: int
    text: str


class Kube:
    """A cluster's API.

    Args:
        send: Performs one request; raises UnreachableError when nothing answers.
        context: The kubeconfig context that `send` talks to, for messages and for helm.
        forward: Opens a connection to a port of a pod (namespace, pod, port) through the API server.
    """

    def __init__(
        self,
        send: Callable[[Request], Response],
        context: str,
        forward: Callable[[str, str, int], socket.socket] | None = None,
    ) -> None:
        self.send = send
        self.context = context
        self._forward = forward

    def forward(self, namespace: str, pod: str, port: int) -> socket.socket:
        """Return a connection to a port of a pod, through the API server; it ends when the socket is closed.

        Raises:
            UnreachableError: There is no such pod, nothing answers, or the user may not do that.
        """
        if self._forward is None:
            raise UnreachableError(f"the pods of context {self.context} cannot be connected to")
        return self._forward(namespace, pod, port)

    def request(self, method: str, path: str, body: Any = None, *, timeout_seconds: float | None = None) -> Json:
        """Send one request and return the JSON object that answers it.

        Raises:
            UnreachableError: Nothing answers.
            ForbiddenError: The user may not do that.
            RefusedError: Any other status than success.
        """
        content_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request = Request(method, path, body, content_type, timeout_seconds or REQUEST_TIMEOUT_SECONDS)
        response = self.send(request)
        if 200 <= response.status < 300:
            return _read_object(response)
        raise self._refusal(request, response)

    def read(self, plural: str, namespace: str, name: str) -> Json | None:
        """Return one object, or None when there is none. Cluster-wide kinds have the namespace `""`."""
        try:
            return self.request("GET", path_of(plural, namespace, name))
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    def read_all(self, plural: str, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Json]:
        """Return every object of a kind that a label selector and a field selector match."""
        selectors = {"labelSelector": labels, "fieldSelector": fields}
        query = urlencode({key: value for key, value in selectors.items() if value})
        path = path_of(plural, namespace)
        items: list[Json] = self.request("GET", f"{path}?{query}" if query else path).get("items", [])
        return items

    def create(self, plural: str, namespace: str, body: Json) -> Json:
        """Create an object and return it as stored."""
        return self.request("POST", path_of(plural, namespace), body)

    def merge(self, plural: str, namespace: str, name: str, patch: Json) -> Json:
        """Change an object by a JSON merge patch (RFC 7396) and return it as stored."""
        return self.request("PATCH", path_of(plural, namespace, name), patch)

    def delete(self, plural: str, namespace: str, name: str) -> None:
        """Delete an object and what it owns, in the background; one that is gone already is fine."""
        try:
            self.request("DELETE", path_of(plural, namespace, name), {"propagationPolicy": "Background"})
        except RefusedError as error:
            if error.status != 404:
                raise

    def _refusal(self, request: Request, response: Response) -> KubeError:
        message = _read_object(response).get("message") or response.text.strip() or f"status {response.status}"
        if response.status == 401:
            return ForbiddenError(
                f"the cluster of context {self.context} does not accept these credentials",
                "renew them, for example by logging in again with the tool that wrote the kubeconfig",
            )
        if response.status == 403:
            return ForbiddenError(
                f"not allowed in the cluster of context {self.context}: {message}",
                "ask an administrator of the cluster for this right, or use another --context",
            )
        return RefusedError(response.status, f"{request.method} {request.path}: {message}")


def path_of(plural: str, namespace: str = "", name: str = "") -> str:
    """Return the API path of a kind, or of one object of it."""
    inside = f"/namespaces/{namespace}" if namespace else ""
    return f"{_GROUP[plural]}{inside}/{plural}" + (f"/{name}" if name else "")


def connect(context: str | None = None) -> Kube:
    """Return the API of a kubeconfig context; None takes the current one. Sends nothing yet.

    Raises:
        KubeconfigError: No kubeconfig, or not a usable one.
        UnknownContextError: It has no such context.
    """
    location = os.environ.get("KUBECONFIG") or "~/.kube/config"
    files = [path for part in location.split(os.pathsep) if (path := Path(part).expanduser()).is_file()]
    if not files:
        raise KubeconfigError(
            f"there is no kubeconfig at {location}",
            "bring up the local cluster with `make up`, or point KUBECONFIG at your cluster's file",
        )
    config_file = os.pathsep.join(str(path) for path in files)
    configuration = Configuration()
    try:
        merged = KubeConfigMerger(config_file).config  # type: ignore[no-untyped-call]
        name = context or merged.safe_get("current-context")
        names = [known["name"] for known in merged.safe_get("contexts") or []]
        if not name:
            raise KubeconfigError(
                f"the kubeconfig {location} has no current context",
                "choose one with --context, or bring up the local cluster with `make up`",
            )
        if name not in names:
            raise UnknownContextError(
                f"the kubeconfig {location} has no context {name}",
                f"use one of: {', '.join(names)}" if names else "bring up the local cluster with `make up`",
            )
        load_kube_config(config_file, context=name, client_configuration=configuration, persist_config=False)  # type: ignore[no-untyped-call]
    except (ConfigException, YAMLError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        # The loader trusts the file's shape, so a damaged one surfaces as whatever its code trips over.
        raise KubeconfigError(
            f"the kubeconfig {location} is not usable: {error}", "choose a context with --context, or repair the file"
        ) from error
    configuration.retries = False
    client = ApiClient(configuration)
    if configuration.verify_ssl:
        # Beside what the official client sets: an intermediate authority of the kubeconfig is trusted by itself.
        trust = trust_any(create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED))
        client.rest_client.pool_manager.connection_pool_kw["ssl_context"] = trust
    return Kube(_sender(client, name, configuration.host), name, _forwarder(configuration, name))


def _sender(client: ApiClient, context: str, host: str) -> Callable[[Request], Response]:
    def send(request: Request) -> Response:
        headers = {"Accept": "application/json", "Content-Type": request.content_type, **request.headers}
        try:
            method, url, sent_headers, _, _ = client.param_serialize(
                request.method, request.path, header_params=headers, auth_settings=["BearerToken"]
            )
            reply = client.call_api(
                method,
                url,
                sent_headers,
                request.body,
                _request_timeout=request.timeout_seconds,
            )
            return Response(reply.status, (reply.response.data or b"").decode("utf-8", "replace"))
        except (urllib3.exceptions.HTTPError, ApiException, ConfigException, OSError) as error:
            raise UnreachableError(
                f"the API server of context {context} at {host} does not answer: {_cause(error)}",
                "check that the cluster runs (`make up` starts the local one) and that --context names the right one",
            ) from error

    return send


def report_thread(ended: threading.ExceptHookArgs) -> None:
    """Report what ended a thread, as `threading.excepthook` does, unless only a forwarded connection was closed.

    The official client's thread takes the end of one with something unread for a fault; who uses it is told anyway.
    """
    name = ended.thread.name if ended.thread else ""
    if not (name.startswith("Kubernetes port forward proxy") and issubclass(ended.exc_type, OSError)):
        threading.__excepthook__(ended)


def _forwarder(configuration: Configuration, context: str) -> Callable[[str, str, int], socket.socket]:
    def forward(namespace: str, pod: str, port: int) -> socket.socket:
        # Its own client: while it connects, the official one replaces the method that sends.
        connect_pod = CoreV1Api(ApiClient(configuration)).connect_get_namespaced_pod_portforward
        try:
            forwarded = portforward(connect_pod, pod, namespace, ports=str(port))
        except (ApiException, ConfigException, WebSocketException, OSError, ValueError) as error:
            raise UnreachableError(
                f"cannot connect to {pod} through the API server of context {context}: {_cause(error)}",
                "check that the pod runs, and that you may create pods/portforward",
            ) from error
        # When the pod's end closes first, the library forgets its connection to the API server without closing it.
        weakref.finalize(forwarded, forwarded.websocket.shutdown)
        connection: socket.socket = forwarded.socket(port)._socket  # TLS wraps real sockets only.
        return connection

    return forward


class _TrustingWebSocket(WebSocket):
    """The official client's connection for port forwarding, with the same trust as its requests."""

    def __init__(self, sslopt: Mapping[str, Any], **options: Any) -> None:
        super().__init__(sslopt={**sslopt, "context": _make_context(sslopt)}, **options)


def _make_context(options: Mapping[str, Any]) -> ssl.SSLContext | None:
    """Return a context of what the official client asks for, None where it asks for no verification."""
    if options["cert_reqs"] == ssl.CERT_NONE:
        return None
    context = trust_any(ssl.create_default_context(cafile=options["ca_certs"]))
    if "certfile" in options:
        context.load_cert_chain(options["certfile"], options.get("keyfile"))
    context.check_hostname = options.get("check_hostname", True)
    return context


ws_client.WebSocket = _TrustingWebSocket  # type: ignore[attr-defined, assignment]


def _cause(error: BaseException) -> str:
    text = str(getattr(error, "reason", None) or error)
    return text.rsplit(": ", 1)[-1].strip() or type(error).__name__


def _read_object(response: Response) -> Json:
    try:
        value = json.loads(response.text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def labels_of(body: Mapping[str, Any]) -> dict[str, str]:
    """Return an object's labels; none is an empty mapping."""
    return body.get("metadata", {}).get("labels") or {}


def annotations_of(body: Mapping[str, Any]) -> dict[str, str]:
    """Return an object's annotations; none is an empty mapping."""
    return body.get("metadata", {}).get("annotations") or {}


def conditions_of(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the status of each of an object's conditions by type; none is an empty mapping."""
    conditions = body.get("status", {}).get("conditions") or []
    return {condition["type"]: condition["status"] for condition in conditions}
