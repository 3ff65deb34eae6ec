"""The HTTP server: bare ASGI over TCP or TLS, with bounds on all that a client may hold."""

import asyncio
import contextlib
import heapq
import logging
import math
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from crdt_service.access.room import Room
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.net.certificate import ServerCertificate
from crdt_service.net.http_connection import Describe, HttpConnection, Limits, encode_refusal
from crdt_service.net.listener import open_listeners

BACKLOG = 2048
# What the kernel holds for a client that does not read, where it would hold up to 4 MiB otherwise; lowering it wakes
# this process more often while it sends a large answer.
UNSENT_BYTES_MAX = 16 << 10
ACCEPT_AGAIN_SECONDS = 1.0
_SWEEP_SECONDS_MAX = 1.0
# Where there are too many connections, one of so many of them ends at once: to look for one costs as much.
_CONNECTIONS_PER_END = 128
# First byte of a TLS record that begins a handshake; no HTTP request begins so.
_TLS_HANDSHAKE = b"\x16"
_PLAIN = ServiceError("tls_required", "this port speaks HTTPS and was sent plain HTTP", "use https:// in the URL")
_log = logging.getLogger(__name__)


class HttpServer:
    """Serves one ASGI application.

    Args:
        application: What answers.
        host: Where it listens.
        port: Its port; 0 draws one.
        describe: Returns the HTTP status of an error and its JSON.
        certificate: For HTTPS; None for plain HTTP.
        limits: What a client may take.
        on_refused: Called with `heads`, `connections` or `unsent` when a client is cut for others.
        group_address: Returns what of an address a client does not choose at will.

    Attributes:
        port: Where it listens, once it does.
    """

    def __init__(
        self,
        application: Any,
        host: str,
        port: int,
        describe: Describe,
        *,
        certificate: ServerCertificate | None = None,
        limits: Limits | None = None,
        on_refused: Callable[[str], object] = lambda name: None,
        group_address: Callable[[str], str] = str,
    ) -> None:
        self.port = port
        self._host = host
        self._describe = describe
        self._certificate = certificate
        self._limits = limits or Limits()
        self._on_refused = on_refused
        self._group_address = group_address
        self._heads = Room("heads", self._limits.heads_bytes, on_refused)
        self._config = uvicorn.Config(
            application,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            # Limits count for an address, and who comes through a forwarded port could name any.
            proxy_headers=False,
        )
        self._state = ServerState()
        # In the order of their start, and from where: TLS handshakes under way, and the farewells of plain HTTP on a
        # TLS port.
        self._opening: dict[asyncio.Task[None], str] = {}

    async def run_until(self, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set, then let requests under way finish.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        try:
            listeners = open_listeners(self._host, self.port, BACKLOG)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {self._host}:{self.port}: {error.strerror}", "free the port, or give another address"
            ) from error
        for listener in listeners:
            # Connections inherit it.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)
        self.port = int(listeners[0].getsockname()[1])
        self._config.load()
        accepting = [asyncio.create_task(self._accept(listener)) for listener in listeners]
        serving = [*accepting, *(asyncio.create_task(each) for each in (self._sweep_always(), stopping.wait()))]
        try:
            done, _ = await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
            await self._end(accepting, listeners)
        finally:
            for task in (*serving, *self._opening):
                task.cancel()
            await asyncio.gather(*serving, *self._opening, return_exceptions=True)
            for listener in listeners:
                listener.close()
        for task in done:
            task.result()

    async def _end(self, accepting: Sequence[asyncio.Task[None]], listeners: Sequence[socket.socket]) -> None:
        """Take no connection any more, and end those that are there once they are answered."""
        for task in accepting:
            task.cancel()
        await asyncio.gather(*accepting, return_exceptions=True)
        for listener in listeners:
            listener.close()
        for task in self._opening:
            task.cancel()
        for connection in tuple(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.drain_seconds):
                while self._state.connections or self._state.tasks:  # noqa: ASYNC110 - uvicorn tells nobody.
                    await asyncio.sleep(0.02)
        for task in self._state.tasks:
            task.cancel()
        for connection in tuple(self._state.connections):
            connection.transport.abort()

    async def _accept(self, listener: socket.socket) -> None:
        """Accept by hand: each connection gets the certificate of its moment, and only so many are open."""
        while True:
            try:
                accepted, peer = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:  # Too many open files, most likely.
                _log.error("cannot accept connections: %s", error)
                await asyncio.sleep(ACCEPT_AGAIN_SECONDS)
                continue
            if len(self._opening) + len(self._state.connections) >= self._limits.connections:
                if not self._make_room():
                    accepted.close()
                    continue
                await asyncio.sleep(0)  # What was ended goes.
            address = self._group_address(peer[0])
            task = asyncio.create_task(self._open(accepted, address))
            self._opening[task] = address
            task.add_done_callback(self._forget)

    def _make_room(self) -> bool:
        """Of the address that has most, end what has waited for it for longest; return whether there was any."""
        idle = [each for each in self._connections() if each.idle_since < math.inf]
        counts = Counter(each.address for each in idle) + Counter(self._opening.values())
        if not counts:
            return False
        [(address, _)] = counts.most_common(1)
        count = max(1, self._limits.connections // _CONNECTIONS_PER_END)
        ending = heapq.nsmallest(count, (each for each in idle if each.address == address), key=_idle_since)
        for connection in ending:
            connection.abort()
        # A client that has not said anything yet goes after one that has nothing to say.
        opening = [task for task, opened in self._opening.items() if opened == address]
        for task in opening[: count - len(ending)]:
            task.cancel()
        self._on_refused("connections")
        return True

    def _cut_slowest(self) -> None:
        """End those that have taken nothing for longest, of the address that most waits for, while too much waits."""
        waiting = [each for each in self._connections() if each.paused_at < math.inf]
        unsent: Counter[str] = Counter()
        for each in waiting:
            unsent[each.address] += each.unsent_bytes
        excess = unsent.total() - self._limits.unsent_bytes
        if excess <= 0:
            return
        [(address, _)] = unsent.most_common(1)
        for each in sorted(waiting, key=lambda each: each.paused_at):
            if excess > 0 and each.address == address:
                excess -= each.unsent_bytes
                each.abort()
                self._on_refused("unsent")

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._opening.pop(task, None)

    async def _open(self, accepted: socket.socket, address: str) -> None:
        limits, loop = self._limits, asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: this is a coroutine.

        def make_connection() -> HttpConnection:
            return HttpConnection(
                self._config,
                self._state,
                limits=limits,
                heads=self._heads,
                address=address,
                describe=self._describe,
                on_made=lambda: self._forget(task),
            )

        is_ours = True  # Not the transport's yet.
        try:
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._certificate is None:
                is_ours = False
                await loop.connect_accepted_socket(make_connection, accepted)
                return
            async with asyncio.timeout(limits.handshake_seconds):
                first = await _peek(loop, accepted)
                if first == _TLS_HANDSHAKE:
                    is_ours = False
                    await loop.connect_accepted_socket(
                        make_connection,
                        accepted,
                        ssl=self._certificate.listener(),
                        ssl_shutdown_timeout=limits.farewell_seconds,
                    )
                elif first:
                    await self._refuse_plain(loop, accepted)
        except OSError as error:  # TimeoutError and SSLError are OSErrors.
            _log.debug("no connection: %s", error)
        finally:
            if is_ours:
                accepted.close()

    async def _refuse_plain(self, loop: asyncio.AbstractEventLoop, accepted: socket.socket) -> None:
        """Tell a client that speaks plain HTTP, and let it take the answer before the connection is reset."""
        await loop.sock_sendall(accepted, encode_refusal(*self._describe(_PLAIN)))
        accepted.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(self._limits.farewell_seconds):
            while await loop.sock_recv(accepted, 1 << 16):
                pass

    def _connections(self) -> list[HttpConnection]:
        return [each for each in self._state.connections if isinstance(each, HttpConnection)]

    async def _sweep_always(self) -> None:
        limits = self._limits
        shortest = min(
            limits.head_seconds, limits.body_seconds, limits.write_seconds, limits.idle_seconds, limits.farewell_seconds
        )
        while True:
            await asyncio.sleep(min(_SWEEP_SECONDS_MAX, shortest / 2))
            now = asyncio.get_running_loop().time()
            for connection in self._connections():
                connection.sweep(now)
            self._cut_slowest()


def _idle_since(connection: HttpConnection) -> float:
    return connection.idle_since


async def _peek(loop: asyncio.AbstractEventLoop, accepted: socket.socket) -> bytes:
    """Return the first byte that arrives without taking it, empty at the end."""
    readable = asyncio.Event()
    loop.add_reader(accepted, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(accepted)
    return accepted.recv(1, socket.MSG_PEEK)
