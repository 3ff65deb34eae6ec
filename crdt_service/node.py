"""Wires a node: replays its log, listens, joins its peers, and drains on a signal."""

import asyncio
import logging
import random
import shutil
from pathlib import Path

from crdt_service.api.probe import Probe
from crdt_service.disk.disk import Disk
from crdt_service.disk.journal import Journal
from crdt_service.kernel.clock import HybridClock, SystemClock
from crdt_service.kernel.config import Config
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.kernel.ident import check_node_id
from crdt_service.loops.answer import answer
from crdt_service.loops.commit import Committer
from crdt_service.loops.exchange import Exchange
from crdt_service.membership.view import Endpoint
from crdt_service.metrics.metrics import NodeMetrics
from crdt_service.net.handshake import BACKEND, NODE, Identity
from crdt_service.net.http import HttpServer
from crdt_service.net.mesh import Mesh, resolve_dns, resolve_fixed
from crdt_service.net.server import Server
from crdt_service.store.batch import replay
from crdt_service.store.store import Store
from crdt_service.wire.message import ReadRequest, Reply, Request, WriteRequest

# Raising it replays more after a crash; lowering it writes snapshots more often.
LOG_BYTES_MAX = 64 << 20
_log = logging.getLogger(__name__)


class Node:
    """One replica of everything."""

    def __init__(self, config: Config, secret: bytes, *, node_id: str, data_dir: Path, peers: list[Endpoint]) -> None:
        randomness = random.SystemRandom()
        clock = SystemClock()
        hybrid = HybridClock(clock)
        self._data_dir = data_dir
        self._ready = False
        self._journal = Journal(Disk(data_dir), check_node_id(node_id), randomness)
        self._store = Store(hybrid)
        replay(self._store, hybrid, self._journal.replica, self._journal.recover())
        self._metrics = NodeMetrics()
        self._metrics.on_storage(self._journal.log_bytes)
        self._committer = Committer(
            self._store,
            self._journal,
            replica=self._journal.replica,
            clock=clock,
            hybrid=hybrid,
            observer=self._metrics,
            log_bytes_max=LOG_BYTES_MAX,
        )
        self._exchange = Exchange(self._store, self._committer, self._metrics, config.crdt.sync_interval_seconds)
        identity = Identity(NODE, node_id, self._journal.replica)
        self._server = Server(identity, secret, self._handle)
        discover = resolve_fixed(peers) if peers else resolve_dns(config.peer_service, config.peer_port)
        self._mesh = Mesh(
            identity,
            secret,
            resolve=discover if config.crdt.cluster_enabled else resolve_fixed([]),
            on_open=self._exchange.run,
            randomness=randomness,
        )

    async def run(self, listen: Endpoint, metrics_listen: Endpoint, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set, then answer what is queued and close.

        Raises:
            ConfigError: An address cannot be listened on.
            OSError: The disk failed.
        """
        probes = HttpServer(Probe(lambda: self._ready, self._render), *metrics_listen)
        loops = [asyncio.create_task(self._committer.run()), asyncio.create_task(self._mesh.run())]
        for loop in loops:
            loop.add_done_callback(lambda _: stopping.set())
        try:
            port = await self._listen(listen)
            self._ready = True
            states = len(self._store.states)
            _log.info("node %s listens on %s:%d with %d states", self._journal.replica, listen[0], port, states)
            await probes.run_until(stopping)
            self._ready = False
        finally:
            self._committer.stop()
            loops[1].cancel()
            results = await asyncio.gather(*loops, return_exceptions=True)
            await self._server.close()
            self._journal.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _listen(self, listen: Endpoint) -> int:
        try:
            return await self._server.start(*listen)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {listen[0]}:{listen[1]}: {error.strerror}", "free the port, or give another address"
            ) from error

    def _render(self) -> bytes:
        self._metrics.set_members([member.state for member in self._mesh.peers()])
        self._metrics.set_storage(self._journal.snapshot_bytes, shutil.disk_usage(self._data_dir).free)
        return self._metrics.render()

    async def _handle(self, other: Identity, request: Request) -> Reply:
        if other.role == BACKEND and not isinstance(request, ReadRequest | WriteRequest):
            raise ServiceError("forbidden", "a backend may only read and write keys", "connect as a node")
        return await answer(self._store, self._committer, request)
