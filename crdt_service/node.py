"""Wires a node: replays its log, listens, joins its peers, and drains on a signal."""

import asyncio
import contextlib
import itertools
import logging
import math
import random
import shutil
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from crdt_service.api.errors import describe_error
from crdt_service.api.health import NodeFacts, NodeHealthView, Phase, judge_node
from crdt_service.api.probe import Probe
from crdt_service.disk.disk import Disk
from crdt_service.disk.journal import Journal
from crdt_service.disk.measured import MeasuredJournal
from crdt_service.kernel.clock import HybridClock, SystemClock
from crdt_service.kernel.config import Config, PluginsConfig
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.kernel.ident import check_node_id
from crdt_service.loops.answer import Answerer
from crdt_service.loops.anti_entropy import keep_fresh
from crdt_service.loops.backup import BackupSource
from crdt_service.loops.commit import Committer
from crdt_service.loops.exchange import Exchange
from crdt_service.loops.garbage import Collector
from crdt_service.loops.gossip import Gossip
from crdt_service.loops.rewrite import rewrite
from crdt_service.loops.task import end_loops, start_loops
from crdt_service.membership.link import Endpoint
from crdt_service.membership.placement import Placement
from crdt_service.membership.swim import Swim
from crdt_service.membership.table import ALIVE
from crdt_service.metrics.backup import FAILURE_KEY, SUCCESS_KEY, decode_failure, decode_success
from crdt_service.metrics.metrics import NodeMetrics
from crdt_service.net.credentials import Credentials
from crdt_service.net.handshake import BACKEND, NODE, Identity
from crdt_service.net.http import HttpServer
from crdt_service.net.mesh import Mesh, resolve_dns, resolve_fixed
from crdt_service.net.server import Server
from crdt_service.plugins.resolvers import Resolvers
from crdt_service.replication.replica import Replica
from crdt_service.resolution.policy import read_policy
from crdt_service.store.store import Store
from crdt_service.telemetry.trace import Recorder
from crdt_service.wire.message import (
    UNREACHABLE_MAX,
    BackupRequest,
    ClientRequest,
    LeaveReply,
    LeaveRequest,
    MembershipRequest,
    MemberUpdate,
    Placed,
    PushRequest,
    Reply,
    Request,
)
from crdt_service.wire.seal import Key

# Raising it replays more after a crash; lowering it writes snapshots more often.
LOG_BYTES_MAX = 64 << 20
# Raising it waits longer for slow peers before the process ends.
DRAIN_SECONDS_MAX = 5.0
_BACKEND_REQUESTS = ClientRequest
_log = logging.getLogger(__name__)


