"""An API server in memory: stores objects, answers the paths that the harness asks for, and counts the requests."""

import json
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from harness.kube import Kube, Request, Response, UnreachableError

Json = dict[str, Any]


class FakeClock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class FakeService:
    """Three CRDT nodes behind the service proxy; `silent` ones do not answer, `deaf` ones miss what others write."""

    def __init__(self) -> None:
        self.nodes: dict[str, Json] = {f"jarvis-crdt-{index}": {} for index in range(3)}
        self.silent: set[str] = set()
        self.deaf: set[str] = set()
        self.status = "healthy"
        self.api_key = ""

    def answer(
        self, method: str, path: str, query: dict[str, list[str]], body: Json | None, api_key: str = ""
    ) -> Response:
        if path == "/health":
            health = {"status": self.status, "environment": "production", "members": {}, "checks": []}
            return Response(503 if self.status == "unhealthy" else 200, json.dumps(health))
        if self.api_key and api_key != self.api_key:
            error = {"code": "unauthenticated", "message": "an API key is needed", "remedy": ""}
            return Response(401, json.dumps({"error": error}))
        if path == "/v1/cluster":
            return Response(200, json.dumps({"members": [{"id": node} for node in self.nodes]}))
        key, node = path.removeprefix("/v1/keys/"), query["node"][0]
        if node in self.silent or node not in self.nodes:
            error = {"code": "node_unreachable", "message": f"{node} does not answer", "remedy": ""}
            return Response(503, json.dumps({"error": error}))
        if method == "POST" and body is not None:
            for name in {node, *(set(self.nodes) - self.deaf)}:
                self.nodes[name][key] = body["op"]["assign"]
        if key not in self.nodes[node]:
            return Response(404, json.dumps({"error": {"code": "not_found", "message": key}}))
        answer = {"key": key, "type": "lww_register", "value": self.nodes[node][key], "node": node}
        return Response(200, json.dumps(answer))


class FakeApi:
    """The API server. `refused` maps a part of a path to the status that it answers; `down` answers nothing."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.service = FakeService()
        self.resources: dict[str, list[Json]] = {}
        self.refused: dict[str, int] = {}
        self.denied: set[str] = set()
        self.down = False
        self.changes: list[tuple[str, str]] = []
        self.pages: dict[tuple[str, int], dict[str, int]] = {}
        self.on_delete: Callable[[str], None] = lambda _path: None

    def kube(self) -> Kube:
        return Kube(self.send, "kind-test", self.forward)

    def forward(self, _namespace: str, pod: str, port: int) -> socket.socket:
        """A connection to a pod's port, on which `pages` says the status of each path."""
        if (pod, port) not in self.pages:
            raise UnreachableError(f"cannot connect to {pod}")
        here, there = socket.socketpair()

        def serve() -> None:
            with there:
                path = there.recv(65536).decode().split(" ")[1]
                status = self.pages[pod, port].get(path, 404)
                if status:
                    there.sendall(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode())

        threading.Thread(target=serve, daemon=True).start()
        return here

    def put(self, plural: str, namespace: str, name: str, **body: Any) -> Json:
        metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **body.pop("metadata", {})}
        self.objects[plural, namespace, name] = {"metadata": metadata, **body}
        return self.objects[plural, namespace, name]

    def send(self, request: Request) -> Response:
        if self.down:
            raise UnreachableError("the API server does not answer: connection refused", "start it")
        url = urlsplit(request.path)
        for part, status in self.refused.items():
            if part in url.path:
                return _status(status, f"{part} is refused")
        if "/proxy/" in url.path:
            path = "/" + url.path.partition("/proxy/")[2]
            key = request.headers.get("X-API-Key", "")
            return self.service.answer(request.method, path, parse_qs(url.query), request.body, key)
        if url.path == "/version":
            return Response(200, json.dumps({"major": "1", "minor": "34", "gitVersion": "v1.34.0"}))
        if url.path.endswith("/selfsubjectaccessreviews"):
            resource = request.body["spec"]["resourceAttributes"]["resource"]
            return Response(201, json.dumps({"status": {"allowed": resource not in self.denied}}))
        if url.path in self.resources:
            return Response(200, json.dumps({"resources": self.resources[url.path]}))
        return self._store(request, url.path, {key: value[0] for key, value in parse_qs(url.query).items()})

    def _store(self, request: Request, path: str, query: dict[str, str]) -> Response:
        if request.method != "GET":
            self.changes.append((request.method, path))
        plural, namespace, name = _place(path)
        key = (plural, namespace, name)
        if request.method == "POST":
            body = request.body
            self.objects[plural, namespace, body["metadata"]["name"]] = body
            return Response(201, json.dumps(body))
        if not name:
            wanted = set(filter(None, query.get("labelSelector", "").split(",")))
            items = [
                body
                for (kind, space, _), body in self.objects.items()
                if kind == plural and namespace in ("", space) and wanted <= _labels(body)
            ]
            return Response(200, json.dumps({"items": items}))
        if key not in self.objects:
            return _status(404, f"{plural} {name} not found")
        if request.method == "DELETE":
            del self.objects[key]
            self.on_delete(path)
        if request.method == "PATCH":
            _merge(self.objects[key], request.body)
        return Response(200, json.dumps(self.objects.get(key, {})))


