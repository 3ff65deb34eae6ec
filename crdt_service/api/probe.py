"""A node's HTTP side: liveness, readiness, health and metrics."""

from collections.abc import Callable

from crdt_service.api.asgi import JSON, TEXT, Receive, Scope, Send, encode_json, read_address, send_response
from crdt_service.api.errors import encode_error, status_of
from crdt_service.api.health import NodeHealthView
from crdt_service.api.pace import Pace, Shared
from crdt_service.kernel.error import ServiceError

# Of each page; who asks for more waits. Those that are not named here are answered as often as `/live`.
_PER_SECOND = {"/live": 200, "/ready": 200, "/health": 50, "/metrics": 20}
_NOT_FOUND = ServiceError("not_found", "no such page", "use /live, /ready, /health or /metrics")


class Probe:
    """``/live``, ``/ready``, ``/health`` and ``/metrics``; one ASGI callable.

    Args:
        is_ready: Tells whether the node serves reads; a full disk or lost peers do not count.
        show_health: Returns what is not as it should be.
        render: Returns metrics.
    """

    def __init__(
        self, is_ready: Callable[[], bool], show_health: Callable[[], NodeHealthView], render: Callable[[], bytes]
    ) -> None:
        self._is_ready = is_ready
        self._show_health = show_health
        self._metrics = Shared(render)
        self._paces = {path: Pace(per_second) for path, per_second in _PER_SECOND.items()}
        self._other = Pace(_PER_SECOND["/live"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request when it is its turn."""
        try:
            await self._paces.get(scope["path"], self._other).wait_turn(read_address(scope))
        except ServiceError as error:
            await send_response(send, status_of(error), encode_error(error), JSON, [(b"connection", b"close")])
            return
        if scope["path"] == "/live":
            await send_response(send, 200, encode_json({"live": True}), JSON)
        elif scope["path"] == "/ready":
            ready = self._is_ready()
            await send_response(send, 200 if ready else 503, encode_json({"ready": ready}), JSON)
        elif scope["path"] == "/health":
            view = self._show_health()
            await send_response(send, 503 if view.status == "unhealthy" else 200, encode_json(view), JSON)
        elif scope["path"] == "/metrics":
            await send_response(send, 200, await self._metrics.get(), TEXT)
        else:
            await send_response(send, 404, encode_error(_NOT_FOUND), JSON)
