"""Asks owners of a key, one after the other, until one answers that shows no less than was seen of it."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import cast

from crdt_service.api.freshness import Freshness, is_better_asked, is_known
from crdt_service.api.hedge import HedgeBudget, hedge
from crdt_service.api.many import Answer
from crdt_service.api.owners import Owners
from crdt_service.api.proximity import Kind, Proximity
from crdt_service.api.session import Seen, holds
from crdt_service.kernel.error import OutcomeUnknownError, ServiceError, UnreachableError
from crdt_service.replication.port import Channel
from crdt_service.wire.message import Reply, Request, ValueReply

# Refusals that say more about the node than about the write.
ELSEWHERE = {
    "storage_full",
    "overloaded",
    "stopping",
    "node_unreachable",
    "too_few_owners",
    "too_many_origins",
    "syncing",
    "behind",
    "fenced",
}
# What counts as the time of a node that was overtaken, which may never answer: two or three have it passed over, where
# the little that it was waited for would not.
OVERTAKEN_SECONDS = 0.25
NO_NODE = ServiceError("no_node", "no node is reachable", "check the nodes; /v1/cluster lists them")

Build = Callable[[int], Request]


class Reader:
    """Asks.

    Args:
        owners: Whom to ask.
        freshness: What was seen of keys.
        proximity: Learns how long nodes take.
    """

    def __init__(self, owners: Owners, freshness: Freshness, proximity: Proximity) -> None:
        self._owners = owners
        self._freshness = freshness
        self._proximity = proximity
        self._hedges = HedgeBudget()

    async def read(self, key: str, build: Build, kind: Kind, seconds_max: float, *, is_hedged: bool = False) -> Answer:
        """Return (node id, its reply) of the first owner whose answer counts, or of another node that has the key.

        Raises:
            ServiceError: None does, or a node refuses.
        """
        last: ServiceError = NO_NODE
        missing: Answer | None = None
        behind: list[Channel] = []
        seen = self._freshness.look(key)
        owners = self._owners.of(key)
        channels = self._owners.choose(key, None, kind, seen)
        until = asyncio.get_running_loop().time() + seconds_max
        for number, channel in enumerate(channels):
            is_owner = not owners or channel.node_id in owners
            is_late = number > 0 and asyncio.get_running_loop().time() >= until
            if ((missing or behind) and not is_owner) or (is_late and not (seen and holds(seen, channel.replica))):
                break
            next_owner = next((each for each in channels[number + 1 : number + 2] if each.node_id in owners), None)
            try:
                asked = self._hedge(channel, next_owner if is_hedged else None, build, kind, seen)
                taker, reply = await asked
            except ServiceError as error:
                last = refusal(error, channel.node_id, is_change=False)
                if last.code not in ELSEWHERE:
                    raise last from error
                continue
            if is_owner and self._freshness.counts(seen, taker, reply):
                self._freshness.note_read(key, seen, taker, reply)
                return taker.node_id, reply
            if not is_owner:
                if reply.type_name:
                    return taker.node_id, reply
                last = UnreachableError(owners[0])
            elif is_known(reply) or seen is not None:
                behind.append(channel)
            else:
                missing = missing or (channel.node_id, reply)
        if behind:
            return await self._read_behind(key, behind, build)
        if missing is not None:
            return missing
        raise last

    async def empty(self, key: str, build: Build, seconds_max: float) -> Answer:
        """Return (node id, its reply) of the first node that had something of a key and has emptied it.

        No answer but such a one hides one that is lost.

        Raises:
            OutcomeUnknownError: A node got it and its answer is lost.
            ServiceError: A node refuses, or none answers.
        """
        last: ServiceError = NO_NODE
        lost: OutcomeUnknownError | None = None
        missing: Answer | None = None
        owners = self._owners.of(key)
        until = asyncio.get_running_loop().time() + seconds_max
        channels = self._owners.choose(key, None, "read", self._freshness.look(key))
        for number, channel in enumerate(channels):
            is_owner = not owners or channel.node_id in owners
            if (missing and not is_owner) or (number and asyncio.get_running_loop().time() >= until):
                break
            try:
                seen = await self._freshness.catch_up(channel, key)
                if is_better_asked(channels[number + 1 :], seen, channel):
                    channels.append(channel)
                    continue
                reply = cast(ValueReply, await channel.request(build))
            except ServiceError as error:
                # It may be asked of the next whatever became of it here.
                lost = error if isinstance(error, OutcomeUnknownError) else lost
                last = refusal(error, channel.node_id, is_change=True)
                if last.code not in ELSEWHERE:
                    raise last from error
                continue
            if reply.type_name:
                self._freshness.note_write(key, seen, channel, reply)
                return channel.node_id, reply
            if not is_owner:
                last = UnreachableError(owners[0])
                continue
            missing = missing or (channel.node_id, reply)
            if seen is not None and holds(seen, channel.replica):
                break
        if missing and not lost:
            return missing
        raise lost or last

    async def timed(self, channel: Channel, build: Build, kind: Kind) -> Reply:
        """Return the reply, and take in how long it took; a node that does not answer took that long, too.

        Raises:
            ServiceError: As the channel's request.
        """
        started = asyncio.get_running_loop().time()
        try:
            return await channel.request(build)
        finally:
            now = asyncio.get_running_loop().time()
            self._proximity.observe(kind, channel.node_id, now - started, now)

    async def _read_behind(self, key: str, behind: list[Channel], build: Build) -> Answer:
        """Return the answer of an owner once it holds what others hold, as far as they answer it.

        None is known to hold what was seen, or who does is away: from now on what the others hold counts.

        Raises:
            ServiceError: None of them answers any more.
        """
        last: ServiceError = NO_NODE
        for channel in behind:
            seen = await self._freshness.catch_up(channel, key)
            if not holds(seen, channel.replica):  # Others were asked meanwhile, too, and one of them may hold all now.
                holders = (each for each in self._owners.connected(key) if holds(seen, each.replica))
                channel = next(holders, channel)  # noqa: PLW2901
            try:
                reply = cast(ValueReply, await channel.request(build))
            except ServiceError as error:
                last = refusal(error, channel.node_id, is_change=False)
                continue
            self._freshness.note_read(key, seen, channel, reply)
            return channel.node_id, reply
        raise last

    async def _hedge(
        self, first: Channel, second: Channel | None, build: Build, kind: Kind, seen: Seen | None
    ) -> tuple[Channel, ValueReply]:
        """Return the first one's answer, or that of the second if the first is late and the second one's counts."""
        if second is None:
            return first, cast(ValueReply, await first.request(build))

        async def ask(channel: Channel) -> tuple[Channel, ValueReply]:
            return channel, cast(ValueReply, await self.timed(channel, build, kind))

        taker, reply = await hedge(
            partial(ask, first),
            partial(ask, second),
            self._proximity.late_after(kind, first.node_id),
            self._hedges,
            lambda answer: self._freshness.counts(seen, *answer),
        )
        if taker is second:
            self._proximity.observe(kind, first.node_id, OVERTAKEN_SECONDS, asyncio.get_running_loop().time())
        return taker, reply


def refusal(error: ServiceError, node_id: str, *, is_change: bool) -> ServiceError:
    """Return what the failure of one node means for what is asked of one after the other."""
    if isinstance(error, OutcomeUnknownError):
        return UnreachableError(node_id)
    if error.code == "concern_not_met" and not is_change:  # The release before says so of reads.
        return ServiceError("too_few_owners", error.message, error.remedy)
    return error
