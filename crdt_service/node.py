"""Wires a node: replays its log, listens, joins its peers, and drains on a signal."""

import asyncio
import contextlib
import itertools
import logging
import math
import random
import shutil
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from crdt_service.api.errors import describe_error
from crdt_service.api.health import NodeFacts, NodeHealthView, Phase, judge_node
from crdt_service.api.probe import Probe
from crdt_service.disk.disk import Disk
from crdt_service.disk.journal import Journal
from crdt_service.disk.measured import MeasuredJournal
from crdt_service.kernel.clock import Clock, HybridClock, SystemClock, own_offset
from crdt_service.kernel.config import Config, PluginsConfig
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.kernel.ident import check_node_id, new_replica
from crdt_service.loops.answer import Answerer
from crdt_service.loops.anti_entropy import keep_fresh
from crdt_service.loops.backup import BackupSource
from crdt_service.loops.commit import Committer
from crdt_service.loops.exchange import Exchange
from crdt_service.loops.garbage import Collector
from crdt_service.loops.gossip import Gossip
from crdt_service.loops.placing import Placer
from crdt_service.loops.rewrite import rewrite
from crdt_service.loops.task import end_loops, start_loops
from crdt_service.loops.transfer import Transfer
from crdt_service.membership.document import is_below
from crdt_service.membership.link import Endpoint
from crdt_service.membership.ownership import Ownership, follow_members
from crdt_service.membership.swim import Swim
from crdt_service.membership.table import ALIVE
from crdt_service.metrics.backup import FAILURE_KEY, SUCCESS_KEY, decode_failure, decode_success
from crdt_service.metrics.metrics import NodeMetrics
from crdt_service.net.cluster import ClusterIdentity
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
    DecisionRequest,
    LeaveReply,
    LeaveRequest,
    MembershipRequest,
    MemberUpdate,
    Placed,
    PlacementRequest,
    ProposeRequest,
    PushRequest,
    Reply,
    Request,
    RestoreRequest,
)
from crdt_service.wire.seal import Key

# Raising it replays more after a crash; lowering it writes snapshots more often.
LOG_BYTES_MAX = 64 << 20
# Raising it waits longer for slow peers before the process ends.
DRAIN_SECONDS_MAX = 5.0
# How often a disk that is full or has too much to do is asked again.
RENAME_SECONDS = 1.0
# How often it is looked how many nodes there are to be. Raising it tells later of a change.
COUNT_SECONDS = 5.0
_BACKEND_REQUESTS = ClientRequest | PlacementRequest
_OPERATOR_REQUESTS = _BACKEND_REQUESTS | BackupRequest | RestoreRequest | LeaveRequest | ProposeRequest
_log = logging.getLogger(__name__)


