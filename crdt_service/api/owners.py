"""Which nodes are asked of a key, and in which order."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from crdt_service.api.proximity import Kind, Proximity
from crdt_service.api.session import Seen, holds
from crdt_service.kernel.error import ServiceError, UnreachableError
from crdt_service.kernel.slot import slot_of
from crdt_service.membership.link import Link
from crdt_service.membership.ownership import Ownership
from crdt_service.membership.table import Member
from crdt_service.replication.port import Channel

# A route found is used for so long. Raising it costs less, and asks closed channels and slow nodes for longer, in vain.
_ROUTES_SECONDS = 0.1


class Directory(Protocol):
    """Open channels by node id, and all links."""

    @property
    def channels(self) -> Mapping[str, Channel]:
        """Channels by node id."""
        ...

    def peers(self) -> list[Link]:
        """Return every link."""
        ...


class Cluster(Protocol):
    """Who is in the cluster, and who owns which slot; both may be empty at first."""

    @property
    def placement(self) -> Ownership:
        """The owners of every slot."""
        ...

    def uncopied(self) -> dict[str, int]:
        """Return how many slots each next owner has to copy still, by node id."""
        ...

    def members(self) -> list[Member]:
        """Return every member, tombstones included."""
        ...


class _Route(NamedTuple):
    """Attributes: `near` are the reachable owners, the first `quick` of them well; then come all `others`."""

    near: list[Channel]
    quick: int
    others: list[Channel]


class Owners:
    """Orders the owners of keys.

    Args:
        directory: Channels to nodes.
        cluster: Members and placement.
        proximity: Which of the nodes are near, and which are slow.
        is_clustered: Whether nodes hand over what they do not own; else only owners are asked.
    """

    def __init__(
        self, directory: Directory, cluster: Cluster, proximity: Proximity, *, is_clustered: bool = True
    ) -> None:
        self._directory = directory
        self._cluster = cluster
        self._proximity = proximity
        self._is_clustered = is_clustered
        self._routes: dict[tuple[Kind, tuple[str, ...], int], _Route] = {}
        self._routes_until = 0.0
        self._routes_of = 0

    def of(self, key: str) -> tuple[str, ...]:
        """Return the node ids of a key's owners, the preferred one first."""
        return self._cluster.placement.owners(slot_of(key))

    def connected(self, key: str) -> list[Channel]:
        """Return the channels to a key's owners, as far as there are any."""
        channels = self._directory.channels
        return [channels[name] for name in self.of(key) if name in channels]

    def choose(self, key: str, node_id: str | None, kind: Kind, seen: Seen | None = None) -> list[Channel]:
        """Return the channels to try: to the pinned node, or to the owners and then to all others.

        Who holds what was seen of the key goes first, unless it is slow or cut off from the other owners.

        Raises:
            UnreachableError: The pinned node is not connected.
        """
        if node_id is not None:
            channel = self._directory.channels.get(node_id)
            if channel is None:
                raise UnreachableError(node_id)
            return [channel]
        near, quick, others = self._find(key, kind)
        if seen is not None:
            near = [
                channel
                for part in (near[:quick], near[quick:])
                for channel in sorted(part, key=lambda channel: not holds(seen, channel.replica))
            ]
        return [*near, *others]

    def decider(self, key: str, node_id: str | None = None) -> Channel:
        """Return the channel to the node that decides on conditional writes of a key: its first owner by placement.

        Neither how long it takes nor who asks makes another of it.

        Raises:
            ServiceError: It is not connected or not known yet, or another node is pinned.
        """
        owners = self.of(key)
        if not owners:
            raise ServiceError("no_node", "the owners of the key are not known yet", "retry")
        if node_id is not None and node_id != owners[0]:
            raise ServiceError(
                "invalid_query",
                f"conditional writes of this key are decided by {owners[0]}, not by {node_id}",
                "leave `node` out",
            )
        channel = self._directory.channels.get(owners[0])
        if channel is None:
            raise ServiceError(
                "node_unreachable",
                f"node {owners[0]}, which decides on conditional writes of the key, is not reachable; nothing was done",
                "retry once it is back, or write without a condition",
            )
        return channel

    def _find(self, key: str, kind: Kind) -> _Route:
        channels = self._directory.channels
        now = asyncio.get_running_loop().time()
        if now >= self._routes_until or len(channels) != self._routes_of:
            self._routes.clear()
            self._routes_until, self._routes_of = now + _ROUTES_SECONDS, len(channels)
        owners = self.of(key)
        # So that the keys of lost owners are spread.
        turn = slot_of(key) % len(channels) if len(channels) > len(owners) else 0
        route = self._routes.get((kind, owners, turn))
        if route is None:
            route = self._routes[kind, owners, turn] = self._order(owners, turn, kind, now)
        return route

    def _order(self, owners: Sequence[str], turn: int, kind: Kind, now: float) -> _Route:
        channels = self._directory.channels
        reachable = [name for name in owners if name in channels]
        near = self._proximity.order(kind, reachable, self._cluster.placement.members, now)
        cut_off = {name for name in near if _is_cut_off(owners, channels[name].unreachable)}
        near.sort(key=cut_off.__contains__)
        passed = cut_off | self._proximity.slow(kind, reachable, now)
        quick = next((number for number, name in enumerate(near) if name in passed), len(near))
        others = sorted(set(channels).difference(near)) if self._is_clustered or not owners else []
        first = turn % max(1, len(others))
        return _Route(
            [channels[name] for name in near],
            quick,
            [channels[name] for name in (*others[first:], *others[:first])],
        )


def _is_cut_off(owners: Sequence[str], unreachable: frozenset[str]) -> bool:
    """Tell whether who cannot reach these nodes lacks a majority of the owners."""
    return len(unreachable.intersection(owners)) * 2 >= len(owners) if unreachable else False
