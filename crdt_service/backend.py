"""Wires the backend: keeps no state, connects to every node, serves the API."""

import asyncio
import random
import time

from crdt_service.access.keyring import Keyring
from crdt_service.access.limit import Limit
from crdt_service.access.sharing import KEY, TYPE, Sharing
from crdt_service.api.application import Application, Gate
from crdt_service.api.asgi import group_address
from crdt_service.api.errors import describe_error
from crdt_service.api.feed.hub import Hub
from crdt_service.api.feed.listening import follow_changes
from crdt_service.api.gates import Authentication, Authorization, RateLimiting
from crdt_service.api.health import BackendFacts
from crdt_service.api.plugins import PluginPages
from crdt_service.api.proximity import Proximity
from crdt_service.api.router import Router
from crdt_service.api.routes import make_routes
from crdt_service.kernel.clock import HybridClock, SystemClock, own_offset
from crdt_service.kernel.config import Config, PluginsConfig
from crdt_service.loops.gossip import Follower
from crdt_service.loops.task import end_loops, start_loops
from crdt_service.membership.link import Endpoint
from crdt_service.metrics.metrics import BackendMetrics
from crdt_service.net.certificate import ServerCertificate
from crdt_service.net.channel import Channel
from crdt_service.net.cluster import ClusterIdentity
from crdt_service.net.credentials import Credentials
from crdt_service.net.handshake import BACKEND, Identity
from crdt_service.net.http import HttpServer
from crdt_service.net.mesh import Mesh, resolve_dns, resolve_fixed
from crdt_service.plugins.host import Plugins
from crdt_service.plugins.plugin import Plugin
from crdt_service.telemetry.recent import Recent
from crdt_service.telemetry.request import Requests
from crdt_service.telemetry.trace import Recorder
from crdt_service.wire.message import REQUEST_NAMES, ChangesRequest

# A node holds it back until something changes, so its time says nothing of the node.
_LONG_POLL = REQUEST_NAMES[ChangesRequest]


