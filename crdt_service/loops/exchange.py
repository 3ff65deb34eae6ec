"""What a node does with an open channel to a peer: push commits as they come, and count who has them on disk."""

import asyncio
import contextlib
import logging
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.slot import slot_of
from crdt_service.loops.commit import Committer
from crdt_service.membership.ownership import ALL, Group, Ownership
from crdt_service.replication.commits import Push
from crdt_service.replication.port import Channel, Requester
from crdt_service.replication.replica import Replica
from crdt_service.wire.message import (
    Concern,
    Delta,
    ProgressReply,
    ProgressRequest,
    PushReply,
    PushRequest,
    Reply,
    Request,
)

# Raising it has writers wait longer for owners that do not answer.
CONCERN_SECONDS_MAX = 1.5
PUSH_RETRY_SECONDS = 0.2
_VERSION_BITS = 53
# Refusals by which two nodes find that they know different placements; then they exchange them.
ELSEWHEN = frozenset({"moved", "unplaced"})
# Refusals that pass by themselves while a node starts.
_PASSING = frozenset({"unvouched", "syncing"})
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Peer:
    """How far one peer is with this replica's commits.

    Attributes:
        sent: Everything up to this number was sent, or does not concern the peer.
        base: What the peer has, without a gap, once it has answered all that was sent; the next push builds on it.
        durable: Everything up to this number is on the peer's disk, by its word under the present placement.
        is_behind: Whether something before `sent` may be missing there, so that only a repair closes the gap.
    """

    channel: Channel
    sent: int = 0
    base: int = 0
    durable: int = 0
    is_behind: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    repair_now: asyncio.Event = field(default_factory=asyncio.Event)

    def rewind(self, number: int) -> None:
        """Go on from `number`, up to which the peer has everything."""
        self.sent = self.base = self.durable = number
        self.is_behind = False
        self.wake.set()

    def fall_behind(self) -> None:
        """Have a repair close a gap, now."""
        self.is_behind = True
        self.repair_now.set()

    def has(self, number: int) -> bool:
        """Tell whether the peer has all that concerns it up to commit `number`."""
        return not self.is_behind and self.sent >= number and self.durable >= self.base


@dataclass(frozen=True)
class _Waiting:
    """What a writer waits for: a commit, on as many of some owners as a concern asks for."""

    number: int
    groups: tuple[Group, ...]
    concern: Concern


Meet = Callable[[Channel], Awaitable[None]]
Serve = Callable[[Peer], Coroutine[Any, Any, None]]


