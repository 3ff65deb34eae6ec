"""Purges deleted keys by agreement of all members, and has a node that was away take in what others purged."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import NamedTuple, cast

from crdt_service.kernel.clock import Clock
from crdt_service.kernel.error import MalformedError, ServiceError
from crdt_service.kernel.ident import new_replica
from crdt_service.kernel.slot import slot_of
from crdt_service.loops.commit import Committer
from crdt_service.loops.exchange import Exchange, under
from crdt_service.loops.transfer import Transfer
from crdt_service.replication.garbage import HORIZON_SECONDS, MARGIN, Vacancies, is_stale
from crdt_service.replication.port import Channel, Observer
from crdt_service.replication.replica import Replica
from crdt_service.store.store import Store
from crdt_service.wire.message import (
    AgreedReply,
    AgreedRequest,
    Delta,
    PurgeRequest,
    Tombstone,
    TombstonesReply,
    TombstonesRequest,
    VoteReply,
    VoteRequest,
)

# Rounds per horizon. Raising it frees keys sooner after the horizon.
ROUNDS = 32
# For so many rounds a vote counts as knowledge of the agreement: the second message is under way.
PROMISE_ROUNDS = 2
PROMISES_MAX = 64
# Keys looked at before others may run.
SLICE_KEYS = 256
_log = logging.getLogger(__name__)


class _Promise(NamedTuple):
    """What this node has voted for: the agreement's number, when, and which keys with the digests they had."""

    number: int
    given_at: float
    digests: dict[str, int]


