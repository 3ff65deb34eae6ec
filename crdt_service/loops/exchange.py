"""What a node does with an open channel to a peer: push commits as they come, repair now and at each interval."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, cast

from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.ident import new_replica
from crdt_service.kernel.slot import SLOTS, slot_of
from crdt_service.loops.anti_entropy import AntiEntropy
from crdt_service.loops.commit import Committer
from crdt_service.membership.placement import Placement
from crdt_service.replication import repair
from crdt_service.replication.commits import Push
from crdt_service.replication.handoff import Handoff
from crdt_service.replication.port import Channel, Observer
from crdt_service.replication.quorum import needed
from crdt_service.replication.repair import Slots
from crdt_service.replication.replica import Replica
from crdt_service.store.store import Store
from crdt_service.wire.message import (
    Concern,
    Delta,
    OwnershipReply,
    OwnershipRequest,
    ProgressReply,
    ProgressRequest,
    PushReply,
    PushRequest,
)

# Raising it has writers wait longer for owners that do not answer.
CONCERN_SECONDS_MAX = 1.5
PUSH_RETRY_SECONDS = 0.2
_ALL = frozenset(range(SLOTS))
_EPOCH_BITS = 53
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Peer:
    """How far one peer is with this replica's commits.

    Attributes:
        sent: Everything up to this number was sent, or does not concern the peer.
        base: What the peer has, without a gap, once it has answered all that was sent; the next push builds on it.
        durable: Everything up to this number is on the peer's disk.
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


class Guard(Protocol):
    """Keeps apart from a peer until both know of the same agreements to purge."""

    async def check(self, channel: Channel) -> float:
        """Return the wall clock in seconds, once this node has caught up with the peer.

        Raises:
            ServiceError: The peer has to catch up first.
        """
        ...

    def note_synced(self, node_id: str, started: float) -> None:
        """Note that both hold the same since that time."""
        ...