class Exchange:
    """Pushes to all peers, and tells on how many owners a write is.

    Attributes:
        ownership: Who owns which slots.
        version: A number that is never the same again once `ownership` has changed.
        is_voting: Whether what this node holds counts in quorums.

    Args:
        node_id: This node's name.
        committer: Tells of commits.
        replica: This node's commits, and which placement it has taken up.
        ownership: Who owns which slots at first.
        randomness: Draws versions.
    """

    def __init__(
        self,
        node_id: str,
        committer: Committer,
        replica: Replica,
        *,
        ownership: Ownership,
        randomness: random.Random,
    ) -> None:
        self._node_id = node_id
        self._replica = replica
        self._random = randomness
        self._peers: dict[str, Peer] = {}
        self._waiting: dict[_Waiting, asyncio.Future[None]] = {}
        # The newest commit before each write that owners are counted for, and how many of them.
        self._under_way: Counter[int] = Counter()
        self._meet: Meet = _meet_nobody
        self._serve: Serve | None = None
        self.is_voting = True
        self.place(ownership)
        committer.subscribe(self.publish)

    @property
    def channels(self) -> dict[str, Channel]:
        """Channels by node id."""
        return {node_id: peer.channel for node_id, peer in self._peers.items()}

    @property
    def peers(self) -> dict[str, Peer]:
        """Connected peers by their names as owners."""
        return {self.name_of(peer.channel): peer for peer in self._peers.values()}

    @property
    def me(self) -> str:
        """This node's name as an owner."""
        return self.ownership.name(self._node_id, self._replica.id)

    def name_of(self, channel: Channel) -> str:
        """Return a peer's name as an owner."""
        return self.ownership.name(channel.node_id, channel.replica)

    def follow(self, meet: Meet, serve: Serve) -> None:
        """Have `meet` exchange placements with a peer that knows another one, and `serve` do what else a peer needs."""
        self._meet, self._serve = meet, serve

    def place(self, ownership: Ownership) -> None:
        """Follow other owners: what waits is pushed, and counted, again from the beginning."""
        self.ownership = ownership
        self.touch()
        for peer in self._peers.values():
            if self._under_way:  # What it was not sent because it was no owner may concern it now.
                peer.rewind(min(peer.durable, *self._under_way))
            peer.repair_now.set()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_result(None)

    def touch(self) -> None:
        """Have nobody count on what this node said before."""
        self.version = self._random.getrandbits(_VERSION_BITS)

    def has_sent(self, number: int) -> bool:
        """Tell whether every member is connected, and each peer has all that concerns it up to commit `number`."""
        peers = self.peers
        others = self.ownership.nodes.keys() - {self.me}
        return others <= peers.keys() and all(peer.has(number) for peer in peers.values())

    def groups(self, key: str) -> tuple[Group, ...]:
        """Return the groups of owners of which a quorum for `key` needs its part of each."""
        return self.ownership.groups(slot_of(key))

    def publish(self) -> None:
        """Have every peer sent what was committed."""
        for peer in self._peers.values():
            peer.wake.set()

    def repair_all(self) -> None:
        """Have every peer repaired with, now."""
        for peer in self._peers.values():
            peer.repair_now.set()

    async def run(self, channel: Channel) -> None:
        """Serve one peer until cancelled."""
        await self._meet(channel)
        peer = Peer(channel)
        self._peers[channel.node_id] = peer
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._push(peer))
                if self._serve is not None:
                    group.create_task(self._serve(peer))
        finally:
            if self._peers.get(channel.node_id) is peer:
                del self._peers[channel.node_id]

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Note that a write is under way until its owners are counted, all of them under one placement."""
        before = self._replica.commits.newest
        self._under_way[before] += 1
        try:
            yield
        finally:
            self._under_way[before] -= 1
            if not self._under_way[before]:
                del self._under_way[before]

    async def confirm(self, number: int, key: str, concern: Concern) -> None:
        """Return once commit `number`, a write of `key` here, is durable on as many owners as `concern` asks.

        Call it within the `writing` that the commit was made in. If the owners change meanwhile, those of the new
        placement are counted from nothing.

        Raises:
            ServiceError: They did not answer in time; the write stays and goes on to them.
        """
        try:
            async with asyncio.timeout(CONCERN_SECONDS_MAX):
                while not _is_met(waiting := _Waiting(number, self.groups(key), concern), self._durable()):
                    version = self.version
                    await self._wait(waiting)
                    if version == self.version:
                        return
        except TimeoutError as error:
            names = {name for group in self.groups(key) for name in group.owners}
            durable = self._durable()
            count = sum(durable.get(name, -1) >= number for name in names)
            raise ServiceError(
                "concern_not_met",
                f"the write is on {count} of {len(names)} owners; it stays, and goes on to the others",
                "do not write again: read with the same concern once more nodes are reachable",
            ) from error

    def check(self, key: str, concern: Concern, reachable: set[str] | None = None) -> None:
        """Refuse a concern that the reachable owners cannot meet, before anything is done.

        Args:
            key: Whose owners.
            concern: How many of them are asked for.
            reachable: As `reachable` returns it, for many keys at once.

        Raises:
            ServiceError: Too few owners are reachable.
        """
        reachable = self.reachable() if reachable is None else reachable
        for group in self.groups(key):
            count = sum(owner in reachable for owner in group.owners)
            if count < group.needed(concern):
                raise ServiceError(
                    "too_few_owners",
                    f"{count} of the key's owners are reachable from here, {group.needed(concern)} are needed",
                    "retry when more nodes are up, or ask for less",
                )

    def reachable(self) -> set[str]:
        """Return the names of owners that may count in a quorum now, this node among them if it does."""
        names = set(self.peers)
        if self.is_voting:
            names.add(self.me)
        return names

    def is_quorum(self, key: str, concern: Concern, has: Callable[[str], bool]) -> bool:
        """Tell whether those of whom `has` is true are as many owners of `key` as `concern` asks for."""
        return self.ownership.is_quorum(slot_of(key), concern, has)

    async def drain(self) -> None:
        """Return once every peer has all commits that concern it; cancel it to give up."""
        while any(  # noqa: ASYNC110 - the pushes are other tasks' work.
            peer.durable < peer.base or peer.sent < self._replica.commits.newest for peer in self._peers.values()
        ):
            await asyncio.sleep(0.01)

    async def _wait(self, waiting: _Waiting) -> None:
        future = self._waiting.get(waiting)
        if future is None:
            future = self._waiting[waiting] = asyncio.get_running_loop().create_future()
        try:
            await asyncio.shield(future)
        finally:
            if self._waiting.get(waiting) is future:
                del self._waiting[waiting]

    def _durable(self) -> dict[str, float]:
        """Return up to which commit each owner that counts has everything on its disk, by its name."""
        durable: dict[str, float] = {name: peer.durable for name, peer in self.peers.items()}
        if self.is_voting:
            durable[self.me] = math.inf
        return durable

    def advance(self, peer: Peer, number: int) -> None:
        """Note that everything up to `number` is on the peer's disk, and wake who waited for that."""
        peer.durable = max(peer.durable, number)
        durable = self._durable() if self._waiting else {}
        for waiting in list(self._waiting):
            if _is_met(waiting, durable):
                self._waiting.pop(waiting).set_result(None)

    async def _push(self, peer: Peer) -> None:
        step = self._ask_progress
        while True:
            try:
                await step(peer)
            except ServiceError as error:
                if error.code in ELSEWHEN:
                    await self._meet(peer.channel)
                else:
                    _log.log(level_of(error), "push to %s: %s", peer.channel.node_id, error)
                if error.code == "behind":
                    peer.repair_now.set()
                await asyncio.sleep(PUSH_RETRY_SECONDS)
            else:
                step = self._push_next

    async def _ask_progress(self, peer: Peer) -> None:
        commits = self._replica.commits
        reply = await peer.channel.request(partial(ProgressRequest, replica=self._replica.id))
        progress = cast(ProgressReply, reply).progress
        if progress > commits.newest:
            raise ServiceError(
                "rolled_back",
                f"{peer.channel.node_id} has commits of this node that its own volume lacks: it was rolled back",
                "stop this node and start it on an empty volume; it refills from its peers",
            )
        # Its word is of whatever it owned when it was sent that.
        peer.rewind(min(progress, min(self._under_way, default=commits.newest)))

    async def _push_next(self, peer: Peer) -> None:
        """Push what the peer was not sent yet, or wait for something to push."""
        commits = self._replica.commits
        if peer.sent == commits.newest:
            peer.wake.clear()
            await peer.wake.wait()
        elif not commits.reaches(peer.sent):
            peer.sent = peer.base = commits.newest
            peer.fall_behind()
        else:
            slots = self.ownership.owns(self.name_of(peer.channel))
            push = commits.take(peer.sent, None if slots is ALL else slots)
            if push.deltas:
                await self._send(peer, push)
            else:
                peer.sent = push.upto

    async def _send(self, peer: Peer, push: Push) -> None:
        """Send the deltas between a peer's base and the push's end; if the base moves meanwhile, they go again."""
        base, upto, version = peer.base, push.upto, self.version
        reply = await request_push(
            under(peer.channel, self.ownership.epoch),
            self._replica,
            push.deltas,
            numbered_by=self._replica.id,
            after=base,
            upto=upto,
            committed_at=push.committed_at,
        )
        if peer.base != base or self.version != version:
            return
        peer.sent = peer.base = upto
        if reply.progress < upto and not peer.is_behind:
            peer.fall_behind()
        self.advance(peer, min(reply.progress, upto))


