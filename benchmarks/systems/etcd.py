"""etcd, through its JSON gateway over persistent connections."""

import base64
from pathlib import Path
from typing import Any

from benchmarks.processes import ProcessSystem
from benchmarks.stream import JsonHttp, Stream
from benchmarks.system import HOT_KEY, NODES, Client, find_binary
from loadtests.cluster import free_port

_TRANSACTION_OPS = 100  # Below etcd's own limit of 128.


class Etcd(ProcessSystem):
    name = "etcd"
    acknowledges = "fsync on a quorum"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._binary = find_binary("etcd", "`make bench` builds it with Go from benchmarks/peers/etcd")
        self._ports = [(free_port(), free_port()) for _ in range(NODES)]

    def start(self, node: int) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in self._ports[node])
        cluster = ",".join(f"etcd-{number}=http://127.0.0.1:{port}" for number, (_, port) in enumerate(self._ports))
        self._processes.start(
            self._process(node),
            [
                self._binary,
                *("--name", f"etcd-{node}", "--data-dir", str(self.directory / str(node)), "--log-level", "error"),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", cluster, "--initial-cluster-state", "new"),
            ],
        )

    async def connect(self, node: int) -> Client:
        self._processes.check()
        return EtcdClient(JsonHttp(await Stream.open(self._ports[node][0])))


class EtcdClient(Client):
    def __init__(self, http: JsonHttp) -> None:
        self._http = http

    async def write(self, key: str, value: str) -> None:
        await self._http.post("/v3/kv/put", {"key": _encode(key), "value": _encode(value)})

    async def fill(self, pairs: list[tuple[str, str]]) -> None:
        for start in range(0, len(pairs), _TRANSACTION_OPS):
            puts = [
                {"requestPut": {"key": _encode(key), "value": _encode(value)}}
                for key, value in pairs[start : start + _TRANSACTION_OPS]
            ]
            await self._http.post("/v3/kv/txn", {"success": puts})

    async def has(self, key: str) -> bool:
        found = await self._http.post("/v3/kv/range", {"key": _encode(key), "serializable": True, "count_only": True})
        return int(found.get("count", 0)) > 0

    async def increment(self) -> None:
        """Compare and swap until it succeeds."""
        found = await self._read()
        while True:
            value, revision = _parse(found)
            answer = await self._http.post(
                "/v3/kv/txn",
                {
                    "compare": [
                        {"target": "MOD", "result": "EQUAL", "key": _encode(HOT_KEY), "modRevision": str(revision)}
                    ],
                    "success": [{"requestPut": {"key": _encode(HOT_KEY), "value": _encode(str(value + 1))}}],
                    "failure": [{"requestRange": {"key": _encode(HOT_KEY)}}],
                },
            )
            if answer.get("succeeded"):
                return
            response = answer["responses"][0]
            found = response.get("response_range") or response.get("responseRange")

    async def count(self) -> int:
        return _parse(await self._read())[0]

    async def close(self) -> None:
        await self._http.close()

    async def _read(self) -> Any:
        return await self._http.post("/v3/kv/range", {"key": _encode(HOT_KEY)})


def _parse(found: Any) -> tuple[int, int]:
    """Return the hot counter and its revision, zeros if it does not exist."""
    if not found.get("kvs"):
        return 0, 0
    entry = found["kvs"][0]
    return int(base64.b64decode(entry["value"])), int(entry["mod_revision"])


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
