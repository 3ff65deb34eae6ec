"""The backend's HTTP API."""

import time
from urllib.parse import parse_qs, unquote

import msgspec

from crdt_service.api.asgi import (
    JSON,
    TEXT,
    Receive,
    Scope,
    Send,
    encode_error,
    encode_json,
    read_body,
    send_response,
    status_of,
)
from crdt_service.api.router import Router
from crdt_service.kernel.config import Config
from crdt_service.kernel.error import OperationError, ServiceError
from crdt_service.kernel.ident import check_key
from crdt_service.replication.port import RequestObserver

KEYS = "/v1/keys/"


class _Write(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    op: msgspec.Raw


_write = msgspec.json.Decoder(_Write)


class Application:
    """Routes HTTP requests; one ASGI callable."""

    def __init__(self, config: Config, router: Router, observer: RequestObserver) -> None:
        self._config = config
        self._router = router
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and report it."""
        started = time.perf_counter()
        route, status, body, content_type = "other", 500, b"", JSON
        try:
            route, status, body, content_type = await self._answer(scope, receive)
        except ServiceError as error:
            status, body = status_of(error), encode_error(error)
            route = KEYS + "{key}" if scope["path"].startswith(KEYS) else "other"
        await send_response(send, status, body, content_type)
        self._observer.on_request(route, status, time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[str, int, bytes, bytes]:
        path, method = scope["path"], scope["method"]
        if path.startswith(KEYS):
            return KEYS + "{key}", 200, await self._answer_key(scope, receive), JSON
        pages = {
            "/live": self._live,
            "/ready": self._ready,
            "/health": self._health,
            "/metrics": self._metrics,
            "/v1/cluster": self._cluster,
        }
        if path not in pages:
            raise ServiceError("not_found", f"no page {path[:200]!r}", f"use {KEYS}{{key}}, /v1/cluster or /health")
        if method not in ("GET", "HEAD"):
            raise _method_error("GET")
        return (path, *pages[path]())

    async def _answer_key(self, scope: Scope, receive: Receive) -> bytes:
        key = check_key(_unquote(scope["raw_path"].split(b"?")[0][len(KEYS) :]))
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        unknown = set(query) - {"node", "concern"}
        if unknown or query.get("concern", ["one"]) != ["one"]:
            raise OperationError("the query is not understood", "use ?node=ID and ?concern=one")
        node = query.get("node", [None])[-1]
        if scope["method"] == "GET":
            node_id, reply = await self._router.read(key, node)
            if not reply.type_name:
                raise ServiceError("not_found", f"no key {key!r}", "write it first")
        elif scope["method"] == "POST":
            try:
                write = _write.decode(await read_body(receive))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise ServiceError(
                    "invalid_body", f"body: {error}", 'send {"type": "pn_counter", "op": {"increment": 3}}'
                ) from error
            node_id, reply = await self._router.write(key, write.type[:128], bytes(write.op), node)
        else:
            raise _method_error("GET or POST")
        return encode_json({"key": key, "type": reply.type_name, "value": msgspec.Raw(reply.value), "node": node_id})

    def _live(self) -> tuple[int, bytes, bytes]:
        return 200, b'{"live":true}', JSON

    def _ready(self) -> tuple[int, bytes, bytes]:
        ready = any(member.state == "reachable" for member in self._router.members())
        return 200 if ready else 503, encode_json({"ready": ready}), JSON

    def _metrics(self) -> tuple[int, bytes, bytes]:
        self._observer.set_members([member.state for member in self._router.members()])
        return 200, self._observer.render(), TEXT

    def _cluster(self) -> tuple[int, bytes, bytes]:
        return 200, encode_json({"members": self._router.members()}), JSON

    def _health(self) -> tuple[int, bytes, bytes]:
        """Healthy: every member seen is reachable, and enough for the replication factor; unhealthy: none is."""
        members = self._router.members()
        reachable = sum(member.state == "reachable" for member in members)
        needed = self._config.crdt.replication_factor if self._config.crdt.cluster_enabled else 1
        checks = [
            ("any_node_reachable", reachable > 0, f"{reachable} nodes are reachable"),
            (
                "all_nodes_reachable",
                reachable == len(members),
                f"{reachable} of {len(members)} nodes seen are reachable",
            ),
            ("replication_factor", reachable >= needed, f"{reachable} nodes are reachable for {needed} replicas"),
        ]
        status = "unhealthy" if not reachable else "healthy" if all(passed for _, passed, _ in checks) else "degraded"
        body = {
            "status": status,
            "environment": self._config.environment,
            "members": {"seen": len(members), "reachable": reachable},
            "checks": [{"name": name, "passed": passed, "message": message} for name, passed, message in checks],
        }
        return 503 if status == "unhealthy" else 200, encode_json(body), JSON


def _unquote(raw: bytes) -> str:
    try:
        return unquote(raw.decode("ascii"), errors="strict")
    except UnicodeDecodeError as error:
        raise OperationError("the key is no percent-encoded UTF-8", "encode it as UTF-8", "invalid_key") from error


def _method_error(allowed: str) -> ServiceError:
    return ServiceError("method_not_allowed", "the method is not allowed here", f"use {allowed}")
