"""Jarvis, over its framed protocol, written down here a second time: the benchmark knows the service from outside."""

import hmac
import secrets
import ssl
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec

from benchmarks.stream import Stream
from benchmarks.system import HOT_KEY, NODES, Client, System
from loadtests.cluster import LoopbackCluster

_PROTOCOL = 3
_HELLO, _CHALLENGE, _PROOF, _READ, _WRITE, _VALUE = 1, 2, 3, 10, 11, 12
_ONE, _MAJORITY = 0, 1
_NO_PROOF = bytes(32)
_PIPELINE = 250
_BACKEND = "jarvis-backend"


class Jarvis(System):
    """Clients spread over all nodes."""

    name = "jarvis"
    acknowledges = "fsync on the node written to"

    tls: ClassVar[bool] = False
    concern: ClassVar[int] = _ONE

    def __init__(self, directory: Path, cluster: LoopbackCluster | None = None) -> None:
        super().__init__(directory)
        self._cluster = cluster or LoopbackCluster(directory, NODES, sync_interval_seconds=5, tls=self.tls)
        self._secret = self._cluster.secret_file.read_bytes()
        self._context: ssl.SSLContext | None = None
        if self.tls:
            files = self._cluster.certificates[_BACKEND]
            self._context = ssl.create_default_context(cafile=str(files.authority))
            self._context.check_hostname = False  # It is checked against the node's id where it matters.
            self._context.load_cert_chain(files.certificate, files.key)

    def __enter__(self) -> Self:
        self._cluster.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.stop()

    def pids(self) -> list[int]:
        return [self._cluster.processes[name].pid for name in self._cluster.node_ids]

    def kill(self, node: int) -> None:
        self._cluster.kill(self._cluster.node_ids[node])

    def start(self, node: int) -> None:
        self._cluster.start_node(self._cluster.node_ids[node])

    async def connect(self, node: int) -> Client:
        stream = await Stream.open(self._cluster.ports[self._cluster.node_ids[node]][0], self._context)
        client = JarvisClient(stream, self.concern)
        await client.authenticate(self._secret)
        return client


class JarvisOneNode(Jarvis):
    """All clients on one node, as Redis has all of them on its primary."""

    name = "jarvis-1"
    acknowledges = "the same, all clients on one node"
    write_nodes: ClassVar[tuple[int, ...]] = (0,)


class JarvisTls(Jarvis):
    """Mutual TLS between all processes, the benchmark's clients included."""

    name = "jarvis-tls"
    acknowledges = "the same, over mutual TLS"
    tls = True


class JarvisMajority(Jarvis):
    """Acknowledges what nats and etcd do."""

    name = "jarvis-majority"
    acknowledges = "fsync on two of three nodes"
    concern = _MAJORITY


class JarvisMajorityTls(JarvisMajority):
    """The same over mutual TLS: more than nats and etcd offer here."""

    name = "jarvis-majority-tls"
    acknowledges = "fsync on two of three nodes, over mutual TLS"
    tls = True


class JarvisClient(Client):
    def __init__(self, stream: Stream, concern: int) -> None:
        self._stream = stream
        self._concern = concern
        self._id = 0

    async def authenticate(self, secret: bytes) -> None:
        hello = msgspec.msgpack.encode([_HELLO, _PROTOCOL, "backend", "benchmark", "", secrets.token_bytes(32)])
        self._send(hello)
        tag, node_id, replica, nonce, proof = await self._receive()
        unproved = msgspec.msgpack.encode([_CHALLENGE, node_id, replica, nonce, _NO_PROOF])
        expected = hmac.digest(secret, b"listener\0" + hello + unproved, "sha256")
        if tag != _CHALLENGE or not hmac.compare_digest(proof, expected):
            raise ValueError("the node does not know the secret")
        proof = hmac.digest(secret, b"dialler\0" + hello + unproved, "sha256")
        self._send(msgspec.msgpack.encode([_PROOF, proof]))

    async def write(self, key: str, value: str) -> None:
        await self._ask(_WRITE, key, "lww_register", b'{"assign":"%s"}' % value.encode(), self._concern)

    async def fill(self, pairs: list[tuple[str, str]]) -> None:
        for start in range(0, len(pairs), _PIPELINE):
            part = pairs[start : start + _PIPELINE]
            for key, value in part:
                self._id += 1
                op = b'{"assign":"%s"}' % value.encode()
                self._send(msgspec.msgpack.encode([_WRITE, self._id, key, "lww_register", op]))
            for _ in part:
                _check(await self._receive())

    async def has(self, key: str) -> bool:
        return bool((await self._ask(_READ, key))[2])

    async def increment(self) -> None:
        await self._ask(_WRITE, HOT_KEY, "pn_counter", b'{"increment":1}', self._concern)

    async def count(self) -> int:
        return int((await self._ask(_READ, HOT_KEY))[3] or 0)

    async def close(self) -> None:
        await self._stream.close()

    async def _ask(self, tag: int, *fields: object) -> list[Any]:
        self._id += 1
        self._send(msgspec.msgpack.encode([tag, self._id, *fields]))
        return _check(await self._receive())

    def _send(self, body: bytes) -> None:
        self._stream.writer.write(len(body).to_bytes(4, "big") + body)

    async def _receive(self) -> list[Any]:
        size = int.from_bytes(await self._stream.reader.readexactly(4), "big")
        answer: list[Any] = msgspec.msgpack.decode(await self._stream.reader.readexactly(size))
        return answer


def _check(answer: list[Any]) -> list[Any]:
    if answer[0] != _VALUE:
        raise ValueError(f"refused: {answer[2:]}")
    return answer
