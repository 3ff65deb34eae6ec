"""The listening end of a node: authenticates each connection, then lets a session answer it."""

import asyncio
import logging
import socket

from crdt_service.kernel.error import ServiceError
from crdt_service.net.connection import Connection
from crdt_service.net.credentials import Credentials, shaking_hands
from crdt_service.net.handshake import Identity, accept
from crdt_service.net.listener import open_listeners
from crdt_service.net.session import Handler, ListUnreachable, Session
from crdt_service.telemetry.trace import Recorder

HANDSHAKE_SECONDS_MAX = 5.0
DRAIN_SECONDS_MAX = 5.0
# Raising it costs memory and descriptors when many backends, or strangers, connect.
CONNECTIONS_MAX = 512
BACKLOG = 128
ACCEPT_AGAIN_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Server:
    """Accepts connections, over TLS if there are credentials, and passes their requests to a handler."""

    def __init__(
        self,
        identity: Identity,
        secret: bytes,
        handler: Handler,
        credentials: Credentials | None = None,
        recorder: Recorder | None = None,
        *,
        list_unreachable: ListUnreachable = list,
    ) -> None:
        self._identity = identity
        self._secret = secret
        self._handler = handler
        self._credentials = credentials
        self._recorder = recorder
        self._list_unreachable = list_unreachable
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
            if len(self._serving) >= CONNECTIONS_MAX:
                accepted.close()
                continue
            task = asyncio.create_task(self._serve(accepted, address))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, accepted: socket.socket, address: object) -> None:
        connection = Connection()
        transport: asyncio.BaseTransport | None = None
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
                context = None if self._credentials is None else self._credentials.listener()
                with shaking_hands():
                    loop = asyncio.get_running_loop()
                    # With TLS, uvloop returns a protocol of its own instead of ours.
                    transport, _ = await loop.connect_accepted_socket(lambda: connection, accepted, ssl=context)
                other = await accept(connection, self._secret, self._identity)
            session = Session(
                other,
                self._handler,
                connection,
                self._answers,
                self._recorder,
                list_unreachable=self._list_unreachable,
            )
            connection.start(session)
            await connection.wait_lost()
        except ServiceError as error:
            _log.warning("connection from %s refused: %s", address, error)
        except (OSError, EOFError):  # The other end left, or was silent; TimeoutError is an OSError.
            pass
        finally:
            if transport is not None:
                connection.close()