class Node:
    """One node: it holds what it owns, replicates, and answers.

    Args:
        config: What all processes share.
        cluster: Which cluster it belongs to, and what proves that.
        node_id: This node's name.
        data_dir: Where its log lives.
        peers: Addresses of nodes, instead of DNS.
        zone: Where it runs, may be empty; replicas are spread over zones.
        advertise: HOST:PORT where others reach it, for those that discovery does not tell; empty to rely on discovery.
        credentials: Certificate, key and authority for mutual TLS; None for none.
        keys: What encrypts the log, the current one first; the others only read.
        recorder: Starts spans of requests that are traced; None to record none.
        plugins: Where strategies of conflict rules come from, beside the built-in ones.
        node_count: Returns how many nodes there are to be, or raises ConfigError; it is asked again now and then.
        fenced: Why its directory was given another name just before, empty if it was not.
        times_fenced: How often that was so since the process started.
    """

    def __init__(
        self,
        config: Config,
        cluster: ClusterIdentity,
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
        node_count: Callable[[], int],
        fenced: str = "",
        times_fenced: int = 0,
    ) -> None:
        self._metrics = NodeMetrics()
        self._metrics.on_fenced(times_fenced)
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
        self._zone = zone
        self._fenced = fenced
        self._is_fencing = False
        self._again = asyncio.Event()
        self._data_dir = data_dir
        self._replication_factor = config.crdt.replication_factor if config.crdt.cluster_enabled else 1
        self._read_count = node_count if config.crdt.cluster_enabled else lambda: 0
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
            is_alone=not config.crdt.cluster_enabled,
        )
        self._wire = partial(
            self._make_parts,
            config,
            cluster,
            peers=peers,
            advertise=advertise,
            credentials=credentials,
            recorder=recorder,
            clock=clock,
            randomness=randomness,
            node_count=self._read_count(),
        )

    def _make_parts(
        self,
        config: Config,
        cluster: ClusterIdentity,
        *,
        peers: list[Endpoint],
        advertise: str,
        credentials: Credentials | None,
        recorder: Recorder | None,
        clock: Clock,
        randomness: random.Random,
        node_count: int,
    ) -> None:
        """Make what speaks with others, once the log has told how this directory is called."""
        node_id, replica = self._node_id, self._replica
        gossip = config.crdt.gossip
        incarnation = int(clock.now_seconds() * 1000)
        self._swim = Swim(
            MemberUpdate(node_id, replica.id, advertise, self._zone, incarnation, is_leaving=False, liveness=ALIVE),
            interval_seconds=gossip.interval_seconds if gossip.enabled else math.inf,
            fanout=gossip.fanout,
            randomness=randomness,
            now=time.monotonic(),
        )
        self._exchange = Exchange(
            node_id, self._committer, replica, ownership=self._follow_members(), randomness=randomness
        )
        self._transfer = Transfer(
            node_id,
            self._store,
            self._committer,
            replica,
            self._exchange,
            observer=self._metrics,
            sync_interval_seconds=config.crdt.sync_interval_seconds,
            randomness=randomness,
        )
        self._placer = Placer(
            node_id,
            zone=self._zone,
            node_count=node_count,
            factor=self._replication_factor,
            store=self._store,
            replica=replica,
            committer=self._committer,
            exchange=self._exchange,
            transfer=self._transfer,
            zones=self._swim.zones,
            randomness=randomness,
            on_objection=self._fence,
        )
        self._collector = Collector(
            node_id,
            self._store,
            committer=self._committer,
            replica=replica,
            exchange=self._exchange,
            transfer=self._transfer,
            clock=clock,
            observer=self._metrics,
            randomness=randomness,
            is_complete=lambda: all(member.state in ("alive", "left") for member in self._swim.members()),
            on_rebuilt=self._follow_rebuilt,
        )
        self._answerer = Answerer(
            node_id,
            self._store,
            committer=self._committer,
            replica=replica,
            exchange=self._exchange,
            transfer=self._transfer,
            placer=self._placer,
            collector=self._collector,
            epoch=1 + randomness.getrandbits(52),
        )
        self._backup = BackupSource(
            self._store,
            clock,
            time.monotonic,
            is_synced=lambda: self._placer.is_ready,
            surplus=lambda: self._transfer.surplus,
        )
        identity = Identity(NODE, node_id, replica.id)
        self._server = Server(
            identity,
            cluster,
            self._handle,
            credentials,
            recorder,
            list_unreachable=self._list_unreachable,
            clock=self._hybrid,
            is_member=lambda host: host in self._mesh.hosts,
            accepts_before=self._accepts_before,
            on_refusal=self._metrics.on_peer_refused,
        )
        discover = resolve_fixed(peers) if peers else resolve_dns(config.peer_service, config.peer_port)
        is_clustered = config.crdt.cluster_enabled
        self._mesh = Mesh(
            identity,
            cluster,
            resolve=discover if is_clustered else resolve_fixed([]),
            learn=self._learn if is_clustered else dict,
            on_open=self._exchange.run,
            randomness=randomness,
            credentials=credentials,
            clock=self._hybrid,
            accepts_before=lambda: self._placer.document is None,
        )
        # Who is silent is still a member: what membership makes of that follows its own, longer limits.
        self._gossip = Gossip(self._swim, self._mesh.linked, time.monotonic)
        self._mesh.watch(self._gossip.opened, self._gossip.closed)
        self._gossip.subscribe(self._place)

    async def run(self, listen: Endpoint, metrics_listen: Endpoint, stopping: asyncio.Event) -> str | None:
        """Serve until `stopping` is set, then answer what is queued and close.

        Returns:
            None; or why this directory was given another name, and a new `Node` is to be started with it.

        Raises:
            ConfigError: An address cannot be listened on.
            OSError: The disk failed.
        """
        probe = Probe(lambda: self._phase == "serving" and self._placer.is_ready, self._show_health, self._render)
        ending = asyncio.Event()
        watching = asyncio.create_task(_set_after(ending, stopping, self._again))
        probing = asyncio.create_task(HttpServer(probe, *metrics_listen, describe_error).run_until(ending))
        probing.add_done_callback(lambda _: ending.set())
        try:
            await self._recover(ending)
            if not ending.is_set():
                self._wire()
                await self._serve(listen, ending)
        finally:
            ending.set()
            watching.cancel()
            self._close_journal()
            await probing
        return self._fenced if self._again.is_set() and not stopping.is_set() else None

    def _close_journal(self) -> None:
        """Release the directory; its damage is dealt with once it has another name."""
        if self._is_fencing and self._again.is_set():
            try:
                self._journal.clear_damage()
            except OSError as error:
                _log.error("the damage stays noted, and is dealt with again at the next start: %s", error)
        self._journal.close()

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
            self._placer.run(),
            self._follow_count(),
            self._begin(),
            self._collector.run(),
            self._metrics.watch_loop(),
            keep_fresh(self._store),
        )
        committing, *others = start_loops(running, stopping)
        try:
            port = await self._listen(listen)
            self._phase = "serving"
            states = len(self._store)
            _log.info("node %s listens on %s:%d with %d states", self._replica.id, listen[0], port, states)
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
        if self._is_leaving() and not self._transfer.surplus:
            await self._gossip.depart()

    async def _begin(self) -> None:
        """Have others vouch for this directory; until then it serves nothing."""
        if self._journal.damage:
            self._fence(self._journal.damage)
            return
        await self._placer.voucher.start()
        await asyncio.Event().wait()

    async def _follow_count(self) -> None:
        """Tell how many nodes there are to be as that changes."""
        while True:
            await asyncio.sleep(COUNT_SECONDS)
            try:
                self._placer.tell_count(self._read_count())
            except ConfigError as error:
                _log.warning("%s", error)

    def _is_leaving(self) -> bool:
        """Tell whether nothing is placed on this node, nor will be."""
        document = self._placer.document
        if document is None:
            return self._node_id not in self._swim.placement_members()
        return not self._placer.has_seat and not is_below(self._node_id, document.old.node_count)

    def _fence(self, reason: str) -> None:
        """Give this directory another name, since it is not what others know it for; then start again with it."""
        if self._is_fencing:
            return
        self._is_fencing = True
        self._fenced = reason
        self._placer.fence(reason)
        self._metrics.on_fenced(1)
        _log.error("this volume is not what it was: %s. It gets a new seat, and what it holds is joined back", reason)
        self._fencing = asyncio.create_task(self._rename())

    async def _rename(self) -> None:
        name = new_replica(self._node_id, random.SystemRandom())
        while not await self._try_rename(name):  # noqa: ASYNC110 - a full disk does not tell of room.
            await asyncio.sleep(RENAME_SECONDS)
        self._again.set()

    async def _try_rename(self, name: str) -> bool:
        try:
            return await self._committer.rename(name)
        except ServiceError as error:  # Too much waits for the disk.
            _log.warning("this volume cannot be renamed yet: %s", error)
            return False

    def _follow_rebuilt(self) -> None:
        """Fetch everything again; under a placement as another directory."""
        if self._placer.document is None:
            self._transfer.refill()
            return
        self._fenced = "it was away while others forgot what they purged"
        self._again.set()

    async def _listen(self, listen: Endpoint) -> int:
        try:
            return await self._server.start(*listen)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {listen[0]}:{listen[1]}: {error.strerror}", "free the port, or give another address"
            ) from error

    def _render(self) -> bytes:
        if self._phase == "recovering":
            return self._metrics.render()
        self._metrics.set_members([member.state for member in self._swim.members()])
        self._metrics.set_plugins(self._resolvers.states())
        self._metrics.set_links([link.state for link in self._mesh.peers()])
        vacant = len(self._store.vacant)
        self._metrics.set_keys(sum(map(len, self._store.slots)) - vacant, vacant)
        document = self._placer.document
        lost = 0 if document is None else len(document.lost)
        self._metrics.set_decision(self._replica.epoch, sum(self._placer.missing().values()), lost)
        self._metrics.set_placement(len(self._transfer.surplus), self._transfer.count_under_replicated())
        self._metrics.set_clock(own_offset(self._hybrid.offsets))
        self._metrics.set_lead(self._hybrid.lead_seconds)
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
            needed=self._replication_factor,
            checkpoint_error=self._committer.checkpoint_error,
        )
        if self._phase != "recovering":
            is_placed, placement = self._placer.judge()
            facts = replace(
                facts,
                is_synced=self._transfer.is_synced,
                surplus_slots=len(self._transfer.surplus),
                members=[member.state for member in self._swim.members()],
                offsets=dict(self._hybrid.offsets),
                is_placed=is_placed,
                placement=placement,
                fenced=self._fenced,
            )
        status, checks = judge_node(facts)
        return NodeHealthView(status, self._node_id, checks)

    async def _leave(self, request: LeaveRequest) -> Reply:
        if self._placer.has_seat:
            raise ServiceError(
                "has_seat",
                f"{self._node_id} has a seat in placement {self._replica.epoch}, which only a decision takes from it",
                "run `resize` of the release that the nodes run",
            )
        if not self._swim.placement_members().keys() - {self._node_id}:
            if self._swim.placement_members():
                raise ServiceError("last_member", "the last node cannot leave", "start another one first")
        elif self._node_id in self._swim.placement_members():
            await self._gossip.leave()
        return LeaveReply(request.id, len(self._transfer.surplus))

    def _follow_members(self) -> Ownership:
        return follow_members(self._swim.placement_members(), self._replication_factor)

    def _place(self) -> None:
        """Follow the live members, as long as no document says who owns what."""
        if self._placer.document is None:
            ownership = self._follow_members()
            self._exchange.place(ownership)
            self._transfer.place(ownership)

    def _learn(self) -> dict[str, Endpoint]:
        return self._gossip.endpoints()

    def _accepts_before(self, other: Identity) -> bool:
        """Tell whether a process of the release before is needed still; its nodes are not after the first placement."""
        return other.role == BACKEND or self._placer.document is None

    def _list_unreachable(self) -> list[str]:
        others = self._exchange.ownership.members.keys() - self._mesh.channels.keys() - {self._node_id}
        return sorted(others)[:UNREACHABLE_MAX] if others else []

    def _handle(
        self, other: Identity, request: Request | Placed[Request]
    ) -> Reply | Placed[Reply] | Coroutine[Any, Any, Reply] | Coroutine[Any, Any, Placed[Reply]]:
        epoch = 0
        if isinstance(request, Placed):
            epoch, request = request
        if isinstance(request, MembershipRequest):
            return self._gossip.answer(other.node_id if other.is_member else "", request)
        if other.role == BACKEND and not isinstance(request, _BACKEND_REQUESTS):
            raise ServiceError("wrong_role", "a backend may only read and write keys", "connect as a node")
        if other.is_operator and not isinstance(request, _OPERATOR_REQUESTS):
            raise ServiceError("wrong_role", "only a node with a directory replicates", "connect as a node")
        if isinstance(request, PushRequest) and request.replica not in ("", other.replica):
            raise ServiceError("wrong_role", "a node may only push its own commits", "connect as that node")
        if isinstance(request, BackupRequest):
            return self._backup.answer(request)
        if isinstance(request, LeaveRequest):
            return self._leave(request)
        if isinstance(request, DecisionRequest | ProposeRequest):
            return self._placer.answer(other.node_id, other.replica, request)
        return self._answerer.answer(request, epoch)


async def run_node(
    make: Callable[..., Node], listen: Endpoint, metrics_listen: Endpoint, stopping: asyncio.Event
) -> None:
    """Run a node until `stopping` is set; start it again in this process whenever its directory got another name.

    Args:
        make: Returns the node, given `fenced` and `times_fenced`.
        listen: Where peers and backends reach it.
        metrics_listen: Where its probes and metrics are.
        stopping: Ends it.

    Raises:
        ConfigError: An address cannot be listened on, or the directory cannot be used.
        OSError: The disk failed.
    """
    fenced = ""
    for times in itertools.count():
        reason = await make(fenced=fenced, times_fenced=times).run(listen, metrics_listen, stopping)
        if reason is None:
            return
        fenced = reason


async def _set_after(event: asyncio.Event, *others: asyncio.Event) -> None:
    """Set an event once one of others is."""
    waiting = [asyncio.create_task(other.wait()) for other in others]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        event.set()
    finally:
        for task in waiting:
            task.cancel()
