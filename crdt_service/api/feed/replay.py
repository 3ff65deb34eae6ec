"""What one client missed that the ring no longer has, or never had, asked of the nodes for this client alone."""

import asyncio
from collections.abc import AsyncGenerator, Mapping

from crdt_service.api.feed.cursor import Place, Places, write_cursor
from crdt_service.api.feed.event import encode_event
from crdt_service.api.feed.hub import ask_changes
from crdt_service.api.feed.merge import Changed, Merge, Reset
from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.ident import is_reserved
from crdt_service.replication.port import Channel
from crdt_service.wire.message import ChangesReply

# Raising it lets clients that come back at once wait less, and everybody else's requests wait for longer.
REPLAYS_MAX = 8
# Changes asked for at once: what is sent to a client before it has to read.
PAGE_CHANGES = 256
# Of so many keys a client is not told the same twice.
_KEYS_MAX = 4096


async def replay(
    channels: Mapping[str, Channel],
    free: asyncio.Semaphore,
    prefix: str,
    places: Places,
    target: Places,
    *,
    known: Merge,
) -> AsyncGenerator[bytes, None]:
    """Yield pieces of events that lead a client from `places` to `target`, or further.

    Where the hub has told something of a key, the client is told that: what a node that lags says would stay its last
    word, as the hub does not tell again what it has told.

    Args:
        channels: Open channels by node id.
        free: Limits how many nodes are asked at once, for all clients.
        prefix: Of the keys that concern the client.
        places: Where it is.
        target: Where it is to be.
        known: What the hub has told.
    """
    merge = Merge({node_id: places[node_id] for node_id in target if node_id in places}, _KEYS_MAX, known.owners)
    for node_id, aim in target.items():
        while not _is_reached(merge.places.get(node_id), aim):
            async with free:
                reply = await _ask(channels, node_id, merge.places.get(node_id))
            parts = []
            if reply is None:
                merge.places[node_id] = aim
                parts.append(encode_event(Reset(node_id, "node_unreachable"), write_cursor(merge.places)))
            else:
                for event in merge.take(node_id, reply):
                    if isinstance(event, Reset):
                        parts.append(encode_event(event, write_cursor(merge.places)))
                    elif _concerns(event, prefix):
                        told = known.last(event.change.key) or event
                        parts.append(encode_event(told, write_cursor(merge.places)))
            if parts:
                yield b"".join(parts)
            if reply is not None and reply.epoch != aim.epoch:
                break  # It has started again, and the hub will learn of it.


def _concerns(event: Changed, prefix: str) -> bool:
    return event.change.key.startswith(prefix) and not is_reserved(event.change.key)


async def _ask(channels: Mapping[str, Channel], node_id: str, place: Place | None) -> ChangesReply | None:
    channel = channels.get(node_id)
    if channel is None:
        return None
    try:
        return await ask_changes(channel, place or (0, 0), PAGE_CHANGES, 0)
    except ServiceError:
        return None


def _is_reached(place: Place | None, aim: Place) -> bool:
    return place is not None and place.epoch == aim.epoch and place.number >= aim.number