class Exchange:
    """Pushes to and repairs with all peers, and hands over slots that are no longer this node's.

    Attributes:
        placement: Who owns which slots, as this node sees it.
        epoch: A number that is never the same again once `placement` has changed.
    """

    def __init__(
        self,
        node_id: str,
        store: Store,
        committer: Committer,
        replica: Replica,
        *,
        placement: Placement,
        observer: Observer,
        sync_interval_seconds: float,
        randomness: random.Random,
    ) -> None:
        self._node_id = node_id
        self._store = store
        self._committer = committer
        self._replica = replica
        self._sync_interval_seconds = sync_interval_seconds
        self._random = randomness
        self._anti_entropy = AntiEntropy(
            store,
            observer,
            join=committer.join_states,
            push=lambda channel, deltas: send_states(channel, deltas, replica),
            agreed=lambda: replica.agreed,
        )
        self._guard: Guard | None = None
        self._handoff = Handoff()
        self._owned: dict[str, frozenset[int]] = {}
        # Slots that became this node's, until it has compared them with everybody it is connected to.
        self._gained: frozenset[int] = frozenset()
        self._asked: set[str] = set()
        self._dropping: frozenset[int] = frozenset()
        self._drop_turn = asyncio.Lock()
        self._peers: dict[str, Peer] = {}
        # Writers that wait for owners: (number, owners, how many of them) to what they wait for.
        self._waiting: dict[tuple[int, tuple[str, ...], int], asyncio.Future[None]] = {}
        self.place(placement)
        committer.subscribe(self.publish)

    @property
    def channels(self) -> dict[str, Channel]:
        """Channels by node id."""
        return {node_id: peer.channel for node_id, peer in self._peers.items()}

    def place(self, placement: Placement) -> None:
        """Follow a new placement."""
        self.placement = placement
        self.epoch = self._random.getrandbits(_EPOCH_BITS)
        is_full = len(placement.members) <= placement.replication_factor
        before = self._owns(self._node_id)
        self._owned = {node_id: _ALL if is_full else placement.owns(node_id) for node_id in placement.members}
        owned = self._owns(self._node_id)
        if owned - before:
            self._asked.clear()
        self._gained = (self._gained | owned - before) & owned
        self._handoff.reset()
        first = min((number for number, *_ in self._waiting), default=0)
        for peer in self._peers.values():
            if self._waiting:  # What it was not sent because it was no owner may concern it now.
                peer.rewind(min(peer.durable, first - 1))
            peer.repair_now.set()

    def needed(self, concern: Concern) -> int:
        """Return how many owners of a key `concern` asks for."""
        return needed(concern, self.placement.replication_factor)

    def guard(self, guard: Guard) -> None:
        """Have `guard` check each peer before it is repaired with."""
        self._guard = guard

    def refill(self) -> None:
        """Fetch everything that this node owns from its peers: it has forgotten all states."""
        self.epoch = self._random.getrandbits(_EPOCH_BITS)  # Who counted on this node must not any more.
        self._gained = self._owns(self._node_id)
        self._asked.clear()
        self._handoff.reset()
        for peer in self._peers.values():
            peer.repair_now.set()

    def has_sent(self, number: int) -> bool:
        """Tell whether every member is connected, and each peer has all that concerns it up to commit `number`."""
        others = self.placement.members.keys() - {self._node_id}
        return others <= self._peers.keys() and all(_has(peer, number) for peer in self._peers.values())

    def owners(self, key: str) -> tuple[str, ...]:
        """Return the nodes that should hold `key`."""
        return self.placement.owners(slot_of(key))

    @property
    def kept(self) -> Slots:
        """The slots that this node owns and is not about to forget, None for all."""
        owned = self._owns(self._node_id)
        return None if owned is _ALL and not self._dropping else owned - self._dropping

    def check_synced(self, key: str) -> None:
        """Refuse to show a key of which this node may hold only a part yet; alone, it shows what it has.

        Raises:
            ServiceError: The key became this node's, and it was not compared with all peers since.
        """
        if self._gained and not self.is_synced and slot_of(key) in self._gained:
            raise ServiceError(
                "syncing", f"node {self._node_id} is still fetching the key", "retry, or ask another owner"
            )

    @property
    def is_synced(self) -> bool:
        """Whether this node holds all of what it owns, as far as it can know."""
        return not self._gained or self._peers.keys() <= self._asked

    @property
    def surplus(self) -> frozenset[int]:
        """The slots that this node holds something of and does not own."""
        owned = self._owns(self._node_id)
        if owned is _ALL:
            return frozenset()
        return frozenset(slot for slot, keys in enumerate(self._store.slots) if keys and slot not in owned)

    def count_under_replicated(self) -> int:
        """Return how many keys this node holds, as the first reachable owner, of which another owner is unreachable."""
        count = 0
        reachable = {self._node_id, *self._peers}
        for slot, keys in enumerate(self._store.slots):
            owners = self.placement.owners(slot) if keys else ()
            if not reachable.issuperset(owners):
                first = next((owner for owner in owners if owner in reachable), "")
                count += len(keys) if first == self._node_id else 0
        return count

    def publish(self) -> None:
        """Have every peer sent what was committed."""
        for peer in self._peers.values():
            peer.wake.set()

    async def run(self, channel: Channel) -> None:
        """Serve one peer until cancelled."""
        peer = Peer(channel)
        self._peers[channel.node_id] = peer
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._push(peer))
                group.create_task(self._repair(peer))
        finally:
            if self._peers.get(channel.node_id) is peer:
                del self._peers[channel.node_id]

    async def confirm(self, number: int, key: str, concern: Concern) -> None:
        """Return once commit `number`, a write of `key` here, is durable on as many owners as `concern` asks.

        Raises:
            ServiceError: They did not answer in time; the write stays and goes on to them.
        """
        owners = self.owners(key)
        wanted = self.needed(concern)
        waiting = (number, owners, wanted)
        if self._count_durable(number, owners) >= wanted:
            return
        future = self._waiting.get(waiting)
        if future is None:
            future = self._waiting[waiting] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(CONCERN_SECONDS_MAX):
                await asyncio.shield(future)
        except TimeoutError as error:
            count = self._count_durable(number, owners)
            raise ServiceError(
                "concern_not_met",
                f"the write is on {count} of {wanted} owners; it stays, and goes on to the others",
                "do not write again: read with the same concern once more nodes are reachable",
            ) from error
        finally:
            if self._waiting.get(waiting) is future:
                del self._waiting[waiting]

    def check(self, key: str, concern: Concern) -> None:
        """Refuse a concern that the reachable owners cannot meet, before anything is done.

        Raises:
            ServiceError: Too few owners are reachable.
        """
        owners = self.owners(key)
        reachable = sum(owner == self._node_id or owner in self._peers for owner in owners)
        if reachable < self.needed(concern):
            raise ServiceError(
                "too_few_owners",
                f"{reachable} of the key's owners are reachable from here, {self.needed(concern)} are needed",
                "retry when more nodes are up, or ask for less",
            )

    async def drain(self) -> None:
        """Return once every peer has all commits that concern it; cancel it to give up."""
        while any(  # noqa: ASYNC110 - the pushes are other tasks' work.
            peer.durable < peer.base or peer.sent < self._replica.commits.newest for peer in self._peers.values()
        ):
            await asyncio.sleep(0.01)

    def _count_durable(self, number: int, owners: Iterable[str]) -> int:
        peers = self._peers
        return sum(owner == self._node_id or (owner in peers and peers[owner].durable >= number) for owner in owners)

    def _advance(self, peer: Peer, number: int) -> None:
        """Note that everything up to `number` is on the peer's disk, and wake who waited for that."""
        peer.durable = max(peer.durable, number)
        for waiting in list(self._waiting):
            awaited, owners, wanted = waiting
            if self._count_durable(awaited, owners) >= wanted:
                self._waiting.pop(waiting).set_result(None)

    async def _push(self, peer: Peer) -> None:
        step = self._ask_progress
        while True:
            try:
                await step(peer)
            except ServiceError as error:
                _log.warning("push to %s: %s", peer.channel.node_id, error)
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
        first = min((number for number, *_ in self._waiting), default=commits.newest + 1)
        peer.rewind(min(progress, first - 1))

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
            slots = self._owns(peer.channel.node_id)
            push = commits.take(peer.sent, None if slots is _ALL else slots)
            if push.deltas:
                await self._send(peer, push)
            else:
                peer.sent = push.upto

    async def _send(self, peer: Peer, push: Push) -> None:
        """Send the deltas between a peer's base and the push's end; if the base moves meanwhile, they go again."""
        base, upto = peer.base, push.upto
        reply = await _request_push(
            peer.channel,
            self._replica,
            push.deltas,
            numbered_by=self._replica.id,
            after=base,
            upto=upto,
            committed_at=push.committed_at,
        )
        if peer.base != base:
            return
        peer.sent = peer.base = upto
        if reply.progress < upto and not peer.is_behind:
            peer.fall_behind()
        self._advance(peer, min(reply.progress, upto))

    async def _repair(self, peer: Peer) -> None:
        while True:
            peer.repair_now.clear()
            try:
                await self._close_gap(peer)
            except ServiceError as error:
                _log.warning("repair with %s: %s", peer.channel.node_id, error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._sync_interval_seconds):
                    await peer.repair_now.wait()

    async def _close_gap(self, peer: Peer) -> None:
        """Repair what the peer owns and this node holds or should hold; then the peer has all commits up to here."""
        channel = peer.channel
        started = 0.0 if self._guard is None else await self._guard.check(channel)
        newest = self._replica.commits.newest
        owned, theirs = self._owns(self._node_id), self._owns(channel.node_id)
        surplus = self.surplus & theirs
        epoch = self.epoch
        versions = {slot: self._store.versions[slot] for slot in surplus}
        before = await self._ask_ownership(channel) if surplus else None
        refused = 0
        if slots := theirs & owned:
            refused += await self._anti_entropy.repair(channel, None if slots == _ALL else slots)
        # Taking anything, it would under load never be as it was when it was compared; and since sums are shown in
        # part, it is compared by other bits once more before it may be forgotten.
        for _ in range(2 if surplus else 0):
            refused += await self._anti_entropy.repair(channel, surplus, is_pulled=False)
        if epoch != self.epoch:
            return
        self._asked.add(channel.node_id)
        if self.is_synced:
            self._gained = frozenset()
        if refused:
            return
        if before is not None:
            after = await self._ask_ownership(channel)
            if after.epoch == before.epoch and epoch == self.epoch:
                # Before it, too: a slot that the peer was about to forget then is kept now, and empty.
                confirmed = surplus
                for answer in (before, after):
                    kept = repair.decode_slots(answer.slots)
                    confirmed = confirmed if kept is None else confirmed & kept
                self._handoff.confirm(channel.node_id, {slot: versions[slot] for slot in confirmed})
                await self._drop()
        if peer.is_behind:
            await _request_push(channel, self._replica, [], numbered_by=self._replica.id, upto=newest)
            peer.rewind(newest)
            self._advance(peer, newest)
        # What is to be handed over was not fetched: this node may have missed what went of it.
        if self._guard is not None and not self.surplus and _has(peer, newest):
            self._guard.note_synced(channel.node_id, started)

    async def _ask_ownership(self, channel: Channel) -> OwnershipReply:
        return cast(OwnershipReply, await channel.request(OwnershipRequest))

    def _owns(self, node_id: str) -> frozenset[int]:
        return self._owned.get(node_id, frozenset())

    async def _drop(self) -> None:
        """Forget what all owners hold; the committer asks which once nothing is under way."""
        async with self._drop_turn:
            if not self._choose_done():
                return
            try:
                dropped = await self._committer.drop(self._begin_drop, new_replica(self._node_id, self._random))
            finally:
                self._dropping = frozenset()
            if dropped:
                _log.info("handed %d slots over", len(dropped))
                # What became this node's again amid the drop is missing now, whatever was compared before.
                self._gained |= self._owns(self._node_id).intersection(dropped)
                self._asked.clear()

    def _begin_drop(self) -> list[int]:
        """Choose what to forget; until it is forgotten nobody may count on this node for it."""
        done = self._choose_done()
        self._dropping = frozenset(done)
        return done

    def _choose_done(self) -> list[int]:
        return self._handoff.done(self.surplus, self._store.versions, self.placement.owners)


def _has(peer: Peer, number: int) -> bool:
    return not peer.is_behind and peer.sent >= number and peer.durable >= peer.base


async def send_states(channel: Channel, deltas: list[Delta], replica: Replica) -> int:
    """Have a peer join states of `replica`; return how many it refused, once the rest is durable there."""
    return (await _request_push(channel, replica, deltas)).refused


async def _request_push(
    channel: Channel,
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
