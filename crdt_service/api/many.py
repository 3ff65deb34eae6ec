"""Batches on their way: writes in groups by the node that takes them, and tokens that name each of them."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from crdt_service.kernel.error import OutcomeUnknownError, ServiceError
from crdt_service.replication.port import Channel
from crdt_service.wire.message import DIGEST_BYTES, TOKEN_NAME_BYTES, FailureReply, Token, ValueReply, WriteItem

Answer = tuple[str, ValueReply]
Outcome = Answer | ServiceError
# Takes so many bytes for the answer of what the caller may hold; raises ServiceError if that is more.
Hold = Callable[[int], None]
Send = Callable[[Channel, list[int]], Awaitable[Sequence[ValueReply | FailureReply]]]
T = TypeVar("T")
# Of all values in one answer: 256 large ones must not fill the memory.
VALUES_BYTES_MAX = 16 << 20
_TOO_LARGE = ServiceError("value_too_large", "the values before it fill the answer", "read the key alone")


class Allowance:
    """What one answer has room for; a value that has none is let go as it arrives.

    Args:
        hold: What is held for all answers counts here.

    Attributes:
        left: Bytes of values for which there is room.
        largest: Size of the largest value that came.
    """

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self.left = VALUES_BYTES_MAX
        self.largest = 0

    def check(self, reply: ValueReply) -> ServiceError | None:
        """Take room for a reply's value; return why there is none."""
        size = len(reply.value) + len(reply.conflict)
        self.largest = max(self.largest, size)
        if size > self.left:
            return _TOO_LARGE
        try:
            self._hold(size)
        except ServiceError as error:
            return error
        self.left -= size
        return None

    def strip(self, reply: ValueReply) -> ValueReply:
        """Return the reply to a write that is done, without the value if there is no room for it."""
        return reply if self.check(reply) is None else replace(reply, value=b"", conflict=b"")


async def spread(
    routes: Sequence[Sequence[Channel]],
    send: Send,
    *,
    elsewhere: set[str],
    last: ServiceError,
    may_repeat: Callable[[int], bool],
    seconds_max: float,
) -> list[Outcome]:
    """Return what became of each item, in order; several go in one request to the node that is first for all of them.

    An item goes to the next node of its route only if the one before surely did not apply it, or if it may be applied
    twice: if then no node takes it, its outcome is unknown.

    Args:
        routes: For each item the nodes to try.
        send: Sends the items at these places, in their order, and returns the result of each.
        elsewhere: Codes of refusals that say more about a node than about an item.
        last: What becomes of an item without a route.
        may_repeat: Tells whether the item at a place may be applied twice.
        seconds_max: No further node is tried after so long.
    """
    outcomes: list[Outcome] = [last] * len(routes)
    lost: dict[int, ServiceError] = {}
    waiting = list(range(len(routes)))
    until = time.monotonic() + seconds_max
    for turn in range(max(map(len, routes), default=0)):
        if turn and time.monotonic() >= until:
            break
        groups: dict[str, tuple[Channel, list[int]]] = {}
        for place in waiting:
            if turn < len(routes[place]):
                channel = routes[place][turn]
                groups.setdefault(channel.node_id, (channel, []))[1].append(place)
        answers = await asyncio.gather(*(_send(channel, places, send) for channel, places in groups.values()))
        waiting = []
        for (channel, places), results in zip(groups.values(), answers, strict=True):
            for place, result in zip(places, results, strict=True):
                if isinstance(result, ValueReply):
                    outcomes[place] = (channel.node_id, result)
                    continue
                if isinstance(result, OutcomeUnknownError) and may_repeat(place):
                    lost.setdefault(place, result)
                outcomes[place] = lost.get(place, result)
                if place in lost or result.code in elsewhere:
                    waiting.append(place)
        waiting.sort()
    return outcomes


def name_items(items: Sequence[WriteItem], idempotency_key: str) -> list[WriteItem]:
    """Return the items with tokens: sent again under the same idempotency key, none of them has a second effect.

    A token counts for its key of the store, so each item is told from others by how many of its key stand before it;
    the fingerprint is that of all items together.
    """
    fingerprint = hashlib.blake2b(msgspec.msgpack.encode(items), digest_size=DIGEST_BYTES).digest()
    counts: dict[str, int] = {}
    named: list[WriteItem] = []
    for item in items:
        count = counts[item.key] = counts.get(item.key, -1) + 1
        name = hashlib.blake2b(b"%d " % count + idempotency_key.encode(), digest_size=TOKEN_NAME_BYTES).digest()
        named.append(replace(item, token=Token(name, fingerprint)))
    return named


async def _send(channel: Channel, places: list[int], send: Send) -> list[ValueReply | ServiceError]:
    try:
        results = await send(channel, places)
    except ServiceError as error:
        return [error] * len(places)
    if len(results) != len(places):
        return [OutcomeUnknownError(channel.node_id)] * len(places)
    return [
        result if isinstance(result, ValueReply) else ServiceError(result.code, result.message, result.remedy)
        for result in results
    ]
