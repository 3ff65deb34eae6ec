"""The HTTP server: uvicorn with bare ASGI, its signals left to the process."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from crdt_service.kernel.error import ConfigError


class HttpServer(uvicorn.Server):
    """Serves one ASGI application until `stop`."""

    def __init__(self, application: Any, host: str, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                host=host,
                port=port,
                loop="none",
                http="httptools",
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                limit_concurrency=4096,
                timeout_graceful_shutdown=10,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: the process drains all its parts, not only HTTP, and then exits 0."""
        yield

    async def run_until(self, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set, then let requests under way finish.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        host, port = self.config.host, self.config.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=self.config.backlog)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror}", "free the port, or give another address"
            ) from error
        serving = asyncio.create_task(self.serve([listener]))
        waiting = asyncio.create_task(stopping.wait())
        await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
        self.should_exit = True
        waiting.cancel()
        await serving