class Backend:
    """The API that users and agents call.

    Args:
        config: What all processes share.
        cluster: Which cluster it belongs to, and what proves that.
        peers: Addresses of nodes, instead of DNS.
        credentials: For mutual TLS with the nodes; None for none.
        keyring: Whose tokens are good; None to let everyone in.
        zone: Where it runs; owners there are asked first. Empty if that is not known.
        linger_seconds: How long requests are still served after the signal to stop.
        certificate: For HTTPS; None for plain HTTP.
        recorder: Starts spans of requests that are traced; None to record none.
        plugins: What requests pass.
    """

    def __init__(
        self,
        config: Config,
        cluster: ClusterIdentity,
        *,
        peers: list[Endpoint],
        credentials: Credentials | None,
        keyring: Keyring | None,
        plugins: PluginsConfig,
        zone: str = "",
        linger_seconds: float = 0.0,
        certificate: ServerCertificate | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._certificate = certificate
        self._metrics = BackendMetrics()
        for each in (credentials, certificate):
            if each is not None:
                self._metrics.add_certificates(each.expiries)
        self._recent = Recent()
        self._replication_factor = config.crdt.replication_factor if config.crdt.cluster_enabled else 1
        randomness = random.SystemRandom()
        self._clock = HybridClock(SystemClock())
        self._mesh = Mesh(
            Identity(BACKEND, "backend", ""),
            cluster,
            resolve=resolve_fixed(peers) if peers else resolve_dns(config.peer_service, config.peer_port),
            learn=self._learn,
            on_open=self._ask,
            randomness=randomness,
            credentials=credentials,
            observe=self._observe,
            clock=self._clock,
            accepts_before=lambda: self._follower.placement.document is None,
        )
        self._follower = Follower(self._mesh.channels, config.crdt.replication_factor, time.monotonic, randomness)
        self._linger_seconds = linger_seconds
        self._draining = asyncio.Event()
        router = Router(self._mesh, self._follower, Proximity(zone))
        self._hub = Hub(self._mesh.channels, randomness, router.owners, self._metrics.on_no_room)
        self._keyring = keyring
        self._sharing: Sharing | None = None
        gates: list[Gate] = [] if keyring is None else [Authentication(keyring)]
        limits = config.security.rate_limiting
        if limits.enabled:
            self._sharing = sharing = Sharing(_LimitsKey(router), f"{randomness.getrandbits(64):016x}")
            limit = Limit(limits.requests_per_minute, limits.burst_limit)
            gates.append(RateLimiting(sharing.buckets, limit, lambda: sharing.parts))
        gates.append(Authorization())
        self._plugins = Plugins(plugins, self._metrics.on_plugin_failure)
        self._routes = make_routes(
            config,
            router,
            hub=self._hub,
            render_metrics=self._render,
            is_draining=self._draining.is_set,
            facts=self._facts,
            plugins=self._plugins,
            is_key_required=keyring is not None,
        )
        self._application = Application(
            self._routes,
            self._metrics,
            gates,
            draining=self._draining,
            requests=Requests(recorder),
        )

    async def run(self, listen: Endpoint, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set; then for as long as others may not know yet, and finish what is under way.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        running = [
            self._mesh.run(),
            self._follower.run(),
            self._metrics.watch_loop(),
            self._plugins.run(self._serve_plugin, lambda: follow_changes(self._hub)),
        ]
        running += [each.run() for each in (self._keyring, self._sharing) if each is not None]
        ended = asyncio.Event()
        loops = start_loops([*running, self._linger(stopping, ended)], stopping)
        try:
            await self._plugins.wait_tried()
            server = HttpServer(
                self._application,
                *listen,
                describe_error,
                certificate=self._certificate,
                on_refused=self._metrics.on_no_room,
                group_address=group_address,
            )
            await server.run_until(ended)
            if self._sharing is not None:
                await self._sharing.leave()
        finally:
            await end_loops(loops)

    async def _linger(self, stopping: asyncio.Event, ended: asyncio.Event) -> None:
        """Have clients leave by themselves: an idle connection that is cut may just have been sent a request."""
        await stopping.wait()
        self._draining.set()
        self._hub.stop()
        await asyncio.sleep(self._linger_seconds)
        ended.set()

    def _render(self) -> bytes:
        self._metrics.set_members([member.state for member in self._follower.members()])
        self._metrics.set_clock(own_offset(self._clock.offsets))
        self._metrics.set_connections(self._mesh.connections())
        self._metrics.set_feeds(self._hub.count)
        self._metrics.set_plugins([plugin.state for plugin in self._plugins.views()])
        return self._metrics.render()

    def _facts(self) -> BackendFacts:
        now = time.monotonic()
        return BackendFacts(
            self._mesh.connections(),
            self._replication_factor,
            self._recent.quantile(now, 0.99),
            *self._recent.failures(now),
            self._plugins.views(),
            dict(self._clock.offsets),
        )

    def _observe(self, name: str, seconds: float, error: str) -> None:
        if name == _LONG_POLL and not error:
            return
        is_failure = self._metrics.on_query(name, seconds, error)
        self._recent.add(time.monotonic(), seconds, is_failure=is_failure)

    def _serve_plugin(self, plugin: Plugin) -> None:
        self._application.table.add(PluginPages(self._plugins).routes_of(plugin))
        self._routes[:] = self._application.table.routes

    def _learn(self) -> dict[str, Endpoint]:
        return self._follower.endpoints()

    async def _ask(self, channel: Channel) -> None:
        await self._follower.ask(channel)


class _LimitsKey:
    """The key through which backends share rate limits."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def update(self, operation: bytes) -> bytes:
        """Apply an operation and return the value."""
        _, reply = await self._router.write(KEY, TYPE, operation, None, is_read=True)
        return reply.value

    async def read(self) -> bytes:
        """Return the value; an object without fields if there is none."""
        _, reply = await self._router.read(KEY, None)
        return reply.value or b"{}"
