"""The dialling end of a connection: pipelined requests, replies matched by id."""

import asyncio
import itertools
from collections.abc import Callable

from crdt_service.kernel.error import MalformedError, OutcomeUnknownError, ServiceError, UnreachableError
from crdt_service.net.handshake import Identity
from crdt_service.wire.frame import encode_frame, read_frame
from crdt_service.wire.message import FailureReply, Reply, Request, decode_reply, encode_message

# Raising it lets a dead connection hide for longer; lowering it gives up on slow disks.
REQUEST_SECONDS_MAX = 10.0
# Raising it lets one slow node hold more requests in this process's memory.
IN_FLIGHT_MAX = 4096


class Channel:
    """An authenticated connection to a node.

    Attributes:
        node_id: The node at the other end.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, other: Identity) -> None:
        self.node_id = other.node_id
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._ids = itertools.count(1)
        self._open = True

    async def run(self) -> None:
        """Hand replies to their requests until the connection ends; then fail the rest."""
        try:
            while True:
                reply = decode_reply(await read_frame(self._reader))
                waiting = self._waiting.pop(reply.id, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)
        except (OSError, EOFError, MalformedError):
            pass
        finally:
            self.close()

    def close(self) -> None:
        """End the connection; requests under way have an unknown outcome."""
        self._open = False
        self._writer.close()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(OutcomeUnknownError(self.node_id))
        self._waiting.clear()

    async def request(self, build: Callable[[int], Request]) -> Reply:
        """Send the request that `build` makes of an id; return its reply.

        Raises:
            UnreachableError: It was surely not sent.
            OutcomeUnknownError: It was sent, and no reply came.
            ServiceError: The node refused; it surely changed nothing.
        """
        if not self._open or len(self._waiting) >= IN_FLIGHT_MAX:
            raise UnreachableError(self.node_id)
        number = next(self._ids)
        frame = encode_frame(encode_message(build(number)))
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        self._writer.write(frame)
        try:
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                reply = await waiting
        except TimeoutError as error:
            self.close()
            raise OutcomeUnknownError(self.node_id) from error
        finally:
            self._waiting.pop(number, None)
        if isinstance(reply, FailureReply):
            raise ServiceError(reply.code, reply.message, reply.remedy)
        return reply
