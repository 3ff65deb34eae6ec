"""The listening end of a node: authenticates each connection, then lets a session answer it.

Who has not proved the secret yet waits in a lobby, of which strangers cannot take the room of members.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

from crdt_service.kernel.clock import HybridClock
from crdt_service.kernel.error import ServiceError
from crdt_service.net.cluster import ClusterIdentity
from crdt_service.net.connection import Connection
from crdt_service.net.credentials import Credentials, shaking_hands
from crdt_service.net.handshake import AcceptsBefore, Identity, accept
from crdt_service.net.listener import open_listeners
from crdt_service.net.lobby import Lobby
from crdt_service.net.refusal import CROWDED_OUT, FULL, SILENT, Refusals
from crdt_service.net.session import Handler, ListUnreachable, Session
from crdt_service.telemetry.trace import Recorder

# No dialler waits for longer. Raising it lets strangers hold their places for longer.
HANDSHAKE_SECONDS_MAX = 2.0
DRAIN_SECONDS_MAX = 5.0
# Of each role, so that backends and nodes do not take each other's. Raising it costs memory and descriptors.
CONNECTIONS_MAX = 512
BACKLOG = 128
ACCEPT_AGAIN_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Server:
    """Accepts connections, over TLS if there are credentials, and passes their requests to a handler.

    Args:
        identity: Who listens.
        cluster: What the other ends have to prove.
        handler: Answers what they ask.
        credentials: Certificate, key and authority for mutual TLS; None for none.
        recorder: Starts spans of requests that are traced; None to record none.
        list_unreachable: Returns the nodes that this process does not reach.
        is_member: Tells whether members are at an address.
        accepts_before: Tells whether a process of the release before may connect.
        on_refusal: Learns why each connection was refused.
    """

    def __init__(
        self,
        identity: Identity,
        cluster: ClusterIdentity,
        handler: Handler,
        credentials: Credentials | None = None,
        recorder: Recorder | None = None,
        *,
        list_unreachable: ListUnreachable = list,
        clock: HybridClock | None = None,
        is_member: Callable[[str], bool] = lambda host: False,
        accepts_before: AcceptsBefore = lambda other: True,
        on_refusal: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._identity = identity
        self._cluster = cluster
        self._handler = handler
        self._credentials = credentials
        self._recorder = recorder
        self._list_unreachable = list_unreachable
        self._clock = clock
        self._accepts_before = accepts_before
        self._refusals = Refusals(on_refusal)
        self._lobby: Lobby[asyncio.Task[None]] = Lobby(is_member)
        self._connected: dict[str, set[Connection]] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._answers: set[asyncio.Task[None]] = set()
        self._listeners: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []

    async def start(self, host: str, port: int) -> int:
        """Listen, on every address if `host` is `::`; return the port, which was drawn if `port` is 0.

        Raises:
            OSError: The address cannot be listened on.
        """
        self._listeners = open_listeners(host, port, BACKLOG)
        self._accepting = [asyncio.create_task(self._accept(listener)) for listener in self._listeners]
        return int(self._listeners[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, answer what was asked, and end every connection."""
        for accepting in self._accepting:
            accepting.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        if self._answers:
            await asyncio.wait(self._answers, timeout=DRAIN_SECONDS_MAX)
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        """Accept by hand: each connection gets the certificates of its moment, and its failure is told."""
        while True:
            try:
                accepted, address = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:  # Too many open files, most likely.
                _log.error("cannot accept connections: %s", error)
                await asyncio.sleep(ACCEPT_AGAIN_SECONDS)
                continue
            host = str(address[0])
            task = asyncio.create_task(self._serve(accepted, host))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
            if (crowded_out := self._lobby.enter(host, task)) is not None:
                self._refusals.refuse(host, CROWDED_OUT, "too many connections that prove nothing wait")
                crowded_out.cancel()
            await asyncio.sleep(0)  # It has begun, so that it ends its connection whenever it is cancelled.

    async def _serve(self, accepted: socket.socket, host: str) -> None:
        connection = Connection()
        try:
            other = await self._admit(connection, accepted, host)
        finally:
            self._leave_lobby(host)
        if other is None:
            return
        role = self._connected.setdefault(other.role, set())
        try:
            if len(role) >= CONNECTIONS_MAX:
                self._refusals.refuse(host, FULL, f"{CONNECTIONS_MAX} connections of role {other.role} are open")
                return
            role.add(connection)
            session = Session(
                other,
                self._handler,
                connection,
                self._answers,
                self._recorder,
                list_unreachable=self._list_unreachable,
                clock=self._clock,
            )
            connection.start(session)
            await connection.wait_lost()
        except ServiceError as error:
            _log.warning("connection from %s %s ended: %s", other.role, other.node_id, error)
        finally:
            role.discard(connection)
            connection.close()

    async def _admit(self, connection: Connection, accepted: socket.socket, host: str) -> Identity | None:
        """Return who connects, None if that is refused and closed."""
        transport: asyncio.BaseTransport | None = None
        other = None
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
                context = None if self._credentials is None else self._credentials.listener()
                with shaking_hands():
                    loop = asyncio.get_running_loop()
                    # With TLS, uvloop returns a protocol of its own instead of ours.
                    transport, _ = await loop.connect_accepted_socket(lambda: connection, accepted, ssl=context)
                other = await accept(connection, self._cluster, self._identity, self._accepts_before)
        except ServiceError as error:
            self._refusals.refuse_error(host, error)
        except TimeoutError:
            self._refusals.refuse(host, SILENT, f"nothing was proved within {HANDSHAKE_SECONDS_MAX} s")
        except (OSError, EOFError):  # The other end left.
            pass
        finally:
            if other is None and transport is not None:
                connection.close()
            elif other is None:
                accepted.close()
        return other

    def _leave_lobby(self, host: str) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._lobby.leave(host, task)
