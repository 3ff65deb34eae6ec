"""What goes between owners beside pushes: repairs, copies of slots that change hands, and handing over the rest."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, cast

from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.ident import new_replica
from crdt_service.kernel.slot import slot_of
from crdt_service.loops.anti_entropy import AntiEntropy, Refused
from crdt_service.loops.commit import Committer
from crdt_service.loops.exchange import ELSEWHEN, Exchange, Meet, Peer, level_of, request_push, send_states, under
from crdt_service.membership.ownership import ALL, Ownership
from crdt_service.replication import repair
from crdt_service.replication.copying import Copies, Source, decode_bits
from crdt_service.replication.handoff import Handoff
from crdt_service.replication.port import Channel, Observer, Requester
from crdt_service.replication.repair import Slots
from crdt_service.replication.replica import Replica
from crdt_service.store.store import Store
from crdt_service.wire.message import Concern, OwnershipReply, OwnershipRequest

_NONE: frozenset[int] = frozenset()
_log = logging.getLogger(__name__)

OnCopied = Callable[[frozenset[int]], Awaitable[bool]]


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


class Transfer:
    """Repairs with all peers, copies what becomes this node's, and hands over what is no longer.

    Without a document this node cannot know whom to read: then it has what it gained once it has compared it with
    everybody it is connected to, and forgets a slot once every owner has confirmed it.

    Args:
        node_id: This node's name.
        store: The states.
        committer: Joins and forgets durably.
        replica: What this node durably is.
        exchange: Peers, and who owns what.
        observer: Learns how many bytes moved.
        sync_interval_seconds: Between two repairs with a peer.
        randomness: Draws origins.
    """

    def __init__(
        self,
        node_id: str,
        store: Store,
        committer: Committer,
        replica: Replica,
        exchange: Exchange,
        *,
        observer: Observer,
        sync_interval_seconds: float,
        randomness: random.Random,
    ) -> None:
        self._node_id = node_id
        self._store = store
        self._committer = committer
        self._replica = replica
        self._exchange = exchange
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
        self._meet: Meet | None = None
        self._on_copied: OnCopied | None = None
        self._handoff = Handoff()
        self._copies = Copies()
        # What this node would own, had it a seat: it fetches that ahead.
        self._learning: frozenset[int] = _NONE
        self._whole: frozenset[int] = ALL
        self._owned: frozenset[int] = _NONE
        # Without a document: slots that became this node's, until it has compared them with everybody connected.
        self._gained: frozenset[int] = _NONE
        self._asked: set[str] = set()
        self._dropping: frozenset[int] = _NONE
        self._drop_turn = asyncio.Lock()
        self.place(exchange.ownership)

    def follow(self, meet: Meet, on_copied: OnCopied) -> None:
        """Have `meet` exchange placements with a peer, and `on_copied` note copied slots durably."""
        self._meet, self._on_copied = meet, on_copied

    def guard(self, guard: Guard) -> None:
        """Have `guard` check each peer before it is repaired with."""
        self._guard = guard

    def place(self, ownership: Ownership, learning: frozenset[int] = _NONE) -> None:
        """Follow other owners; `learning` is what this node fetches ahead of owning it."""
        owned = ownership.owns(self._exchange.me)
        self._handoff.reset()
        self._copies = Copies()  # What was read under another placement says nothing under this one.
        self._learning = learning
        if ownership.document is None:
            if owned - self._owned:
                self._asked.clear()
            self._gained = (self._gained | owned - self._owned) & owned
            self._owned = owned
            return
        self._owned, self._gained = owned, _NONE
        self.note_copied()

    def note_copied(self) -> None:
        """Take in what is durably known to be copied: copy what else there is to copy, and no more."""
        ownership, state = self._exchange.ownership, self._replica.placement
        if ownership.document is None:
            return
        self._whole = decode_bits(state.whole) & self._owned
        wanted = self._owned - self._whole
        if ownership.is_joint:
            moving = ownership.moving() & ownership.owned_after(self._exchange.me)
            wanted |= moving - decode_bits(state.copied)
        if self._learning:
            wanted = self._learning
        sources = {slot: Source(*ownership.sources(slot)) for slot in wanted}
        if sources != self._copies.needed:
            self._copies.begin(self._exchange.me, sources)
            self._exchange.repair_all()

    @property
    def copied_alone(self) -> frozenset[int]:
        """The slots to be copied for which no other node has to be read."""
        return self._copies.complete

    @property
    def is_learned(self) -> bool:
        """Whether this node holds what it would own, had it a seat."""
        return not self._copies.needed.keys() - self._copies.complete

    def refill(self) -> None:
        """Fetch everything that this node owns from its peers: it has forgotten all states."""
        self._exchange.touch()  # Who counted on this node must not any more.
        self._gained = self._owned
        self._asked.clear()
        self._handoff.reset()
        self._exchange.repair_all()

    @property
    def kept(self) -> Slots:
        """The slots that this node owns and is not about to forget, None for all."""
        return None if self._owned is ALL and not self._dropping else self._owned - self._dropping

    def is_whole(self, key: str) -> bool:
        """Tell whether this node owns a key and holds all of it, so that it may answer for it alone."""
        slot = slot_of(key)
        return slot in self._owned and not self._lacks(slot)

    def check_synced(self, key: str) -> None:
        """Refuse to show a key of which this node may hold only a part yet.

        Raises:
            ServiceError: The key is this node's, and it has not copied it yet.
        """
        if self._lacks(slot_of(key)):
            raise ServiceError(
                "syncing", f"node {self._node_id} is still fetching the key", "retry, or ask another owner"
            )

    def _lacks(self, slot: int) -> bool:
        if self._exchange.ownership.document is None:
            return bool(self._gained) and not self.is_synced and slot in self._gained
        return slot in self._owned and slot not in self._whole

    @property
    def is_synced(self) -> bool:
        """Whether this node holds all of what it owns, as far as it can know."""
        if self._exchange.ownership.document is None:
            return not self._gained or self._exchange.channels.keys() <= self._asked
        return self._owned <= self._whole

    @property
    def whole(self) -> frozenset[int]:
        """The slots that this node owns and holds all of, as far as it can know."""
        if self._exchange.ownership.document is None:
            return self._owned - (_NONE if self.is_synced else self._gained)
        return self._owned & self._whole

    @property
    def missing(self) -> frozenset[int]:
        """The slots that this node has to copy still."""
        return frozenset(self._copies.needed)

    @property
    def surplus(self) -> frozenset[int]:
        """The slots that this node holds something of and neither owns nor is about to."""
        if self._owned is ALL:
            return _NONE
        own = self._owned | self._learning
        return frozenset(slot for slot, keys in enumerate(self._store.slots) if keys and slot not in own)

    def count_under_replicated(self) -> int:
        """Return how many keys this node holds, as the first reachable owner, of which another owner is unreachable."""
        count, me = 0, self._exchange.me
        reachable = {me, *self._exchange.peers}
        for slot, keys in enumerate(self._store.slots):
            groups = self._exchange.ownership.groups(slot) if keys else ()
            owners = [owner for group in groups for owner in group.owners]
            if not reachable.issuperset(owners):
                first = next((owner for owner in owners if owner in reachable), "")
                count += len(keys) if first == me else 0
        return count

    async def run(self, peer: Peer) -> None:
        """Repair with one peer now and then, for ever."""
        while True:
            peer.repair_now.clear()
            try:
                await self._close_gap(peer)
            except ServiceError as error:
                if error.code in ELSEWHEN and self._meet is not None:
                    await self._meet(peer.channel)
                    await asyncio.sleep(0)
                else:
                    _log.log(level_of(error), "repair with %s: %s", peer.channel.node_id, error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._sync_interval_seconds):
                    await peer.repair_now.wait()

    async def _close_gap(self, peer: Peer) -> None:
        """Repair what the peer owns and this node holds or should hold; then the peer has all commits up to here."""
        exchange, channel = self._exchange, peer.channel
        started = 0.0 if self._guard is None else await self._guard.check(channel)
        newest = self._replica.commits.newest
        ownership, version = exchange.ownership, exchange.version
        name, view = exchange.name_of(channel), under(channel, ownership.epoch)
        theirs = ownership.owns(name)
        copying = self._copies.wanted(name)
        surplus = self.surplus & theirs
        versions = {slot: self._store.versions[slot] for slot in surplus}
        before = await self._ask_ownership(channel) if surplus else None
        refused = there = 0
        if slots := (theirs & self._owned) | copying:
            there += (await self._repair(view, slots)).there
        if copying:  # Sums are shown in part: it is compared by other bits once more before it counts as read.
            refused = (await self._repair(view, copying)).here
        # Taking anything, it would under load never be as it was when it was compared.
        for _ in range(2 if surplus else 0):
            there += (await self._anti_entropy.repair(view, surplus, is_pulled=False)).there
        if version != exchange.version:
            return
        await self._note_read(channel, name, _NONE if refused else copying)
        if there or version != exchange.version:
            return
        if surplus:
            await self._hand_over(channel, name, versions, before)
        if peer.is_behind:
            await request_push(view, self._replica, [], numbered_by=self._replica.id, upto=newest)
            if version != exchange.version:
                return
            peer.rewind(newest)
            exchange.advance(peer, newest)
        # What is to be handed over was not fetched: this node may have missed what went of it.
        if self._guard is not None and not self.surplus and peer.has(newest):
            self._guard.note_synced(channel.node_id, started)

    async def _repair(self, channel: Requester, slots: frozenset[int]) -> Refused:
        return await self._anti_entropy.repair(channel, None if slots == ALL else slots)

    async def _note_read(self, channel: Channel, name: str, slots: frozenset[int]) -> None:
        """Note that this node has all that a peer held of some slots."""
        self._asked.add(channel.node_id)
        if self._exchange.ownership.document is None:
            if self.is_synced:
                self._gained = _NONE
        elif (complete := self._copies.note(name, slots)) and not self._learning and self._on_copied is not None:
            await self._on_copied(complete)

    async def _hand_over(
        self, channel: Channel, name: str, versions: dict[int, int], before: OwnershipReply | None
    ) -> None:
        """Note that a peer owns these slots and holds all of them; forget those that enough owners hold."""
        confirmed = frozenset(versions)
        if before is not None:
            version = self._exchange.version
            after = await self._ask_ownership(channel)
            if after is None or after.epoch != before.epoch or version != self._exchange.version:
                return
            # Before it, too: a slot that the peer was about to forget then is kept now, and empty.
            for answer in (before, after):
                kept = repair.decode_slots(answer.slots)
                confirmed = confirmed if kept is None else confirmed & kept
        self._handoff.confirm(name, {slot: versions[slot] for slot in confirmed})
        await self._drop()

    async def _ask_ownership(self, channel: Channel) -> OwnershipReply | None:
        """Ask which slots the peer owns as it sees it; under a document that is known."""
        if self._exchange.ownership.document is not None:
            return None
        return cast(OwnershipReply, await channel.request(OwnershipRequest))

    async def _drop(self) -> None:
        """Forget what enough owners hold; the committer asks which once nothing is under way."""
        async with self._drop_turn:
            if not self._choose_done():
                return
            try:
                dropped = await self._committer.drop(self._begin_drop, new_replica(self._node_id, self._random))
            finally:
                self._dropping = _NONE
            if dropped:
                _log.info("handed %d slots over", len(dropped))
                # What became this node's again amid the drop is missing now, whatever was compared before.
                if self._exchange.ownership.document is None:
                    self._gained |= self._owned.intersection(dropped)
                    self._asked.clear()

    def _begin_drop(self) -> list[int]:
        """Choose what to forget; until it is forgotten no peer may count on this node for it."""
        done = self._choose_done()
        self._dropping = frozenset(done)
        return done

    def _choose_done(self) -> list[int]:
        ownership = self._exchange.ownership
        if ownership.is_joint:
            return []
        is_enough = partial(_have_all if ownership.document is None else _have_most, ownership)
        return self._handoff.done(self.surplus, self._store.versions, is_enough)


def _have_all(ownership: Ownership, slot: int, has: Callable[[str], bool]) -> bool:
    owners = ownership.owners(slot)
    return bool(owners) and all(map(has, owners))


def _have_most(ownership: Ownership, slot: int, has: Callable[[str], bool]) -> bool:
    return ownership.is_quorum(slot, Concern.MAJORITY, has)
