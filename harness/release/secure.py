"""HTTPS to the deployed API: through a forwarded port of a backend pod, trusted by the cluster's own authority."""

import base64
import http.client
import json
import secrets
import ssl
import threading

from crdt_service.client.trust import trust_any
from harness.kube import Kube, Request, Response, UnreachableError, conditions_of
from harness.release.name import API_PORT, BACKEND, LABELS
from harness.release.pointer import read_pointers

_KINDS = {"configmap": "ConfigMap", "secret": "Secret"}


class SecureApi:
    """The API over HTTPS, on connections that are used again.

    Args:
        kube: The cluster.
        namespace: Where the release is.

    Raises:
        UnreachableError: The authority's certificate is not there, or is none.
        KubeError: It cannot be read.
    """

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._host = f"{BACKEND}.{namespace}.svc"
        pointers = read_pointers(kube, namespace)
        place = f"{_KINDS[pointers.trust_kind]} {pointers.trust_name}"
        body = kube.read(f"{pointers.trust_kind}s", namespace, pointers.trust_name) or {}
        trust = (body.get("data") or {}).get("ca.crt", "")
        try:
            if pointers.trust_kind == "secret":
                trust = base64.b64decode(trust).decode("ascii")
            self._context = trust_any(ssl.create_default_context(cadata=trust))
        except (ssl.SSLError, ValueError) as error:
            raise UnreachableError(
                f"the {place} in {namespace} has no certificate to trust: {error}", "deploy again"
            ) from error
        if not trust:
            raise UnreachableError(f"there is no {place} in {namespace} with ca.crt", "deploy again")
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []

    def open(self, timeout_seconds: float) -> None:
        """Have a connection ready.

        Raises:
            KubeError: There is no pod to connect to, or its certificate is not trusted.
        """
        self._give_back(self._take(timeout_seconds))

    def send(self, request: Request) -> Response:
        """Send one request.

        Raises:
            UnreachableError: Nothing answers, or what answers is not trusted; a write may have been applied.
            KubeError: The cluster refuses.
        """
        body = None if request.body is None else json.dumps(request.body)
        connection = self._take(request.timeout_seconds)
        try:
            connection.request(
                request.method, request.path, body, {"Content-Type": request.content_type, **request.headers}
            )
            answer = connection.getresponse()
            response = Response(answer.status, answer.read().decode("utf-8", "replace"))
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise UnreachableError(f"{self._host}: {error or type(error).__name__}") from error
        if answer.will_close:
            connection.close()
        else:
            self._give_back(connection)
        return response

    def close(self) -> None:
        """End the connections that are not in use."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._idle.append(connection)

    def _take(self, timeout_seconds: float) -> http.client.HTTPConnection:
        while self._idle:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is not None and _is_alive(connection, timeout_seconds):
                return connection
        forwarded = self._kube.forward(self._namespace, self._find_pod(), API_PORT)
        forwarded.settimeout(timeout_seconds)
        try:
            secured = self._context.wrap_socket(forwarded, server_hostname=self._host)
        except OSError as error:
            forwarded.close()
            raise UnreachableError(f"{self._host}: {error}", "the pods may serve older certificates: wait") from error
        connection = http.client.HTTPConnection(self._host)
        connection.auto_open = 0  # It would resolve the name itself, and speak plain HTTP.
        connection.sock = secured
        return connection

    def _find_pod(self) -> str:
        pods = self._kube.read_all("pods", self._namespace, labels=f"{LABELS},app.kubernetes.io/component=backend")
        ready = [
            str(pod["metadata"]["name"])
            for pod in pods
            if conditions_of(pod).get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
        ]
        if not ready:
            raise UnreachableError(f"no pod of {BACKEND} is ready", f"kubectl logs deployment/{BACKEND}")
        return secrets.choice(ready)


def _is_alive(connection: http.client.HTTPConnection, timeout_seconds: float) -> bool:
    """Return whether an idle connection is still open; one that is not is closed."""
    sock = connection.sock
    try:
        sock.settimeout(0)
        sock.recv(1)  # Its end, or what nobody asked for; session tickets of TLS do not count.
    except (ssl.SSLWantReadError, BlockingIOError):
        sock.settimeout(timeout_seconds)
        return True
    except OSError:
        pass
    connection.close()
    return False