class Node:
    """One node: it holds what it owns, replicates, and answers.

    Args:
        config: What all processes share.
        secret: What proves that a process belongs to the cluster.
        node_id: This node's name.
        data_dir: Where its log lives.
        peers: Addresses of nodes, instead of DNS.
        zone: Where it runs, may be empty; replicas are spread over zones.
        advertise: HOST:PORT where others reach it, for those that discovery does not tell; empty to rely on discovery.
        credentials: Certificate, key and authority for mutual TLS; None for none.
        keys: What encrypts the log, the current one first; the others only read.
        recorder: Starts spans of requests that are traced; None to record none.
        plugins: Where strategies of conflict rules come from, beside the built-in ones.
    """

    def __init__(
        self,
        config: Config,
        secret: bytes,
        *,
        node_id: str,
        data_dir: Path,
        peers: list[Endpoint],
        zone: str,
        advertise: str,
        credentials: Credentials | None,
        keys: Sequence[Key] = (),
        recorder: Recorder | None = None,
        plugins: PluginsConfig,
    ) -> None:
        self._metrics = NodeMetrics()
        self._resolvers = Resolvers(
            plugins,
            config.crdt.conflict_rules,
            clock=time.monotonic,
            processor_clock=time.thread_time,
            on_failure=self._metrics.on_plugin_failure,
        )
        policy = read_policy(config.crdt, self._resolvers.strategies)
        randomness = random.SystemRandom()
        clock = SystemClock()
        hybrid = self._hybrid = HybridClock(clock)
        self._node_id = node_id
        self._data_dir = data_dir
        self._replication_factor = config.crdt.replication_factor if config.crdt.cluster_enabled else 1
        self._phase: Phase = "recovering"
        self._is_interrupted = False
        if credentials is not None:
            self._metrics.add_certificates(credentials.expiries)
        self._journal = Journal(Disk(data_dir), check_node_id(node_id), randomness, keys)
        self._store = Store(hybrid, policy)
        self._replica = Replica(self._journal.replica)
        self._measured = MeasuredJournal(self._journal, self._metrics, time.monotonic)
        self._committer = Committer(
            self._store,
            self._measured,
            replica=self._replica,
            clock=clock,
            hybrid=hybrid,
            observer=self._metrics,
            log_bytes_max=LOG_BYTES_MAX,
        )
        incarnation = int(clock.now_seconds() * 1000)
        gossip = config.crdt.gossip
        self._swim = Swim(
            MemberUpdate(
                node_id, self._journal.replica, advertise, zone, incarnation, is_leaving=False, liveness=ALIVE
            ),
            interval_seconds=gossip.interval_seconds if gossip.enabled else math.inf,
            fanout=gossip.fanout,
            randomness=randomness,
            now=time.monotonic(),
        )
        self._exchange = Exchange(
            node_id,
            self._store,
            self._committer,
            self._replica,
            placement=self._place(),
            observer=self._metrics,
            sync_interval_seconds=config.crdt.sync_interval_seconds,
            randomness=randomness,
        )
        self._collector = Collector(
            node_id,
            self._store,
            self._committer,
            self._replica,
            self._exchange,
            clock=clock,
            observer=self._metrics,
            randomness=randomness,
            is_complete=lambda: all(member.state in ("alive", "left") for member in self._swim.members()),
        )
        self._answerer = Answerer(
            node_id,
            self._store,
            self._committer,
            self._replica,
            self._exchange,
            collector=self._collector,
            epoch=1 + randomness.getrandbits(52),
        )
        self._backup = BackupSource(self._store, clock, lambda: self._exchange.is_synced)
        identity = Identity(NODE, node_id, self._journal.replica)
        self._server = Server(
            identity, secret, self._handle, credentials, recorder, list_unreachable=self._list_unreachable
        )
        discover = resolve_fixed(peers) if peers else resolve_dns(config.peer_service, config.peer_port)
        is_clustered = config.crdt.cluster_enabled
        self._mesh = Mesh(
            identity,
            secret,
            resolve=discover if is_clustered else resolve_fixed([]),
            learn=self._learn if is_clustered else dict,
            on_open=self._exchange.run,
            randomness=randomness,
            credentials=credentials,
        )
        # Who is silent is still a member: what membership makes of that follows its own, longer limits.
        self._gossip = Gossip(self._swim, self._mesh.linked, time.monotonic)
        self._mesh.watch(self._gossip.opened, self._gossip.closed)
        self._gossip.subscribe(lambda: self._exchange.place(self._place()))

    async def run(self, listen: Endpoint, metrics_listen: Endpoint, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set, then answer what is queued and close.

        Raises:
            ConfigError: An address cannot be listened on.
            OSError: The disk failed.
        """
        probe = Probe(lambda: self._phase == "serving", self._show_health, self._render)
        probing = asyncio.create_task(HttpServer(probe, *metrics_listen, describe_error).run_until(stopping))
        probing.add_done_callback(lambda _: stopping.set())
        try:
            await self._recover(stopping)
            if not stopping.is_set():
                await self._serve(listen, stopping)
        finally:
            stopping.set()
            self._journal.close()
            await probing

    async def _recover(self, stopping: asyncio.Event) -> None:
        """Replay the log beside the probes, which say so meanwhile; give up once `stopping` is set."""
        recovering = asyncio.create_task(asyncio.to_thread(self._replay))
        waiting = asyncio.create_task(stopping.wait())
        await asyncio.wait((recovering, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self._is_interrupted = stopping.is_set()
        await recovering

    def _replay(self) -> None:
        started = time.monotonic()
        payloads = itertools.takewhile(lambda _: not self._is_interrupted, self._journal.recover())
        self._replica.replay(self._store, self._hybrid, payloads)
        if self._is_interrupted:
            return
        if self._journal.needs_rewrite:
            rewrite(self._store, self._measured, self._replica)
        self._metrics.on_storage(self._journal.log_bytes)
        self._metrics.on_disk_operation("recover", time.monotonic() - started)

    async def _serve(self, listen: Endpoint, stopping: asyncio.Event) -> None:
        running = (
            self._committer.run(),
            self._mesh.run(),
            self._gossip.run(),
            self._collector.run(),
            self._metrics.watch_loop(),
            keep_fresh(self._store),
        )
        committing, *others = start_loops(running, stopping)
        try:
            port = await self._listen(listen)
            self._phase = "serving"
            states = len(self._store)
            _log.info("node %s listens on %s:%d with %d states", self._journal.replica, listen[0], port, states)
            await stopping.wait()
        finally:
            self._phase = "stopping"
            await self._drain(committing)
            try:
                await end_loops([committing, *others])
            finally:
                await self._server.close()

    async def _drain(self, committing: asyncio.Task[None]) -> None:
        """Refuse new writes, commit those that wait, and have the peers take what they lack."""
        self._committer.stop()
        await asyncio.wait([committing])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS_MAX):
                await self._exchange.drain()
        if self._node_id not in self._swim.placement_members() and not self._exchange.surplus:
            await self._gossip.depart()

    async def _listen(self, listen: Endpoint) -> int:
        try:
            return await self._server.start(*listen)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {listen[0]}:{listen[1]}: {error.strerror}", "free the port, or give another address"
            ) from error

    def _render(self) -> bytes:
        self._metrics.set_members([member.state for member in self._swim.members()])
        self._metrics.set_plugins(self._resolvers.states())
        self._metrics.set_links([link.state for link in self._mesh.peers()])
        vacant = len(self._store.vacant)
        self._metrics.set_keys(sum(map(len, self._store.slots)) - vacant, vacant)
        self._metrics.set_placement(len(self._exchange.surplus), self._exchange.count_under_replicated())
        volume = shutil.disk_usage(self._data_dir)
        self._metrics.set_backup(
            decode_success(self._read(SUCCESS_KEY)),
            decode_failure(self._read(FAILURE_KEY)),
        )
        self._metrics.set_storage(self._journal.snapshot_bytes, volume.free, volume.total)
        return self._metrics.render()

    def _read(self, key: str) -> bytes | None:
        reading = self._store.read(key)
        return None if reading is None else reading.value

    def _show_health(self) -> NodeHealthView:
        facts = NodeFacts(
            phase=self._phase,
            states=len(self._store),
            is_refusing=self._measured.is_refusing,
            append_seconds=self._measured.append_seconds(0.99),
            log_bytes=self._journal.log_bytes,
            log_bytes_max=LOG_BYTES_MAX,
            snapshot_bytes=self._journal.snapshot_bytes,
            free_bytes=shutil.disk_usage(self._data_dir).free,
            is_synced=self._exchange.is_synced,
            surplus_slots=len(self._exchange.surplus),
            members=[member.state for member in self._swim.members()],
            needed=self._replication_factor,
        )
        status, checks = judge_node(facts)
        return NodeHealthView(status, self._node_id, checks)

    async def _leave(self, request: LeaveRequest) -> Reply:
        if not self._swim.placement_members().keys() - {self._node_id}:
            if self._swim.placement_members():
                raise ServiceError("last_member", "the last node cannot leave", "start another one first")
        elif self._node_id in self._swim.placement_members():
            await self._gossip.leave()
        return LeaveReply(request.id, len(self._exchange.surplus))

    def _place(self) -> Placement:
        return Placement(self._swim.placement_members(), self._replication_factor)

    def _learn(self) -> dict[str, Endpoint]:
        return self._gossip.endpoints()

    def _list_unreachable(self) -> list[str]:
        others = self._exchange.placement.members.keys() - self._mesh.channels.keys() - {self._node_id}
        return sorted(others)[:UNREACHABLE_MAX] if others else []

    def _handle(
        self, other: Identity, request: Request | Placed[Request]
    ) -> Reply | Placed[Reply] | Coroutine[Any, Any, Reply]:
        if isinstance(request, Placed):
            raise ServiceError("moved", "this node knows of no placement", "exchange placements first")
        if isinstance(request, MembershipRequest):
            return self._gossip.answer(other.node_id if other.role != BACKEND else "", request)
        if other.role == BACKEND and not isinstance(request, _BACKEND_REQUESTS):
            raise ServiceError("wrong_role", "a backend may only read and write keys", "connect as a node")
        if isinstance(request, PushRequest) and request.replica not in ("", other.replica):
            raise ServiceError("wrong_role", "a node may only push its own commits", "connect as that node")
        if isinstance(request, BackupRequest):
            return self._backup.answer(request)
        if isinstance(request, LeaveRequest):
            return self._leave(request)
        return self._answerer.answer(request)
