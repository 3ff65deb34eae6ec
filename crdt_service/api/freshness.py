"""Keeps what was seen of keys through this backend, and has owners catch up with it."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import cast

from crdt_service.api.owners import Owners
from crdt_service.api.session import Seen, Session, covers, holds
from crdt_service.kernel.error import OutcomeUnknownError, ServiceError
from crdt_service.replication.port import Channel
from crdt_service.wire.message import Concern, ReadRequest, ValueReply

# For having a node take over from others what was seen of a key.
CATCH_UP_SECONDS_MAX = 0.6


class Freshness:
    """What was seen of keys, and who holds it.

    Args:
        owners: Whose words count.
    """

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._session = Session()

    def look(self, key: str) -> Seen | None:
        """Return what was seen of a key so far, None for nothing."""
        return self._session.look(key)

    def counts(self, seen: Seen | None, channel: Channel, reply: ValueReply) -> bool:
        """Tell whether an owner's answer to a read counts: it knows of the key, and shows no less than was seen.

        Of a key that was never seen, it is no answer that an owner never heard of it: a write may be on its way.
        """
        return (is_known(reply) or seen is not None) and covers(seen, channel.replica, reply.digest)

    def note_read(self, key: str, seen: Seen | None, channel: Channel, reply: ValueReply) -> None:
        """Take in an answer to a read that counts, or that has to do; `seen` is what was when it was asked."""
        self._session.note(key, seen, channel.replica, reply.digest, is_whole=True)

    def note_write(self, key: str, seen: Seen | None, channel: Channel, reply: ValueReply) -> None:
        """Take in that a node has acknowledged a write; of who is no owner it is soon read no more."""
        if self._is_owner(channel, key):
            self._session.note(key, seen, channel.replica, reply.digest, is_whole=holds(seen, channel.replica))

    async def catch_up(self, channel: Channel, key: str) -> Seen | None:
        """Have an owner hold what was seen of a key before it is asked to change or show it, if it can be.

        It is compared first, then the owner takes over what all others hold; where nobody that is connected holds what
        was seen, it takes over what a majority of them does, and that has to do.

        Returns:
            What was seen of the key, which the owner holds unless those that do are away.
        """
        seen = self._session.look(key)
        if holds(seen, channel.replica) or not self._is_owner(channel, key):
            return seen
        concerns = [Concern.ONE, Concern.ALL]
        if not any(holds(seen, each.replica) for each in self._owners.connected(key)):
            concerns.append(Concern.MAJORITY)
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS_MAX):
                for concern in concerns:
                    try:
                        request = partial(ReadRequest, key=key, concern=concern)
                        reply = cast(ValueReply, await channel.request(request))
                    except OutcomeUnknownError:
                        break
                    except ServiceError:
                        continue
                    if concern is not Concern.ONE or covers(seen, channel.replica, reply.digest):
                        self.note_read(key, seen, channel, reply)
                        break
        except TimeoutError:
            pass  # It is asked all the same.
        return self._session.look(key)

    async def catch_up_all(self, channel: Channel, keys: Sequence[str]) -> dict[str, Seen | None]:
        """Return as `catch_up` for each of the keys."""
        seen = {key: self._session.look(key) for key in keys}
        behind = [key for key in seen if not holds(seen[key], channel.replica)]
        caught_up = await asyncio.gather(*(self.catch_up(channel, key) for key in behind))
        return seen | dict(zip(behind, caught_up, strict=True))

    def _is_owner(self, channel: Channel, key: str) -> bool:
        owners = self._owners.of(key)
        return not owners or channel.node_id in owners


def is_known(reply: ValueReply) -> bool:
    """Tell whether a node that answers so knows of the key: it holds something, or knows that it was emptied."""
    return bool(reply.type_name or reply.digest)


def is_better_asked(others: Sequence[Channel], seen: Seen | None, channel: Channel) -> bool:
    """Tell whether this node lacks what was seen of a key, and one of `others` is known to hold it."""
    return not holds(seen, channel.replica) and any(holds(seen, other.replica) for other in others)
