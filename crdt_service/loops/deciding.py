"""Has the nodes decide which document comes next: asks them for promises, then to accept."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, cast

from crdt_service.kernel.error import MalformedError, ServiceError
from crdt_service.loops.commit import Committer
from crdt_service.membership.decision import accept, choose, is_decided, next_ballot, prepare
from crdt_service.membership.document import check_document, replicas_of
from crdt_service.replication.port import Channel
from crdt_service.replication.replica import Replica
from crdt_service.wire.message import (
    AcceptReply,
    AcceptRequest,
    Ballot,
    PlacementDocument,
    PlacementState,
    PrepareReply,
    PrepareRequest,
    Reply,
    Request,
    Seat,
)

# Raising it waits longer for one that is silent before a decision is tried again.
ANSWER_SECONDS_MAX = 1.0

Build = Callable[[Mapping[str, PrepareReply]], PlacementDocument | None]


class Decider:
    """One of those who decide, and one who proposes.

    Args:
        replica: What this node durably knows.
        committer: Makes promises durable.
        seat: Returns this directory as it is.
        is_empty: Tells whether this node holds nothing.
        node_count: How many nodes there are to be, as this one was told; it may be told otherwise later.
        randomness: Has proposers that are in each other's way wait for different times.
    """

    def __init__(
        self,
        replica: Replica,
        committer: Committer,
        *,
        seat: Callable[[], Seat],
        is_empty: Callable[[], bool],
        node_count: int,
        randomness: random.Random,
    ) -> None:
        self._replica = replica
        self._committer = committer
        self._seat = seat
        self._is_empty = is_empty
        self.node_count = node_count
        self._random = randomness
        self._seen: set[Ballot] = set()

    async def prepare(self, request: PrepareRequest) -> PrepareReply:
        """Promise to accept no lesser ballot on what follows a document.

        Raises:
            ServiceError: This node has taken up another document, or was told of another number of nodes.
        """
        self._check(request.epoch)
        if not request.epoch and request.node_count != self.node_count:
            raise ServiceError(
                "node_count_differs",
                f"{self._seat().node_id} was told that there are {self.node_count} nodes, not {request.node_count}",
                "give every node the same count",
            )
        is_promised = await self._note(request.epoch, partial(prepare, ballot=request.ballot))
        state = self._replica.placement
        return PrepareReply(
            request.id,
            is_promised,
            state.promised,
            state.accepted_at,
            state.accepted,
            self._seat(),
            self._is_empty(),
        )

    async def accept(self, request: AcceptRequest) -> AcceptReply:
        """Accept a document, unless a greater ballot was promised.

        Raises:
            MalformedError: It is no document.
            ServiceError: This node has taken up another document.
        """
        check_document(request.document)
        if request.document.epoch <= request.epoch:
            raise MalformedError(f"placement {request.document.epoch} does not follow {request.epoch}")
        self._check(request.epoch)
        seat = self._seat()
        change = partial(
            accept, ballot=request.ballot, document=request.document, replica=seat.replica, node_id=seat.node_id
        )
        is_accepted = await self._note(request.epoch, change)
        return AcceptReply(request.id, is_accepted, self._replica.placement.promised)

    async def decide(self, voters: Mapping[str, Channel], build: Build, *, asks_all: bool) -> PlacementDocument | None:
        """Have a document decided: this node's, or one that another has proposed before.

        Args:
            voters: Channels to the others who decide, by their directories' names.
            build: Returns this node's proposal, given their promises by directory; None to give up.
            asks_all: Every one of them must promise, not a majority.

        Returns:
            What is decided; None if nothing is yet: others are away, or in the way.
        """
        state = self._replica.placement
        epoch = self._replica.epoch
        ballot = next_ballot({*self._seen, state.promised}, self._replica.id)
        self._seen = {ballot}
        promises = {
            reply.seat.replica: reply for reply in await self._ask_promises(voters, epoch, ballot) if reply.is_promised
        }
        if asks_all and len(promises) <= len(voters):
            return None
        proposal = build(promises)
        if proposal is None or proposal.epoch <= epoch:  # Another one was decided since it was thought of.
            return None
        if not asks_all and not is_decided(state.document, proposal, promises):
            return None
        document = choose(promises.values(), proposal)
        request = partial(AcceptRequest, epoch=epoch, ballot=ballot, document=document)
        accepted = set()
        for replica, reply in (await self._ask(voters, request, self.accept)).items():
            answer = cast(AcceptReply, reply)
            self._seen.add(answer.promised)
            if answer.is_accepted:
                accepted.add(replica)
        return document if is_decided(state.document, document, accepted) else None

    async def back_off(self) -> None:
        """Wait for a while, so that one of several proposers gets through."""
        await asyncio.sleep(self._random.uniform(0.05, 0.5))

    async def _ask_promises(self, voters: Mapping[str, Channel], epoch: int, ballot: Ballot) -> Iterable[PrepareReply]:
        request = partial(PrepareRequest, epoch=epoch, ballot=ballot, node_count=self.node_count)
        replies = [cast(PrepareReply, reply) for reply in (await self._ask(voters, request, self.prepare)).values()]
        self._seen.update(reply.promised for reply in replies)
        return replies

    async def _ask(
        self,
        voters: Mapping[str, Channel],
        build: Callable[[int], Request],
        answer: Callable[[Any], Coroutine[Any, Any, Reply]],
    ) -> dict[str, Reply]:
        """Return the replies of those who decide, this node among them if it does, by directory."""
        waiting = {
            asyncio.create_task(_answer_or_none(channel.request(build))): replica for replica, channel in voters.items()
        }
        if self._decides():
            waiting[asyncio.create_task(_answer_or_none(answer(build(0))))] = self._replica.id
        if waiting:
            await asyncio.wait(waiting, timeout=ANSWER_SECONDS_MAX)
        replies: dict[str, Reply] = {}
        for task, replica in waiting.items():
            if not task.done():
                task.cancel()
            elif (reply := task.result()) is not None:
                replies[replica] = reply
        return replies

    def _decides(self) -> bool:
        document = self._replica.placement.document
        return document is None or self._replica.id in replicas_of(document.old)

    async def _note(self, epoch: int, change: Callable[[PlacementState], PlacementState | None]) -> bool:
        """Make a promise durable, if the document is still the same by then."""
        return await self._committer.place(
            lambda state: change(state) if self._replica.epoch == epoch and self._decides() else None
        )

    def _check(self, epoch: int) -> None:
        check_epoch(self._replica.epoch, epoch)


async def _answer_or_none(asking: Awaitable[Reply]) -> Reply | None:
    """Return the reply; None if it was refused or did not come."""
    try:
        return await asking
    except ServiceError:
        return None


def check_epoch(mine: int, theirs: int) -> None:
    """Refuse what is of another placement.

    Raises:
        ServiceError: ``moved`` if this node has taken up a later one, ``unplaced`` if it has not taken up that one yet.
    """
    if theirs < mine:
        raise ServiceError("moved", f"this node has taken up placement {mine}", "take it up, then ask again")
    if theirs > mine:
        raise ServiceError("unplaced", f"this node has taken up placement {mine} only", "tell it, then ask again")
