"""Connections to all nodes: discovers addresses, dials each, and dials again with backoff and jitter."""

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Mapping

from crdt_service.kernel.clock import HybridClock
from crdt_service.kernel.error import ServiceError
from crdt_service.membership.link import Endpoint, Link, Links
from crdt_service.net.channel import Channel, Observe
from crdt_service.net.cluster import ClusterIdentity
from crdt_service.net.credentials import Credentials
from crdt_service.net.dial import open_channel
from crdt_service.net.handshake import Identity

# What is dialled has limits of its own, but for finding the address of a name.
DIAL_SECONDS_MAX = 5.0
BACKOFF_SECONDS_MIN = 0.1
# Raising it finds a returned node later; lowering it knocks on dead addresses more often.
BACKOFF_SECONDS_MAX = 2.0
DISCOVERY_SECONDS = 2.0

Resolve = Callable[[], Awaitable[set[Endpoint]]]
Learn = Callable[[], Mapping[str, Endpoint]]
OnOpen = Callable[[Channel], Awaitable[None]]
OnLink = Callable[[Channel], None]
_log = logging.getLogger(__name__)


class Mesh:
    """One link per address that discovery finds or gossip tells.

    Args:
        learn: Returns the addresses that gossip told, by node id.
        on_open: Uses a channel from when it may be used; it is cancelled when the channel falls silent or closes, and
            called again when the other end is heard again.
        observe: Hears of each request on any channel, as `Channel` says.
        clock: Learns what the clocks of those at the other ends say.
        accepts_before: Tells whether nodes of the release before may still be connected to.

    Attributes:
        channels: Channels that may be used, by node id.
        linked: The same with those that are silent.
        hosts: Where nodes are, as far as discovery or gossip told.
    """

    def __init__(
        self,
        identity: Identity,
        cluster: ClusterIdentity,
        *,
        resolve: Resolve,
        learn: Learn,
        on_open: OnOpen,
        randomness: random.Random,
        credentials: Credentials | None = None,
        observe: Observe | None = None,
        clock: HybridClock | None = None,
        accepts_before: Callable[[], bool] = lambda: True,
    ) -> None:
        self.channels: dict[str, Channel] = {}
        self.linked: dict[str, Channel] = {}
        self.hosts: frozenset[str] = frozenset()
        self._identity = identity
        self._cluster = cluster
        self._resolve = resolve
        self._learn = learn
        self._on_open = on_open
        self._on_link: list[OnLink] = []
        self._on_unlink: list[OnLink] = []
        self._random = randomness
        self._credentials = credentials
        self._observe = observe
        self._clock = clock
        self._accepts_before = accepts_before
        self._view = Links()
        self._links: dict[Endpoint, asyncio.Task[None]] = {}

    def watch(self, on_link: OnLink, on_unlink: OnLink) -> None:
        """Call `on_link` when a connection opens, and `on_unlink` when it ends; it may have been silent in between."""
        self._on_link.append(on_link)
        self._on_unlink.append(on_unlink)

    def peers(self) -> list[Link]:
        """Return every link but that to this process."""
        return self._view.peers()

    def connections(self) -> list[str]:
        """Return the state of every link but that to this process; that of its channel where there is one."""
        return [
            self.channels[link.id].state if link.state == "reachable" and link.id in self.channels else link.state
            for link in self._view.peers()
        ]

    async def run(self) -> None:
        """Discover and link for ever; cancellation ends all links."""
        try:
            while True:
                try:
                    discovered = await self._resolve()
                except OSError as error:
                    _log.debug("discovery: %s", error)
                else:
                    self._follow(*self._view.plan(discovered, self._learn()))
                await asyncio.sleep(DISCOVERY_SECONDS)
        finally:
            for link in self._links.values():
                link.cancel()

    def _follow(self, new: set[Endpoint], gone: set[Endpoint]) -> None:
        for endpoint in gone:
            self._links.pop(endpoint).cancel()
        for endpoint in new:
            self._links[endpoint] = asyncio.create_task(self._link(endpoint))
        self.hosts = frozenset(host for host, _ in self._links)

    async def _link(self, endpoint: Endpoint) -> None:
        backoff_seconds = BACKOFF_SECONDS_MIN
        while True:
            try:
                async with asyncio.timeout(DIAL_SECONDS_MAX):
                    other, channel = await open_channel(
                        *endpoint,
                        self._cluster,
                        self._identity,
                        self._credentials,
                        observe=self._observe,
                        clock=self._clock,
                        may_fall_back=self._accepts_before,
                    )
            except ServiceError as error:
                if self._view.update(endpoint, "refused"):
                    _log.error("%s:%d: %s", *endpoint, error)
            except OSError:
                self._view.update(endpoint, "unreachable")
            else:
                if self._is_self(other):
                    channel.close()
                    self._view.update(endpoint, "self", other.node_id)
                    return
                backoff_seconds = BACKOFF_SECONDS_MIN
                await self._hold(endpoint, channel)
            await asyncio.sleep(backoff_seconds * self._random.uniform(0.5, 1))
            backoff_seconds = min(backoff_seconds * 2, BACKOFF_SECONDS_MAX)

    def _is_self(self, other: Identity) -> bool:
        if other.node_id == self._identity.node_id and other.replica != self._identity.replica:
            _log.error("another replica calls itself %s; give each node its own id", other.node_id)
        return bool(self._identity.replica) and other.replica == self._identity.replica

    async def _hold(self, endpoint: Endpoint, channel: Channel) -> None:
        """Keep an authenticated channel in use until it ends, but for while it is silent."""
        node_id = channel.node_id
        self.linked[node_id] = channel
        for on_link in self._on_link:
            on_link(channel)
        try:
            while not channel.closed.is_set():
                if channel.is_silent:
                    _log.warning("node %s gives no sign of life", node_id)
                    await channel.wait_turned()
                else:
                    await self._offer(endpoint, channel)
        finally:
            channel.close()
            if self.linked.get(node_id) is channel:
                del self.linked[node_id]
            for on_unlink in self._on_unlink:
                on_unlink(channel)

    async def _offer(self, endpoint: Endpoint, channel: Channel) -> None:
        """Let a channel be used until it falls silent or ends."""
        self.channels[channel.node_id] = channel
        self._view.update(endpoint, "reachable", channel.node_id)
        user = asyncio.create_task(self._use(channel))
        try:
            await channel.wait_turned()
        finally:
            user.cancel()
            if self.channels.get(channel.node_id) is channel:
                del self.channels[channel.node_id]
            self._view.update(endpoint, "unreachable")

    async def _use(self, channel: Channel) -> None:
        try:
            await self._on_open(channel)
        except Exception:
            _log.exception("the exchange with %s failed; it starts again", channel.node_id)
            channel.close()


def resolve_fixed(peers: list[Endpoint]) -> Resolve:
    """Return a discovery that always finds `peers`."""

    async def resolve() -> set[Endpoint]:
        return set(peers)

    return resolve


def resolve_dns(host: str, port: int) -> Resolve:
    """Return a discovery that finds the A and AAAA records of `host`."""

    async def resolve() -> set[Endpoint]:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(UnicodeError):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return {(str(address[0]), port) for *_, address in found}
        return set()

    return resolve