def deployed_api() -> FakeApi:
    """An API server with a healthy deployment of three nodes in jarvis-system."""
    api = FakeApi()
    labels = {"app.kubernetes.io/name": "jarvis", "app.kubernetes.io/instance": "jarvis"}
    condition = {"type": "Ready", "status": "True"}
    for index in range(3):
        api.put(
            "nodes",
            "",
            f"worker-{index}",
            metadata={"labels": {"topology.kubernetes.io/zone": f"zone-{'abc'[index]}"}},
            spec={},
            status={"conditions": [condition], "allocatable": {"cpu": "4", "memory": "8Gi"}},
        )
        api.put(
            "pods",
            "jarvis-system",
            f"jarvis-crdt-{index}",
            metadata={"labels": {**labels, "controller-revision-hash": "r1"}},
            spec={"nodeName": f"worker-{index}", "containers": []},
            status={"phase": "Running", "conditions": [condition]},
        )
        api.put(
            "persistentvolumeclaims",
            "jarvis-system",
            f"data-jarvis-crdt-{index}",
            metadata={"labels": labels},
            status={"phase": "Bound", "capacity": {"storage": "1Gi"}},
        )
    counts = {"replicas": 3, "readyReplicas": 3, "updatedReplicas": 3, "observedGeneration": 1}
    for plural, name in (("statefulsets", "jarvis-crdt"), ("deployments", "jarvis-backend")):
        revision = {"currentRevision": "r1", "updateRevision": "r1"} if plural == "statefulsets" else {}
        metadata = {"generation": 1, "annotations": {"meta.helm.sh/release-name": "jarvis"}}
        api.put(plural, "jarvis-system", name, metadata=metadata, spec={"replicas": 3}, status={**counts, **revision})
    api.put(
        "configmaps",
        "jarvis-system",
        "jarvis-deployment",
        data={
            "id": "jarvis-0123abcd",
            "phase": "ready",
            "message": "",
            "created": "2026-01-02T03:04:05Z",
            "updated": "2026-01-02T03:05:05Z",
            "chart_version": "0.19.0",
            "config_digest": "0" * 64,
            "node_count": "3",
            "replication_factor": "3",
        },
    )
    put_helm_release(api, "deployed", modified_seconds=0)
    return api


def put_monitoring(api: FakeApi, component: str, port: int, pages: dict[str, int]) -> None:
    """Store a component of the monitoring, whose pod answers with these statuses; 0 ends the connection."""
    name, labels = f"jarvis-{component}", {"app.kubernetes.io/name": "jarvis", "app.kubernetes.io/instance": "jarvis"}
    labels["app.kubernetes.io/component"] = component
    status = {"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "observedGeneration": 1}
    api.put("deployments", "jarvis-system", name, metadata={"generation": 1}, spec={"replicas": 1}, status=status)
    condition = {"type": "Ready", "status": "True"}
    api.put(
        "pods",
        "jarvis-system",
        f"{name}-0",
        metadata={"labels": labels},
        spec={"nodeName": "worker-0", "containers": []},
        status={"phase": "Running", "conditions": [condition]},
    )
    api.pages[f"{name}-0", port] = pages


def put_helm_release(api: FakeApi, status: str, *, modified_seconds: int, revision: int = 1) -> None:
    """Store a helm release's Secret."""
    labels = {
        "owner": "helm",
        "name": "jarvis",
        "status": status,
        "version": str(revision),
        "modifiedAt": str(modified_seconds),
    }
    api.put("secrets", "jarvis-system", f"sh.helm.release.v1.jarvis.v{revision}", metadata={"labels": labels})


def _place(path: str) -> tuple[str, str, str]:
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    return parts[0], namespace, parts[1] if len(parts) > 1 else ""


def _labels(body: Json) -> set[str]:
    return {f"{key}={value}" for key, value in (body["metadata"].get("labels") or {}).items()}


def _status(code: int, message: str) -> Response:
    return Response(code, json.dumps({"kind": "Status", "message": message, "code": code}))


def _merge(target: Json, patch: Json) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value