class Collector:
    """Proposes, votes and purges; also guards exchanges against states that were away for too long.

    Args:
        node_id: This node's name.
        store: The states.
        committer: Purges durably.
        replica: What this node durably knows of agreements.
        exchange: Channels, who the members are, and how far peers are.
        transfer: Fetches everything again where this node had to forget it.
        clock: The wall clock, which numbers agreements.
        observer: Learns how many keys were purged.
        randomness: Draws ids.
        is_complete: Tells whether no member is known to be away.
        on_rebuilt: Called once this node has forgotten everything, and the directory has another name if it had a seat.
        horizon_seconds: How long a key is unchanged before it is purged.
    """

    def __init__(
        self,
        node_id: str,
        store: Store,
        *,
        committer: Committer,
        replica: Replica,
        exchange: Exchange,
        transfer: Transfer,
        clock: Clock,
        observer: Observer,
        randomness: random.Random,
        is_complete: Callable[[], bool],
        on_rebuilt: Callable[[], None],
        horizon_seconds: float = HORIZON_SECONDS,
    ) -> None:
        self._node_id = node_id
        self._store = store
        self._committer = committer
        self._replica = replica
        self._exchange = exchange
        self._transfer = transfer
        self._clock = clock
        self._observer = observer
        self._random = randomness
        self._is_complete = is_complete
        self._on_rebuilt = on_rebuilt
        self._horizon_seconds = horizon_seconds
        self._vacancies = Vacancies(store, horizon_seconds)
        self._promises: deque[_Promise] = deque(maxlen=PROMISES_MAX)
        self._synced: dict[str, float] = {}
        replica.synced_at = self._believed(replica.synced_at)
        if not replica.synced_at and not replica.commits.newest and not len(store):
            replica.synced_at = clock.now_seconds()  # A new volume holds nothing from before.
        self._noted_at = replica.synced_at
        self._is_proposing = False
        self._catching_up = asyncio.Lock()
        transfer.guard(self)

    async def run(self) -> None:
        """Do a round now and then, for ever."""
        while True:
            await asyncio.sleep(self._horizon_seconds / ROUNDS * self._random.uniform(0.5, 1.5))
            try:
                await self._round()
            except ServiceError as error:
                _log.info("nothing is purged now: %s", error)

    async def vote(self, request: VoteRequest) -> VoteReply:
        """Return which keys this node may purge; none unless it knows the same agreements, and all have its commits.

        By then it holds each of these keys or has its tombstone, so whoever purges one, no member lacks it. Whoever
        says yes has seen go what is to be purged: until the second message comes that counts as knowing of it.

        Raises:
            MalformedError: A tombstone is none.
        """
        return VoteReply(request.id, [] if self._is_proposing else list(await self._vote(request)))

    async def purge(self, request: PurgeRequest) -> AgreedReply:
        """Purge what all agreed on; without an own vote, do nothing: this node learns of it before its next repair."""
        promise = self._find_promise(request.number)
        if promise is not None:
            keys = frozenset(request.keys)
            digests = {key: digest for key, digest in promise.digests.items() if key in keys}
            await self._purge(digests, request.number)
        return AgreedReply(request.id, self._replica.agreed)

    def show_tombstones(self, request: TombstonesRequest) -> TombstonesReply:
        """Return the next tombstones that a peer lacks."""
        page, last = self._store.tombstones.page(request.after)
        agreed = self._replica.agreed if last is None else last
        return TombstonesReply(request.id, agreed, self._store.tombstones.forgotten, page)

    async def check(self, channel: Channel) -> float:
        """Catch up with the agreements that a peer knows, before anything is exchanged; return the wall clock.

        Raises:
            ServiceError: The peer has to catch up first.
        """
        started = self._clock.now_seconds()
        agreed = cast(AgreedReply, await channel.request(AgreedRequest)).agreed
        async with self._catching_up:
            while agreed > self._replica.agreed:
                await self._catch_up(channel)
        if agreed < self._replica.agreed:
            raise ServiceError("behind", f"{channel.node_id} missed an agreement", "it catches up by itself")
        return started

    def note_synced(self, node_id: str, started: float) -> None:
        """Note that this node and a peer hold the same, as of a wall clock in seconds, and it has all commits."""
        self._synced[node_id] = started
        others = self._exchange.ownership.members.keys() - {self._node_id}
        if others and others <= self._synced.keys():
            oldest = min(self._synced[other] for other in others)
            self._replica.synced_at = max(self._believed(self._replica.synced_at), oldest)

    async def _round(self) -> None:
        now = self._now()
        if self._promises and self._promises[-1].given_at < now - PROMISE_ROUNDS * self._horizon_seconds / ROUNDS:
            self._replica.promised = 0
        self._vacancies.mark(now, self._replica.commits.newest)
        keys = iter(list(self._store.vacant))
        while part := list(islice(keys, SLICE_KEYS)):
            self._vacancies.observe(part, now)
            await asyncio.sleep(0)
        if abs(self._replica.synced_at - self._noted_at) >= self._horizon_seconds / ROUNDS:
            self._noted_at = self._replica.synced_at
            await self._committer.purge(list, self._replica.agreed)
        owners = self._exchange.ownership.owners
        ripe = [key for key in self._vacancies.ripe(now) if owners(slot_of(key))[:1] == (self._node_id,)]
        for states in self._vacancies.propose(ripe):
            self._is_proposing = True
            try:
                await self._propose(states)
            finally:
                self._is_proposing = False

    async def _propose(self, states: list[list[Delta]]) -> None:
        """Purge the keys of these states if everybody agrees.

        No other vote is given meanwhile, so that of two agreements one always builds on the other.

        Raises:
            ServiceError: Somebody is away or did not answer.
        """
        exchange, version = self._exchange, self._exchange.version
        ownership = exchange.ownership
        peers = exchange.peers
        others = ownership.nodes.keys() - {exchange.me}
        # Under a placement that changes an owner may have copied only a part. Who had peers and sees none may be away.
        is_away = not others <= peers.keys() or not self._is_complete() or (not others and self._replica.progress)
        if ownership.is_joint or is_away:
            raise ServiceError("incomplete", "a member is away", "it is tried again later")
        known = self._replica.agreed
        number = max(self._replica.vouched + 1, int(self._clock.now_seconds() * 1000))
        tombstones = [Tombstone(number, each) for each in states]
        build = partial(VoteRequest, agreed=known, number=number, tombstones=tombstones)
        digests = await self._vote(build(0))
        if not digests:
            return
        agreed = set(digests)
        channels = [under(peer.channel, ownership.epoch) for peer in peers.values()]
        requests = [channel.request(build) for channel in channels]
        for answer in await asyncio.gather(*requests, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
            agreed &= set(cast(VoteReply, answer).keys)
        is_same = exchange.version == version and exchange.peers.keys() == peers.keys()
        if not agreed or not is_same or self._replica.agreed != known:
            return
        chosen = {key: digest for key, digest in digests.items() if key in agreed}
        if not await self._purge(chosen, number):
            return
        tell = partial(PurgeRequest, number=number, keys=list(chosen))
        await asyncio.gather(*(channel.request(tell) for channel in channels), return_exceptions=True)

    async def _vote(self, request: VoteRequest) -> dict[str, int]:
        """Promise to purge some keys; return them with the digests of what is held of them."""
        for tombstone in request.tombstones:
            self._store.check_tombstone(tombstone)
        now = self._now()
        digests = self._vacancies.agree(request.tombstones, now) if self._may_vote(request) else {}
        lacking = [each for each in request.tombstones if digests.get(each.key) == 0 and not self._is_buried(each)]
        if (lacking and not await self._committer.bury(lacking)) or not digests or not self._may_vote(request):
            return {}
        self._promises.append(_Promise(request.number, now, digests))
        self._replica.promised = request.number
        return digests

    def _may_vote(self, request: VoteRequest) -> bool:
        is_next = request.agreed == self._replica.agreed and request.number > self._replica.vouched
        # A number from far ahead would have all later ones tell no time.
        is_timely = request.number <= max(self._replica.vouched + 1, 1000 * self._latest())
        return is_next and is_timely and self._is_settled()

    def _believed(self, synced_at: float) -> float:
        """Return when this node was last synced; 0 for a time to come: its clock was ahead, and has been set since."""
        return synced_at if synced_at <= self._latest() else 0.0

    def _latest(self) -> float:
        """Return the latest that it may be, in seconds."""
        return self._clock.now_seconds() + MARGIN * self._horizon_seconds

    def _is_buried(self, tombstone: Tombstone) -> bool:
        known = self._store.tombstones.get(tombstone.key)
        return known is not None and known.states == tombstone.states and known.agreed >= tombstone.agreed

    async def _purge(self, digests: dict[str, int], number: int) -> list[str]:
        """Purge the keys that are still the same, and own deltas of those that are not held here any more."""
        purged = await self._committer.purge(lambda: self._vacancies.unchanged(digests), number)
        self._observer.on_purged(len(purged))
        return purged

    async def _catch_up(self, channel: Channel) -> None:
        """Take in what a peer knows to be purged; start anew if it has forgotten something that is still held here.

        Raises:
            ServiceError: It did not work out; it is tried again before the next repair.
        """
        known = self._replica.agreed
        reply = cast(TombstonesReply, await channel.request(partial(TombstonesRequest, after=known)))
        if reply.agreed <= known:
            raise MalformedError("tombstones: the reply does not go on")
        for tombstone in reply.tombstones:
            self._store.check_tombstone(tombstone)
        is_missed = reply.forgotten > known and is_stale(
            self._replica.synced_at, reply.forgotten, self._horizon_seconds
        )
        if is_missed and len(self._store):
            _log.warning("this node was away while others forgot what they purged: its states are fetched anew")
            self._replica.synced_at = self._clock.now_seconds()
            is_done = await self._committer.rebuild(new_replica(self._node_id, self._random), reply)
            if is_done:
                self._on_rebuilt()
        else:
            is_done = await self._committer.catch_up(reply)
        if not is_done:
            raise ServiceError("storage_full", "what others purged cannot be noted", "free space on this node's volume")

    def _find_promise(self, number: int) -> "_Promise | None":
        return next((promise for promise in self._promises if promise.number == number), None)

    def _is_settled(self) -> bool:
        """Tell whether nobody lacks a commit of this node that is as old as what may be purged."""
        settled = self._vacancies.settled(self._now())
        return settled is not None and self._exchange.has_sent(settled)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
