"""Wires the backend: keeps no state, connects to every node, serves the API."""

import asyncio
import random

from crdt_service.api.application import Application
from crdt_service.api.router import Router
from crdt_service.kernel.config import Config
from crdt_service.membership.view import Endpoint
from crdt_service.metrics.metrics import BackendMetrics
from crdt_service.net.channel import Channel
from crdt_service.net.handshake import BACKEND, Identity
from crdt_service.net.http import HttpServer
from crdt_service.net.mesh import Mesh, resolve_dns, resolve_fixed


class Backend:
    """The API that users and agents call."""

    def __init__(self, config: Config, secret: bytes, *, peers: list[Endpoint]) -> None:
        self._mesh = Mesh(
            Identity(BACKEND, "backend", ""),
            secret,
            resolve=resolve_fixed(peers) if peers else resolve_dns(config.peer_service, config.peer_port),
            on_open=_wait,
            randomness=random.SystemRandom(),
        )
        self._application = Application(config, Router(self._mesh), BackendMetrics())

    async def run(self, listen: Endpoint, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set, then finish requests under way.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        mesh = asyncio.create_task(self._mesh.run())
        try:
            await HttpServer(self._application, *listen).run_until(stopping)
        finally:
            mesh.cancel()
            await asyncio.gather(mesh, return_exceptions=True)


async def _wait(channel: Channel) -> None:
    """Leave the channel to the router."""
