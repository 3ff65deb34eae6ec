"""Performs membership's effects over channels: a node gossips, a backend follows what nodes say."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

from crdt_service.kernel.config import split_address
from crdt_service.kernel.error import ServiceError, UnreachableError
from crdt_service.membership.document import check_document
from crdt_service.membership.link import Endpoint
from crdt_service.membership.ownership import follow_document, follow_members
from crdt_service.membership.swim import PING_SECONDS_MAX, Effect, Ping, PingVia, Swim
from crdt_service.membership.table import DEAD, Member, Table, check_updates
from crdt_service.replication.copying import decode_bits
from crdt_service.replication.port import Channel
from crdt_service.wire.message import (
    PROTOCOL,
    IndirectPingReply,
    IndirectPingRequest,
    MembershipReply,
    MembershipRequest,
    MemberUpdate,
    PingReply,
    PingRequest,
    PlacementDocument,
    PlacementReply,
    PlacementRequest,
    PlacementWord,
    Reply,
    Request,
    TableReply,
    TableRequest,
)

# Raising it lets more messages wait for slow peers at once; those beyond it are not sent, as if the network lost them.
TASKS_MAX = 256
# Raising it lets a backend route by an older table for longer.
FOLLOW_SECONDS = 2.0

OnPlacement = Callable[[], None]
_log = logging.getLogger(__name__)


class Gossip:
    """Drives the membership of one node.

    Args:
        swim: Who is in the cluster.
        channels: Open channels by node id, as they come and go.
        monotonic: The clock in seconds that `swim` was made with.
    """

    def __init__(self, swim: Swim, channels: Mapping[str, Channel], monotonic: Callable[[], float]) -> None:
        self._swim = swim
        self._channels = channels
        self._monotonic = monotonic
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._epoch = swim.epoch
        self._subscribers: list[OnPlacement] = []

    def subscribe(self, on_placement: OnPlacement) -> None:
        """Call `on_placement` after each change of `Swim.placement_members`."""
        self._subscribers.append(on_placement)

    def endpoints(self) -> dict[str, Endpoint]:
        """Return where other members listen, by node id."""
        return {node_id: split_address(address, "address") for node_id, address in self._swim.addresses().items()}

    async def run(self) -> None:
        """Do what time brings, for ever; cancellation ends messages under way."""
        try:
            while True:
                self._wake.clear()
                delay_seconds = max(0.0, self._swim.wake_at() - self._monotonic())
                try:
                    async with asyncio.timeout(delay_seconds if delay_seconds < float("inf") else None):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                if self._swim.wake_at() <= self._monotonic():
                    self._settle(self._swim.tick(self._monotonic()))
        finally:
            for task in self._tasks:
                task.cancel()

    def opened(self, channel: Channel) -> None:
        """Note that a channel to a node opened."""
        self._settle(self._swim.opened(channel.node_id))

    def closed(self, channel: Channel) -> None:
        """Note that a channel to a node closed."""
        self._swim.closed(channel.node_id, self._monotonic())
        self._settle([])

    async def leave(self) -> None:
        """Tell that this node leaves, and wait until some members have heard it."""
        await self._announce(self._swim.leave(self._monotonic()))

    async def depart(self) -> None:
        """Tell that this node has left, and wait until some members have heard it."""
        await self._announce(self._swim.depart(self._monotonic()))

    async def answer(self, sender: str, request: MembershipRequest) -> MembershipReply:
        """Return the reply to a request; `sender` is a node's id, or empty for a backend, which only asks.

        Raises:
            ServiceError: It was refused and changed nothing.
        """
        if isinstance(request, TableRequest) and (sender or not request.updates):
            self._learn(request.updates)
            return TableReply(request.id, self._swim.export(self._monotonic()))
        if not sender:
            raise ServiceError("wrong_role", "a backend is no member", "connect as a node")
        if isinstance(request, PingRequest):
            check_updates(request.gossip.updates)
            self._settle(self._swim.receive(sender, request.gossip, self._monotonic()))
            return PingReply(request.id, self._swim.gossip(sender, self._monotonic()))
        target = cast(IndirectPingRequest, request).target
        return IndirectPingReply(request.id, await self._ping(target))

    async def _announce(self, effects: list[Effect]) -> None:
        before = set(self._tasks)
        self._settle(effects)
        told = self._tasks - before
        if told:
            await asyncio.wait(told, timeout=PING_SECONDS_MAX)

    def _learn(self, updates: list[MemberUpdate]) -> None:
        check_updates(updates)
        self._swim.learn(updates, self._monotonic())
        self._settle([])

    def _settle(self, effects: list[Effect]) -> None:
        """Start what is to be done, tell a changed placement, and let the timer look again."""
        for effect in effects:
            if len(self._tasks) < TASKS_MAX:
                task = asyncio.create_task(self._perform(effect))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        if self._epoch != self._swim.epoch:
            self._epoch = self._swim.epoch
            for on_placement in self._subscribers:
                on_placement()
        self._wake.set()

    async def _perform(self, effect: Effect) -> None:
        try:
            if isinstance(effect, Ping):
                reply = cast(PingReply, await self._request(effect.to, partial(PingRequest, gossip=effect.gossip)))
                check_updates(reply.gossip.updates)
                self._settle(self._swim.acked(effect.to, reply.gossip, self._monotonic()))
            elif isinstance(effect, PingVia):
                answer = await self._request(effect.via, partial(IndirectPingRequest, target=effect.target))
                if not cast(IndirectPingReply, answer).is_reached:
                    raise UnreachableError(effect.target)
                self._swim.vouched(effect.target)
            else:
                mine = self._swim.export(self._monotonic())
                table = cast(TableReply, await self._request(effect.to, partial(TableRequest, updates=mine)))
                self._learn(table.updates)
        except ServiceError as error:
            _log.debug("%s: %s", effect, error)
            # Of one that was sent and got no reply nothing follows here: by now another ping may be under way.
            if isinstance(effect, Ping) and isinstance(error, UnreachableError):
                self._settle(self._swim.missed(effect.to, self._monotonic()))
            elif isinstance(effect, PingVia):
                self._settle(self._swim.unvouched(effect.target, self._monotonic()))

    async def _ping(self, target: str) -> bool:
        """Ping a member for another; return whether it answered."""
        news = self._swim.gossip(target, self._monotonic())
        try:
            async with asyncio.timeout(PING_SECONDS_MAX):
                reply = cast(PingReply, await self._request(target, partial(PingRequest, gossip=news)))
        except (ServiceError, TimeoutError):
            return False
        check_updates(reply.gossip.updates)
        self._settle(self._swim.receive(target, reply.gossip, self._monotonic()))
        return True

    async def _request(self, to: str, build: Callable[[int], Request]) -> Reply:
        channel = self._channels.get(to)
        if channel is None:
            raise UnreachableError(to)
        return await channel.request(build)


class Follower:
    """What a backend knows of the members, from asking nodes.

    Args:
        channels: Open channels by node id, as they come and go.
        replication_factor: Owners per slot, as long as no placement says so.
        monotonic: A clock in seconds that never goes back.
        randomness: Picks whom to ask.
    """

    def __init__(
        self,
        channels: Mapping[str, Channel],
        replication_factor: int,
        monotonic: Callable[[], float],
        randomness: random.Random,
    ) -> None:
        self.placement = follow_members({}, replication_factor)
        self._channels = channels
        self._monotonic = monotonic
        self._random = randomness
        self._table = Table()
        # What nodes said last, by their directories' names.
        self._words: dict[str, PlacementWord] = {}

    def uncopied(self) -> dict[str, int]:
        """Return how many slots each next owner has to copy still, by node id, as it said last."""
        return self.placement.uncopied(self._copied)

    def _copied(self, replica: str) -> frozenset[int]:
        word = self._words.get(replica)
        return frozenset() if word is None or word.epoch != self.placement.epoch else decode_bits(word.copied)

    def members(self) -> list[Member]:
        """Return all members by id, tombstones included."""
        return self._table.members()

    def endpoints(self) -> dict[str, Endpoint]:
        """Return where live members listen, by node id."""
        return {
            node_id: split_address(update.address, "address")
            for node_id, update in self._table.updates.items()
            if update.address and update.liveness < DEAD
        }

    async def run(self) -> None:
        """Ask one node after the other, for ever; all of them while owners change."""
        while True:
            asked = sorted(self._channels)
            if asked and not self.placement.is_joint:
                asked = [self._random.choice(asked)]
            await asyncio.gather(*(self.ask(self._channels[node_id]) for node_id in asked))
            self._place()
            await asyncio.sleep(FOLLOW_SECONDS)

    async def ask(self, channel: Channel) -> None:
        """Take in what one node knows; a node that does not answer is asked again later."""
        try:
            reply = cast(TableReply, await channel.request(partial(TableRequest, updates=[])))
            check_updates(reply.updates)
            if channel.protocol >= PROTOCOL:
                word = PlacementWord(self.placement.epoch)
                told = cast(PlacementReply, await channel.request(partial(PlacementRequest, word=word)))
                self._take_up(told.document)
                self._words[channel.replica] = told.word
        except ServiceError as error:
            _log.debug("members from %s: %s", channel.node_id, error)
            return
        for update in reply.updates:
            self._table.merge(update, self._monotonic())
        self._place()

    def _take_up(self, document: PlacementDocument | None) -> None:
        if document is not None and document.epoch > self.placement.epoch:
            check_document(document)
            self.placement = follow_document(document)
            self._words.clear()

    def _place(self) -> None:
        now = self._monotonic()
        self._table.forget(now)
        if self.placement.document is None:
            members = self._table.placement_members(now)
            if members != self.placement.members:
                self.placement = follow_members(members, self.placement.replication_factor)