def _is_met(waiting: _Waiting, durable: Mapping[str, float]) -> bool:
    number, concern = waiting.number, waiting.concern
    return all(
        sum(durable.get(owner, -1) >= number for owner in group.owners) >= group.needed(concern)
        for group in waiting.groups
    )


class _Under:
    """A channel whose requests and replies are of one placement."""

    def __init__(self, channel: Channel, epoch: int) -> None:
        self.node_id = channel.node_id
        self._channel = channel
        self._epoch = epoch

    async def request(self, build: Callable[[int], Request]) -> Reply:
        """As the channel's, but refuse a reply of another placement.

        Raises:
            ServiceError: As the channel's; ``moved`` if the peer has taken up another placement by now.
        """
        reply = await self._channel.request_placed(self._epoch, build)
        if reply.epoch != self._epoch:
            raise ServiceError("moved", f"{self.node_id} has taken up another placement", "exchange placements first")
        return reply.message


def level_of(error: ServiceError) -> int:
    """Return the level at which a peer's refusal is logged."""
    return logging.INFO if error.code in _PASSING else logging.WARNING


def under(channel: Channel, epoch: int) -> Requester:
    """Return the channel as it is to be used under the placement of this epoch, 0 for none."""
    return _Under(channel, epoch) if epoch else channel


async def send_states(channel: Requester, deltas: list[Delta], replica: Replica) -> int:
    """Have a peer join states of `replica`; return how many it refused, once the rest is durable there."""
    return (await request_push(channel, replica, deltas)).refused


async def request_push(
    channel: Requester,
    replica: Replica,
    deltas: list[Delta],
    *,
    numbered_by: str = "",
    after: int = 0,
    upto: int = 0,
    committed_at: float = 0.0,
) -> PushReply:
    """Push deltas with what `replica` knows of purges; see PushRequest for the rest."""
    request = partial(
        PushRequest,
        replica=numbered_by,
        after=after,
        upto=upto,
        committed_at=committed_at,
        deltas=deltas,
        vouched=replica.vouched,
        agreed=replica.agreed,
    )
    return cast(PushReply, await channel.request(request))


async def _meet_nobody(_: Channel) -> None:
    """There are no placements to exchange."""
