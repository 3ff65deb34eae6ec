"""The nodes of a cluster as an operator reaches them: who is there, who owns what, and what each holds."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from crdt_service.kernel.config import CrdtConfig, split_address
from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.slot import SLOTS, slot_of
from crdt_service.membership.link import Endpoint
from crdt_service.membership.placement import Placement
from crdt_service.membership.table import DEAD, Table
from crdt_service.net.channel import Channel
from crdt_service.net.operator import Operator
from crdt_service.replication.commits import PUSH_BYTES_MAX, group_deltas
from crdt_service.resolution.explanation import read_types
from crdt_service.resolution.sibling import TYPES_TAG
from crdt_service.wire.message import (
    CONFLICTS_MAX,
    BackupReply,
    BackupRequest,
    ConflictsReply,
    ConflictsRequest,
    Delta,
    RestoreReply,
    RestoreRequest,
    TableReply,
    TableRequest,
    WriteRequest,
)


@dataclass
class Reading:
    """What is being read of one node.

    Attributes:
        total: States that it held when the backup began.
        is_synced: Whether it held all of what it owns then, as far as it could know.
        started_at: What its clock said when the backup began, in seconds since 1970.
        dropped: Slots of which it had forgotten something unread when the backup began.
        dropped_at_end: The same when its last part was read.
    """

    node_id: str
    replica: str
    channel: Channel
    name: str
    total: int = 0
    is_synced: bool = False
    started_at: float = 0.0
    dropped: int = 0
    dropped_at_end: int = 0
    first: BackupReply | None = None

    async def begin(self) -> BackupReply:
        """Begin the backup, or begin it anew."""
        return await self._fetch(0)

    async def parts(self) -> AsyncIterator[list[Delta]]:
        """Yield all states, slot by slot, after they were begun with `first`."""
        reply, part = self.first, 0
        while reply is not None:
            self.dropped_at_end = reply.dropped
            yield reply.deltas
            if reply.is_last:
                return
            part += 1
            reply = await self._fetch(part)

    async def _fetch(self, part: int) -> BackupReply:
        return cast(BackupReply, await self.channel.request(partial(BackupRequest, backup=self.name, part=part)))


@dataclass
class Nodes:
    """Open channels to all nodes that answer.

    Attributes:
        channels: By node id.
        replicas: The id of each one's volume.
        missed: Nodes that do not answer, by id, or by address if nobody knows them.
        placement: Who owns what.
        is_clustered: Whether they replicate at all.
    """

    channels: dict[str, Channel]
    replicas: dict[str, str]
    missed: list[str]
    placement: Placement
    is_clustered: bool

    def check_covered(self, node_ids: Sequence[str]) -> None:
        """Refuse to go on with these nodes alone if all owners of some slot are others.

        Raises:
            ServiceError: They are; it names those that are missed.
        """
        given = set(node_ids)
        lacking = sum(given.isdisjoint(self.placement.owners(slot)) for slot in range(SLOTS))
        if not self.is_clustered and self.missed:
            lacking = SLOTS  # Nobody else has what is on them.
        if lacking or not given:
            others = sorted({*self.missed, *(self.channels.keys() - given)})
            raise ServiceError(
                "incomplete",
                f"{lacking or SLOTS} of {SLOTS} slots have no owner that answers and holds them;"
                f" without them are {', '.join(others) or 'no nodes'}",
                "have the nodes run, then try again",
            )

    async def read(self, name: str) -> list[Reading]:
        """Begin a backup of that name on every node, and return what is to be read of each.

        All begin twice: what a node hands over between its own beginning and another's would be in neither, so in the
        first round each keeps what it is about to hand over. `check_unmoved` tells whether one lost some even so.

        Raises:
            ServiceError: One refuses, or cannot be reached any more.
        """
        readings = [
            Reading(node_id, self.replicas[node_id], channel, name) for node_id, channel in self.channels.items()
        ]
        for reading, reply in zip(readings, await asyncio.gather(*(each.begin() for each in readings)), strict=True):
            reading.dropped = reply.dropped
        for reading, reply in zip(readings, await asyncio.gather(*(each.begin() for each in readings)), strict=True):
            reading.first = reply
            reading.total = reply.total
            reading.is_synced = reply.is_synced
            reading.started_at = reply.started_at
        return readings

    async def restore(self, states: Sequence[Delta]) -> int:
        """Have all owners that answer join the states; return how many were refused, the most by any of them.

        Raises:
            ServiceError: One refuses, or cannot be reached any more.
        """
        refused = await asyncio.gather(
            *(self._restore_into(node_id, self._owned_by(node_id, states)) for node_id in self.channels)
        )
        return max(refused)

    async def find_collisions(self) -> dict[str, list[str]]:
        """Return the keys that hold several types, each with those: the one that readers see, and the others.

        Raises:
            ServiceError: A node refuses, or cannot be reached any more.
        """
        found = await asyncio.gather(*(_list_collisions(channel) for channel in self.channels.values()))
        collisions: dict[str, list[str]] = {}
        for types in found:
            for key, names in types.items():
                collisions[key] = max(names, collisions.get(key, []), key=len)
        return collisions

    async def write(self, key: str, type_name: str, op: bytes) -> None:
        """Apply an operation to a key, on the first of its owners that takes it.

        Raises:
            ServiceError: None does.
        """
        owners = self.placement.owners(slot_of(key)) if self.is_clustered else sorted(self.channels)
        error = ServiceError("incomplete", f"no owner of {key} answers", "have the nodes run, then try again")
        for node_id in owners:
            if node_id not in self.channels:
                continue
            try:
                await self.channels[node_id].request(partial(WriteRequest, key=key, type_name=type_name, op=op))
            except ServiceError as refusal:
                error = refusal
            else:
                return
        raise error

    def _owned_by(self, node_id: str, states: Sequence[Delta]) -> list[Delta]:
        if not self.is_clustered:
            return list(states)
        return [delta for delta in states if node_id in self.placement.owners(slot_of(delta.key))]

    async def _restore_into(self, node_id: str, states: list[Delta]) -> int:
        refused = 0
        for group in group_deltas(states, PUSH_BYTES_MAX):
            reply = await self.channels[node_id].request(partial(RestoreRequest, deltas=group))
            refused += cast(RestoreReply, reply).refused
        return refused


async def _list_collisions(channel: Channel) -> dict[str, list[str]]:
    collisions: dict[str, list[str]] = {}
    after: tuple[str, tuple[str, ...], int] | None = None
    while True:
        request = partial(ConflictsRequest, prefix="", after=after, limit=CONFLICTS_MAX)
        reply = cast(ConflictsReply, await channel.request(request))
        for conflict in reply.conflicts:
            after = (conflict.key, conflict.path, conflict.tag)
            if conflict.tag == TYPES_TAG:
                collisions[conflict.key] = read_types(conflict.resolution)
        if not reply.more:
            return collisions


def check_unmoved(readings: Sequence[Reading]) -> None:
    """Refuse what was read while a node handed slots over: their keys may have been on neither node when it was read.

    Raises:
        ServiceError: One did.
    """
    moving = [reading.node_id for reading in readings if reading.dropped != reading.dropped_at_end]
    if moving:
        raise ServiceError(
            "backup_outrun",
            f"{', '.join(moving)} handed slots over before they were read",
            "take it again; it succeeds once nodes have stopped coming and going",
        )


@contextlib.asynccontextmanager
async def connect(operator: Operator, peers: Sequence[Endpoint], config: CrdtConfig) -> AsyncIterator[Nodes]:
    """Open channels to these nodes and to all others that they know; end them whatever happens."""
    async with contextlib.AsyncExitStack() as stack:
        found: dict[str, tuple[Channel, str]] = {}

        async def dial(address: Endpoint) -> bool:
            try:
                channel, identity = await stack.enter_async_context(operator.connect(address))
            except ServiceError:
                return False
            found.setdefault(identity.node_id, (channel, identity.replica))
            return True

        unheard = [f"{host}:{port}" for host, port in peers if not await dial((host, port))]
        table = Table()
        for channel, _ in list(found.values()):
            reply = cast(TableReply, await channel.request(partial(TableRequest, updates=[])))
            for update in reply.updates:
                table.merge(update, time.monotonic())
        members = table.placement_members(time.monotonic())
        missed = []
        for node_id, update in sorted(table.updates.items()):
            if node_id in found or (node_id not in members and update.liveness >= DEAD):
                continue
            if not update.address or not await dial(split_address(update.address, f"address of {node_id}")):
                missed.append(node_id)
        if not config.cluster_enabled:
            members = dict.fromkeys(found, "")
        yield Nodes(
            channels={node_id: channel for node_id, (channel, _) in found.items()},
            replicas={node_id: replica for node_id, (_, replica) in found.items()},
            missed=missed if found and config.cluster_enabled else unheard,
            placement=Placement(members, config.replication_factor if config.cluster_enabled else 1),
            is_clustered=config.cluster_enabled,
        )
