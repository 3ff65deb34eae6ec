"""Which placement holds, and what this node does for the next: it asks for a seat, copies, ends what can be ended."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, cast

from msgspec.structs import replace

from crdt_service.kernel.error import ServiceError, StorageFullError
from crdt_service.loops.commit import Committer
from crdt_service.loops.deciding import Build, Decider, check_epoch
from crdt_service.loops.exchange import Exchange
from crdt_service.loops.transfer import Transfer
from crdt_service.loops.vouching import Voucher
from crdt_service.membership import document as documents
from crdt_service.membership.document import check_document, has_seat, is_below, replicas_of
from crdt_service.membership.ownership import follow_document
from crdt_service.membership.proposal import follows, make_proposal, tell_of_loss
from crdt_service.replication.copying import decode_bits, encode_bits
from crdt_service.replication.port import Channel
from crdt_service.replication.replica import Replica
from crdt_service.store.store import Store
from crdt_service.wire.message import (
    PROTOCOL,
    Concern,
    DecisionReply,
    DecisionRequest,
    OwnerSet,
    PlacementDocument,
    PlacementReply,
    PlacementRequest,
    PlacementState,
    PlacementWord,
    PrepareReply,
    PrepareRequest,
    ProposeRequest,
    Seat,
    VouchRequest,
)

# Raising it does later what is to be done and no message asks for.
TICK_SECONDS = 0.5
# Nodes that ask for a seat within it get one by one change. Raising it copies less, and later.
GATHER_SECONDS = 10.0
# A change is given up once one of its next owners was silent for so long. Raising it waits longer for one that fails.
SILENT_SECONDS_MAX = 600.0
# What was accepted and not heard of again is brought to its end by whoever accepted it.
FINISH_SECONDS = 1.0
# How often an operator's proposal is tried. Raising it tells later that too few answer.
PROPOSALS_MAX = 5
_log = logging.getLogger(__name__)


class Placer:
    """Follows the placement that was decided, and has the next one decided.

    Args:
        node_id: This node's name.
        zone: Where it runs.
        node_count: How many nodes there are to be, as it was told; 0 where nodes are none of a cluster, and follow no
            placement.
        factor: Owners of a slot, as it was told.
        store: What it holds.
        replica: What it durably knows.
        committer: Makes it durable.
        exchange: Peers.
        transfer: Copies slots.
        zones: Returns where nodes run now, by node id.
        randomness: Draws ballots' pauses and lives.
        on_objection: Called with what a member says against this directory.
    """

    def __init__(
        self,
        node_id: str,
        *,
        zone: str,
        node_count: int,
        factor: int,
        store: Store,
        replica: Replica,
        committer: Committer,
        exchange: Exchange,
        transfer: Transfer,
        zones: Callable[[], dict[str, str]],
        randomness: random.Random,
        on_objection: Callable[[str], None],
    ) -> None:
        self._node_id = node_id
        self._zone = zone
        self._node_count = node_count
        self._factor = factor
        self._store = store
        self._replica = replica
        self._committer = committer
        self._exchange = exchange
        self._transfer = transfer
        self._zones = zones
        self._wake = asyncio.Event()
        # What peers said last, by their directories' names.
        self._words: dict[str, PlacementWord] = {}
        self._heard_at: dict[str, float] = {}
        self._accepted_since: tuple[object, float] = (None, 0.0)
        self._ready_since: float | None = None
        self._is_displaced = False
        self._fenced = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._epoch = 0
        self._decider = Decider(
            replica,
            committer,
            seat=self._seat,
            is_empty=lambda: not len(store),
            node_count=node_count,
            randomness=randomness,
        )
        self.voucher = Voucher(
            node_id,
            replica,
            committer,
            randomness=randomness,
            on_change=self._follow_voucher,
            on_objection=on_objection,
        )
        self._deciding = asyncio.Lock()
        committer.subscribe_placement(self._follow)
        exchange.follow(self.meet, transfer.run)
        transfer.follow(self.meet, self._note_copied)
        self._follow()
        self._follow_voucher()

    # What it knows.

    @property
    def document(self) -> PlacementDocument | None:
        """The placement that holds here, None before the first."""
        return self._replica.placement.document

    def tell_count(self, node_count: int) -> None:
        """Tell how many nodes there are to be from now on, as this node was told."""
        self._node_count = self._decider.node_count = node_count

    @property
    def has_seat(self) -> bool:
        """Whether this directory owns slots, or may."""
        return self.document is not None and has_seat(self.document, self._replica.id)

    @property
    def is_legacy(self) -> bool:
        """Whether the release before began this cluster, and there is no document yet: owners are live members."""
        if self.document is not None:
            return False
        if not self._node_count:
            return True
        return bool(len(self._store)) or any(each.protocol < PROTOCOL for each in self._exchange.channels.values())

    @property
    def serves(self) -> bool:
        """Whether this node takes and answers clients' requests about keys."""
        return self.is_legacy or (self.has_seat and self.voucher.is_settled)

    @property
    def shows(self) -> bool:
        """Whether this node shows clients what it holds."""
        return self.serves or (self.has_seat and self.voucher.is_readable)

    @property
    def is_ready(self) -> bool:
        """Whether this node has all that it is to have, so that another one may go away."""
        return self.is_legacy or (self.serves and self.voucher.is_known and self._transfer.is_synced)

    def missing(self) -> dict[str, int]:
        """Return how many slots each next owner has to copy still, by node id, as it said."""
        return self._exchange.ownership.uncopied(self._copied)

    # What others ask of it.

    def check_epoch(self, epoch: int) -> None:
        """Refuse to exchange data under another placement than this node's, or while it does not count.

        Raises:
            ServiceError: ``moved``, ``unplaced`` or ``unvouched``.
        """
        check_epoch(self._replica.epoch, epoch)
        self._check_known()

    def check_serving(self, *, is_write: bool) -> None:
        """Refuse to serve keys before this node knows what it owns.

        Raises:
            ServiceError: It is still ``syncing``, or ``fenced``; ``storage_full`` for a write that cannot be noted.
        """
        if self._fenced:
            message = f"node {self._node_id} is fenced: {self._fenced}"
            raise ServiceError("fenced", message, "ask another node; this one gets a new seat")
        if self.serves or (self.shows and not is_write):
            return
        if self.shows:
            raise StorageFullError("the data directory")
        raise ServiceError(
            "syncing", f"node {self._node_id} {self.describe()}", "retry, or ask another node; see its /health"
        )

    def _check_known(self) -> None:
        # Without a seat it counts nowhere, and no member vouches for it.
        if self._fenced or (self.has_seat and not self.voucher.is_known):
            raise ServiceError(
                "unvouched",
                f"no majority of the members has vouched for the volume of {self._node_id} yet",
                "ask again a little later",
            )

    def fence(self, reason: str) -> None:
        """Refuse everything from now on: this directory is not what others know it for."""
        self._fenced = reason
        self._exchange.is_voting = False

    def judge(self) -> tuple[bool, str]:
        """Return whether the placement is as it should be, and what people are told of it."""
        document = self.document
        waits = self._fenced or self.describe()
        if document is None:
            return not waits, f"this node {waits}" if waits else "this node owns all slots: it is none of a cluster"
        number = f"placement {document.epoch}"
        if waits:
            return False, f"{number}: this node {waits}"
        if document.next is not None:
            missing = ", ".join(f"{node_id} {count}" for node_id, count in sorted(self.missing().items()))
            return False, f"{number} ({document.reason} by {document.proposer}) is under way, slots to copy: {missing}"
        if document.lost:
            lost = ", ".join(document.lost)
            return False, f"{number}: the loss of {lost} was accepted; confirm it once its data is checked"
        if differing := self._differs(document.old):
            return False, f"{number} {differing}"
        return True, f"{number}: {len(document.old.seats)} of {document.old.node_count} nodes own all slots"

    def _differs(self, owners: OwnerSet) -> str:
        """Return in what a placement is not as this node was told, empty if in nothing; `resize` takes it all in."""
        if not self._node_count:
            way = "turn it on again, or run `placement accept-loss`"
            return f"has {owners.node_count} nodes, and clustering is off: {way}"
        if owners.node_count != self._node_count:
            return f"has {owners.node_count} nodes, this node was told of {self._node_count}: run `resize`"
        if owners.factor != self._factor:
            return f"has {owners.factor} owners of each slot, this node was told of {self._factor}: run `resize`"
        zones = self._zones()
        moved = [seat.node_id for seat in owners.seats if zones.get(seat.node_id, seat.zone) != seat.zone]
        return f"has other zones of {', '.join(moved)} than they are in now: run `resize`" if moved else ""

    def describe(self) -> str:
        """Return what this node does before it serves, for people; empty if it does."""
        document = self.document
        if document is None:
            return self._describe_first()
        if not self.has_seat:
            if not self._may_join(document):
                return (
                    f"has no seat in placement {document.epoch}, which has {document.old.node_count} nodes; resize it"
                )
            return (
                f"has no seat in placement {document.epoch} yet, and copies {len(self._transfer.missing)} slots first"
            )
        if not self.voucher.is_settled:
            return "waits for other members to vouch for its volume"
        return ""

    def _describe_first(self) -> str:
        """Return what this node waits for before the first placement, empty if there is to be none."""
        if not self._node_count:
            return ""
        if self.is_legacy:
            return "follows the live members until every node speaks the present protocol"
        known = 1 + sum(channel.protocol >= PROTOCOL for channel in self._exchange.channels.values())
        return f"waits for the first placement: {known} of {self._node_count} nodes are here, all are needed"

    def answer(
        self, node_id: str, replica: str, request: DecisionRequest | ProposeRequest
    ) -> Coroutine[Any, Any, DecisionReply]:
        """Return the reply to a request about placements.

        Args:
            node_id: Who asks.
            replica: Names its directory; empty for who has none.
            request: What is asked.

        Raises:
            ServiceError: It was refused.
        """
        if isinstance(request, PlacementRequest):
            return self._hear(node_id, replica, request)
        if isinstance(request, VouchRequest):
            return self.voucher.answer(replica, request)
        if isinstance(request, ProposeRequest):
            return self._propose_for_operator(request)
        self._check_known()
        if isinstance(request, PrepareRequest):
            return self._decider.prepare(request)
        return self._decider.accept(request)

    # What it does.

    async def run(self) -> None:
        """Do what is to be done for the placement, for ever."""
        while True:
            self._wake.clear()
            try:
                await self._step()
            except ServiceError as error:
                _log.info("placement: %s", error)
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def meet(self, channel: Channel) -> None:
        """Exchange placements with a peer, so that both have taken up the later one."""
        if channel.protocol < PROTOCOL:
            return
        try:
            await self._exchange_words(channel)
            await self.voucher.ask(channel)
        except ServiceError as error:
            _log.info("placement with %s: %s", channel.node_id, error)
        self._wake.set()

    async def _exchange_words(self, channel: Channel) -> None:
        document = None
        for _ in range(2):
            build = partial(PlacementRequest, word=self._word(), document=document)
            reply = cast(PlacementReply, await channel.request(build))
            self._listen(channel.replica, reply.word)
            if reply.document is not None:
                await self._take_up(reply.document)
            if reply.word.epoch >= self._replica.epoch:
                return
            document = self.document

    async def _hear(self, node_id: str, replica: str, request: PlacementRequest) -> PlacementReply:
        if replica:
            if request.document is not None:
                await self._take_up(request.document)
            self._listen(replica, request.word)
            self._wake.set()
        is_later = self._replica.epoch > request.word.epoch
        return PlacementReply(request.id, self._word(), self.document if is_later else None)

    def _listen(self, replica: str, word: PlacementWord) -> None:
        self._words[replica] = word
        self._heard_at[replica] = asyncio.get_running_loop().time()

    def _word(self) -> PlacementWord:
        state = self._replica.placement
        is_ready = self._ready_since is not None and not self.has_seat
        return PlacementWord(
            self._replica.epoch, state.copied, is_ready, self._node_count, self._zone, len(self._transfer.surplus)
        )

    def _seat(self) -> Seat:
        return Seat(self._node_id, self._replica.id, self._zone)

    async def _take_up(self, document: PlacementDocument) -> None:
        """Take a later document up durably, and tell of it.

        Raises:
            MalformedError: It is no document.
        """
        check_document(document)

        def change(state: PlacementState) -> PlacementState | None:
            if state.document is not None and state.document.epoch >= document.epoch:
                return None
            return documents.take_up(state, document, encode_bits(self._whole_under(state, document)))

        await self._committer.place(change)

    def _whole_under(self, state: PlacementState, document: PlacementDocument) -> frozenset[int]:
        """Return the slots that this node answers for alone once it has taken a document up."""
        owned = follow_document(document).owns(self._replica.id)
        if state.document is None:  # Of a new cluster's slots there is nothing to copy.
            return owned if document.reason == "first" else owned & self._transfer.whole
        return decode_bits(state.whole) & owned

    def _follow(self) -> None:
        """Take in what is durably known now."""
        document = self.document
        if document is None:
            return
        if document.epoch == self._epoch:
            self._transfer.note_copied()
            self._wake.set()
            return
        had_seat = self._exchange.is_voting and self._epoch > 0
        self._epoch = document.epoch
        self._ready_since = None
        if had_seat and not self.has_seat and self._node_id in {each.node_id for each in document.old.seats}:
            _log.error("another directory has taken the seat of %s: give each node its own id", self._node_id)
            self._is_displaced = True
        _log.info("placement %d (%s by %s)", document.epoch, document.reason, document.proposer)
        ownership = follow_document(document)
        self._exchange.place(ownership)
        self._transfer.place(ownership, self._learning(document))
        self._wake.set()

    def _follow_voucher(self) -> None:
        """Count in quorums, or not."""
        is_known = self.voucher.is_known and not self._fenced
        self._exchange.is_voting = is_known and (self.document is None or self.has_seat)

    async def _step(self) -> None:
        document = self.document
        self._follow_voucher()
        if self._transfer.copied_alone and self.has_seat:
            await self._note_copied(self._transfer.copied_alone)
        if document is None:
            if self._node_count:
                await self._begin()
        elif self._is_left_behind(document):
            await self._decide(document, lambda _: self._replica.placement.accepted)
        elif document.next is not None:
            await self._settle(document)
        elif not self.has_seat:
            await self._ask_for_seat(document)

    async def _begin(self) -> None:
        """Have the first document decided, once all nodes there are to be are here."""
        channels = {
            node_id: channel for node_id, channel in self._exchange.channels.items() if node_id != self._node_id
        }
        ids = sorted([self._node_id, *channels], key=lambda node_id: (documents.number_of(node_id) or 0, node_id))
        ids = ids[: self._node_count]
        if len(ids) < self._node_count or self._node_id not in ids:
            return
        voters = {channels[node_id].replica: channels[node_id] for node_id in ids if node_id != self._node_id}
        if any(channel.protocol < PROTOCOL for channel in voters.values()):
            return
        if ids[0] != self._node_id:  # One proposes; the others in case that it is cut off from some.
            await asyncio.sleep(TICK_SECONDS * ids.index(self._node_id))
            if self.document is not None or self._decider.is_asked:
                return

        def build(promises: Mapping[str, PrepareReply]) -> PlacementDocument | None:
            seats = [promise.seat for promise in promises.values()]
            is_new = all(promise.is_empty for promise in promises.values())
            return documents.first(seats, self._factor, self._node_count, self._node_id, is_new=is_new)

        await self._decide(None, build, voters)

    async def _settle(self, document: PlacementDocument) -> None:
        """End a change once enough is copied; give it up if that does not come to be."""
        ownership = self._exchange.ownership
        copied = {name: self._copied(name) for name in ownership.nodes}
        moving = ownership.moving()
        after = follow_document(documents.end(document, self._node_id))
        if all(after.is_quorum(slot, Concern.MAJORITY, partial(_has_copied, copied, slot)) for slot in moving):
            await self._decide(document, lambda _: documents.end(document, self._node_id))
        elif documents.can_abort(document) and self._is_silent(document):
            await self._decide(document, lambda _: documents.abort(document, self._node_id))

    def _is_silent(self, document: PlacementDocument) -> bool:
        """Tell whether a next owner was away for so long that the change is given up."""
        now = asyncio.get_running_loop().time()
        present = {channel.replica for channel in self._exchange.channels.values()} | {self._replica.id}
        for replica in replicas_of(document.next or document.old):
            if replica in present:
                self._heard_at[replica] = now
            elif now - self._heard_at.setdefault(replica, now) > SILENT_SECONDS_MAX:
                return True
        return False

    async def _ask_for_seat(self, document: PlacementDocument) -> None:
        """Copy what this node would own, then have it given a seat, together with others that ask for one."""
        if not self._may_join(document):
            return
        if not self._transfer.is_learned or not self._exchange.channels:
            return
        now = asyncio.get_running_loop().time()
        if self._ready_since is None:
            self._ready_since = now
            await self._tell()
        known = {each.node_id for each in document.old.seats}
        joining = {self._node_id: self._seat()}
        for channel in self._exchange.channels.values():
            node_id, replica = channel.node_id, channel.replica
            word = self._words.get(replica)
            if word is not None and word.is_ready and not has_seat(document, replica):
                joining[node_id] = Seat(node_id, replica, word.zone)
        expected = document.old.node_count - len(known | joining.keys())
        is_replacing = self._node_id in known
        if expected > 0 and not is_replacing and now - self._ready_since < GATHER_SECONDS:
            return
        if min(joining) != self._node_id and now - self._ready_since < GATHER_SECONDS:
            return
        await self._decide(document, lambda _: documents.seat(document, joining.values(), self._node_id))

    def _may_join(self, document: PlacementDocument) -> bool:
        if self._is_displaced:
            return False
        known = {each.node_id for each in document.old.seats}
        return self._node_id in known or is_below(self._node_id, document.old.node_count)

    def _learning(self, document: PlacementDocument) -> frozenset[int]:
        """Return the slots that this node would own, had it a seat."""
        if has_seat(document, self._replica.id) or document.next is not None or not self._may_join(document):
            return frozenset()
        mine = follow_document(documents.seat(document, [self._seat()], self._node_id))
        return mine.owned_after(self._replica.id)

    def _is_left_behind(self, document: PlacementDocument) -> bool:
        """Tell whether something was accepted some time ago, and nothing is heard of it any more."""
        state = self._replica.placement
        now = asyncio.get_running_loop().time()
        what = (document.epoch, state.accepted_at)
        if state.accepted is None or what != self._accepted_since[0]:
            self._accepted_since = (what, now)
            return False
        # One after the other, so that they are not in each other's way.
        rank = sorted(replicas_of(document.old)).index(self._replica.id)
        return now - self._accepted_since[1] > FINISH_SECONDS * (1 + rank)

    async def _decide(
        self,
        document: PlacementDocument | None,
        build: Build,
        voters: dict[str, Channel] | None = None,
    ) -> PlacementDocument | None:
        """Have what follows a document decided and take it up; None if nothing is decided yet, or that one was left.

        Something built on another document than the one that it is to follow could be accepted, and never taken up.
        """
        async with self._deciding:
            if self._replica.epoch != (0 if document is None else document.epoch):
                return None
            is_first = document is None
            if voters is None:
                names = replicas_of(document.old) if document is not None else frozenset[str]()
                voters = {
                    channel.replica: channel
                    for channel in self._exchange.channels.values()
                    if channel.replica in names and channel.protocol >= PROTOCOL
                }
            decided = await self._decider.decide(voters, build, asks_all=is_first)
            if decided is None:
                await self._meet_all()
                await self._decider.back_off()
                return None
            await self._take_up(decided)
        await self._tell()
        return decided

    async def _note_copied(self, slots: frozenset[int]) -> bool:
        """Know durably that slots are copied, and tell it."""
        epoch = self._replica.epoch

        def change(state: PlacementState) -> PlacementState | None:
            if self._replica.epoch != epoch:
                return None
            copied, whole = decode_bits(state.copied) | slots, decode_bits(state.whole) | slots
            return replace(state, copied=encode_bits(copied), whole=encode_bits(whole))

        is_noted = await self._committer.place(change)
        if is_noted:
            await self._tell()
        return is_noted

    def _copied(self, name: str) -> frozenset[int]:
        """Return what an owner has copied in this epoch, by its word."""
        if name == self._replica.id:
            return decode_bits(self._replica.placement.copied)
        word = self._words.get(name)
        return frozenset() if word is None or word.epoch != self._replica.epoch else decode_bits(word.copied)

    async def _tell(self) -> None:
        """Exchange words with all peers, without waiting for those that do not answer."""
        for channel in self._exchange.channels.values():
            task = asyncio.create_task(self.meet(channel))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _meet_all(self) -> None:
        await asyncio.gather(*(self.meet(channel) for channel in self._exchange.channels.values()))

    async def _propose_for_operator(self, request: ProposeRequest) -> PlacementReply:
        document = self.document
        if document is None:
            raise ServiceError("no_placement", "there is no placement yet", "look at /health of the nodes")
        proposal = make_proposal(
            document,
            request,
            self._node_id,
            factor=self._factor,
            zones=self._zones(),
            present={channel.replica for channel in self._exchange.channels.values()} | {self._replica.id},
        )
        if proposal is None:
            return PlacementReply(request.id, self._word(), document)
        _log.warning("an operator proposes: %s%s", documents.tell_of(proposal), tell_of_loss(request))
        if request.is_forced:
            await self._take_up(proposal)
            await self._tell()
            decided = self.document
        else:
            decided = await self._decide_for_operator(document, proposal)
        if decided != proposal:
            raise ServiceError("placement_changed", documents.tell_of(decided or document), "look, then run again")
        return PlacementReply(request.id, self._word(), proposal)

    async def _decide_for_operator(
        self, document: PlacementDocument, proposal: PlacementDocument
    ) -> PlacementDocument | None:
        """Return what was decided: the proposal, or what another one proposed.

        Raises:
            ServiceError: Too few members answer.
        """
        for _ in range(PROPOSALS_MAX):
            decided = await self._decide(document, lambda _: proposal)
            if decided is not None:
                return decided
            if self._replica.epoch != document.epoch:  # Another member has brought it, or another one, to its end.
                return proposal if follows(self.document, proposal) else self.document
        raise ServiceError(
            "undecided", "too few members answered to decide on a placement", "run again once more nodes are up"
        )


def _has_copied(copied: Mapping[str, frozenset[int]], slot: int, name: str) -> bool:
    return slot in copied.get(name, ())
