"""The framed protocol on asyncio streams, a task and a write per message: what `loadtests.transport` compares with."""

import asyncio
import itertools

from crdt_service.wire.frame import encode_frame
from crdt_service.wire.message import decode_reply, decode_request, encode_message

REQUEST_SECONDS_MAX = 10
IN_FLIGHT_MAX = 1024


class StreamChannel:
    """Requests and their replies."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer
        self._waiting = {}
        self._ids = itertools.count(1)
        self._running = asyncio.create_task(self._run())

    async def request(self, build):
        number = next(self._ids)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._writer.write(encode_frame(encode_message(build(number))))
        try:
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                return await waiting
        finally:
            self._waiting.pop(number, None)

    def close(self):
        self._running.cancel()
        self._writer.close()

    async def _run(self):
        while True:
            reply = decode_reply(await _read_frame(self._reader))
            self._waiting.pop(reply.id).set_result(reply)


async def serve(handler, port=0):
    """Answer requests; return the port."""

    async def answer(request, writer):
        writer.write(encode_frame(encode_message(await handler(request))))
        await writer.drain()

    async def answer_all(reader, writer):
        free, tasks = asyncio.Semaphore(IN_FLIGHT_MAX), set()
        try:
            while True:
                request = decode_request(await _read_frame(reader))
                await free.acquire()
                task = asyncio.create_task(answer(request, writer))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(lambda _: free.release())
        except EOFError:
            writer.close()

    server = await asyncio.start_server(answer_all, "127.0.0.1", port)
    return server.sockets[0].getsockname()[1], server


async def _read_frame(reader):
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
