"""The listening end of a node: authenticates, then answers pipelined requests of each connection concurrently."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from crdt_service.kernel.error import ServiceError
from crdt_service.net.handshake import Identity, accept
from crdt_service.wire.frame import encode_frame, read_frame
from crdt_service.wire.message import FailureReply, Reply, Request, decode_request, encode_message

HANDSHAKE_SECONDS_MAX = 5.0
DRAIN_SECONDS_MAX = 5.0
# Raising it costs memory and descriptors when many backends, or strangers, connect.
CONNECTIONS_MAX = 512
# Raising it lets one connection hold more unanswered requests in memory.
IN_FLIGHT_MAX = 1024

Handler = Callable[[Identity, Request], Awaitable[Reply]]
_log = logging.getLogger(__name__)


class Server:
    """Accepts connections and passes their requests to a handler."""

    def __init__(self, identity: Identity, secret: bytes, handler: Handler) -> None:
        self._identity = identity
        self._secret = secret
        self._handler = handler
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port, which was drawn if `port` is 0."""
        self._server = await asyncio.start_server(self._serve, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, answer what was asked, and end every connection."""
        if self._server is not None:
            self._server.close()
        await asyncio.wait([asyncio.gather(*self._tasks, return_exceptions=True)], timeout=DRAIN_SECONDS_MAX)
        for writer in tuple(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._writers) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._writers.add(writer)
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
                other = await accept(reader, writer, self._secret, self._identity)
            await self._answer_all(other, reader, writer)
        except ServiceError as error:
            _log.warning("connection from %s refused: %s", writer.get_extra_info("peername"), error)
        except (OSError, EOFError):  # The other end left, or was silent; TimeoutError is an OSError.
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer_all(self, other: Identity, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        free = asyncio.Semaphore(IN_FLIGHT_MAX)
        while True:
            request = decode_request(await read_frame(reader))
            await free.acquire()
            task = asyncio.create_task(self._answer(other, request, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: free.release())

    async def _answer(self, other: Identity, request: Request, writer: asyncio.StreamWriter) -> None:
        reply: Reply
        try:
            reply = await self._handler(other, request)
        except ServiceError as error:
            reply = FailureReply(request.id, error.code, error.message, error.remedy)
        if not writer.is_closing():
            writer.write(encode_frame(encode_message(reply)))
            try:
                await writer.drain()
            except OSError:
                writer.close()
