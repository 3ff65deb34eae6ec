"""NATS JetStream's key-value buckets: three replicas, synced before each acknowledgement."""

import asyncio
from pathlib import Path
from typing import ClassVar, Self

import nats
from nats.aio.client import Client as Connection
from nats.js.api import KeyValueConfig, StorageType
from nats.js.kv import KeyValue

from benchmarks.processes import ProcessSystem
from benchmarks.stream import JsonHttp, Stream
from benchmarks.system import NODES, Client, find_binary
from loadtests.cluster import free_port

_BUCKET = "bench"
_FILL_IN_FLIGHT = 100
_START_SECONDS_MAX = 30
_REQUEST_SECONDS_MAX = 30
_CONFIG = """
server_name: nats-{node}
listen: "127.0.0.1:{client_port}"
http: "127.0.0.1:{http_port}"
jetstream {{ store_dir: "{store}", sync_interval: always }}
cluster {{ name: bench, listen: "127.0.0.1:{route_port}", routes: [{routes}] }}
"""


class Nats(ProcessSystem):
    name = "nats"
    acknowledges = "fsync on a quorum"
    can_count: ClassVar[bool] = False

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._binary = find_binary("nats-server", "`make bench` builds it with Go")
        self._ports = [(free_port(), free_port(), free_port()) for _ in range(NODES)]

    def __enter__(self) -> Self:
        routes = ", ".join(f'"nats://127.0.0.1:{route}"' for _, _, route in self._ports)
        for node, (client_port, http_port, route_port) in enumerate(self._ports):
            (self.directory / f"{node}.conf").write_text(
                _CONFIG.format(
                    node=node,
                    client_port=client_port,
                    http_port=http_port,
                    route_port=route_port,
                    store=self.directory / str(node),
                    routes=routes,
                )
            )
        return super().__enter__()

    def start(self, node: int) -> None:
        self._processes.start(self._process(node), [self._binary, "-c", str(self.directory / f"{node}.conf")])

    async def prepare(self) -> None:
        """Make the bucket, once the servers have found a leader."""
        async with asyncio.timeout(_START_SECONDS_MAX):
            while True:
                try:
                    connection = await self._open(0)
                    try:
                        await connection.jetstream().create_key_value(
                            KeyValueConfig(bucket=_BUCKET, replicas=NODES, storage=StorageType.FILE)
                        )
                    finally:
                        await connection.close()
                except (nats.errors.Error, OSError):
                    await asyncio.sleep(0.2)
                else:
                    return

    async def connect(self, node: int) -> Client:
        connection = await self._open(node)
        return NatsClient(connection, await connection.jetstream(timeout=_REQUEST_SECONDS_MAX).key_value(_BUCKET))

    async def is_serving(self, node: int, key: str) -> bool:
        """Ask the server's own health check: a key may be answered by any server."""
        try:
            http = JsonHttp(await Stream.open(self._ports[node][1]))
            try:
                return await http.get_status("/healthz") == 200
            finally:
                await http.close()
        except (OSError, EOFError):
            return False

    async def _open(self, node: int) -> Connection:
        self._processes.check()
        # Servers tell clients of each other; a client that moved would measure another node.
        return await nats.connect(f"nats://127.0.0.1:{self._ports[node][0]}", allow_reconnect=False)


class NatsClient(Client):
    def __init__(self, connection: Connection, bucket: KeyValue) -> None:
        self._connection = connection
        self._bucket = bucket
        self._watching: asyncio.Task[None] | None = None
        self._seen: set[str] = set()
        self._news = asyncio.Event()

    async def write(self, key: str, value: str) -> None:
        await self._bucket.put(key, value.encode())

    async def fill(self, pairs: list[tuple[str, str]]) -> None:
        for start in range(0, len(pairs), _FILL_IN_FLIGHT):
            await asyncio.gather(*(self.write(*pair) for pair in pairs[start : start + _FILL_IN_FLIGHT]))

    async def has(self, key: str) -> bool:
        try:
            await self._bucket.get(key)
        except nats.js.errors.KeyNotFoundError:
            return False
        return True

    async def see(self, key: str) -> None:
        """Wait for a watcher on this server: a read may be answered by any server."""
        if self._watching is None:
            watcher = await self._bucket.watch("propagation.>")
            self._watching = asyncio.create_task(self._watch(watcher))
        while key not in self._seen:
            self._news.clear()
            await self._news.wait()

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        await self._connection.close()

    async def _watch(self, watcher: KeyValue.KeyWatcher) -> None:
        async for entry in watcher:
            if entry is not None:
                self._seen.add(entry.key)
                self._news.set()
