"""Redis: one primary, two replicas, its append-only file synced before each answer."""

from pathlib import Path
from typing import ClassVar

import redis.asyncio

from benchmarks.processes import ProcessSystem
from benchmarks.stream import Stream
from benchmarks.system import HOT_KEY, NODES, Client, find_binary
from loadtests.cluster import free_port

_PIPELINE = 250


class Redis(ProcessSystem):
    """Driven over a bare connection, like Jarvis."""

    name = "redis"
    acknowledges = "fsync on the primary"
    write_nodes: ClassVar[tuple[int, ...]] = (0,)

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._binary = find_binary("redis-server", "install Debian's redis-server")
        self._ports = [free_port() for _ in range(NODES)]

    def start(self, node: int) -> None:
        data = self.directory / str(node)
        data.mkdir(exist_ok=True)
        of = ["--replicaof", f"127.0.0.1 {self._ports[0]}"] if node else []
        self._processes.start(
            self._process(node),
            [
                self._binary,
                *("--bind", "127.0.0.1", "--port", str(self._ports[node]), "--dir", str(data)),
                *("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--repl-diskless-sync-delay", "0"),
                *of,
            ],
        )

    async def connect(self, node: int) -> Client:
        self._processes.check()
        return RespClient(await Stream.open(self._ports[node]))


class RedisPy(Redis):
    """The same, driven through the client library that people use; shows what that costs."""

    name = "redis-py"
    acknowledges = "the same, through redis-py"

    async def connect(self, node: int) -> Client:
        self._processes.check()
        return LibraryClient(
            redis.asyncio.Redis(host="127.0.0.1", port=self._ports[node], single_connection_client=True)
        )


class RespClient(Client):
    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def write(self, key: str, value: str) -> None:
        await self._ask("SET", key, value)

    async def fill(self, pairs: list[tuple[str, str]]) -> None:
        for start in range(0, len(pairs), _PIPELINE):
            part = pairs[start : start + _PIPELINE]
            for key, value in part:
                self._send("SET", key, value)
            for _ in part:
                await self._receive()

    async def has(self, key: str) -> bool:
        """A replica that loads what its primary sent shows nothing yet."""
        try:
            return await self._ask("EXISTS", key) == b"1"
        except ValueError as error:
            if str(error).startswith("-LOADING"):
                return False
            raise

    async def increment(self) -> None:
        await self._ask("INCR", HOT_KEY)

    async def count(self) -> int:
        return int(await self._ask("INCRBY", HOT_KEY, "0"))

    async def close(self) -> None:
        await self._stream.close()

    async def _ask(self, *words: str) -> bytes:
        self._send(*words)
        return await self._receive()

    def _send(self, *words: str) -> None:
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            data = word.encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
        self._stream.writer.write(b"".join(parts))

    async def _receive(self) -> bytes:
        """Return a one-line reply; nothing here asks for a longer one."""
        line = await self._stream.reader.readuntil(b"\r\n")
        if line[:1] not in b"+:":
            raise ValueError(line.decode(errors="replace"))
        return line[1:-2]


class LibraryClient(Client):
    def __init__(self, connection: redis.asyncio.Redis) -> None:
        self._redis = connection

    async def write(self, key: str, value: str) -> None:
        await self._redis.set(key, value)

    async def fill(self, pairs: list[tuple[str, str]]) -> None:
        for start in range(0, len(pairs), _PIPELINE):
            pipeline = self._redis.pipeline(transaction=False)
            for key, value in pairs[start : start + _PIPELINE]:
                pipeline.set(key, value)
            await pipeline.execute()

    async def has(self, key: str) -> bool:
        try:
            return bool(await self._redis.exists(key))
        except redis.exceptions.BusyLoadingError:
            return False

    async def increment(self) -> None:
        await self._redis.incr(HOT_KEY)

    async def count(self) -> int:
        return int(await self._redis.get(HOT_KEY) or 0)

    async def close(self) -> None:
        await self._redis.aclose()
