"""What owners that differ hold of the keys of a listing together."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

from crdt_service.kernel.error import ServiceError
from crdt_service.replication.listing import Merged
from crdt_service.replication.port import Channel
from crdt_service.resolution.explanation import read_other_types
from crdt_service.wire.message import Concern, ListedKey, ReadRequest, ValueReply

# Raising it settles a page of many doubts sooner, and lets it take more of the nodes' time from other requests.
AT_ONCE_MAX = 16


class Settled(NamedTuple):
    """What became of doubts.

    Attributes:
        listed: Keys as their owners hold them together; one of which nothing could be read in time is left out.
        complete: Keys of which all owners told.
        unjoined: Nodes whose words could not all be taken in.
    """

    listed: dict[str, Merged]
    complete: set[str]
    unjoined: set[str]


async def settle(channels: Mapping[str, Channel], doubts: Sequence[Merged], seconds_max: float) -> Settled:
    """Ask the owners of keys in doubt together.

    A majority is not enough where all owners answer: what a single owner holds may have been told to others. It is
    what remains where too few owners can be reached from the node that answers for the key.

    Args:
        channels: Open channels by node id.
        doubts: Keys of which owners contradict the node that answers for it.
        seconds_max: For all of them together.
    """
    settled: dict[str, Merged] = {}
    complete: set[str] = set()
    left = iter(doubts)

    async def settle_left() -> None:
        for doubt in left:
            key = doubt.listed.key
            for concern in (Concern.ALL, Concern.MAJORITY):
                found = await _read(channels.get(doubt.node_id), key, concern)
                if found is not None:
                    settled[key] = settle_by(doubt, found)
                    if concern is Concern.ALL:
                        complete.add(key)
                    break

    try:
        async with asyncio.timeout(seconds_max), asyncio.TaskGroup() as reading:
            for _ in doubts[:AT_ONCE_MAX]:
                reading.create_task(settle_left())
    except TimeoutError:
        pass  # Who is left is named.
    unjoined = {other for doubt in doubts if doubt.listed.key not in complete for other in doubt.others}
    return Settled(settled, complete, unjoined)


def settle_by(doubt: Merged, reply: ValueReply) -> Merged:
    """Return a key of a listing as an answer to a read shows it; one that is missing has an empty type."""
    return doubt._replace(
        listed=ListedKey(doubt.listed.key, reply.type_name, reply.digest), other_types=read_other_types(reply.conflict)
    )


async def _read(channel: Channel | None, key: str, concern: Concern) -> ValueReply | None:
    """Return what a key is as so many owners and the node hold it; None if that cannot be known."""
    if channel is None:
        return None
    try:
        return cast(ValueReply, await channel.request(partial(ReadRequest, key=key, concern=concern)))
    except ServiceError:
        return None
