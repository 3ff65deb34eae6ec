"""Has the nodes decide which document comes next: asks them for promises, then to accept."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Any, cast

from crdt_service.kernel.error import MalformedError, ServiceError
from crdt_service.loops.commit import Committer
from crdt_service.membership.decision import accept, choose, is_decided, is_majority, next_ballot, prepare
from crdt_service.membership.document import FIRST_EPOCH, check_document, replicas_of
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

# How long a disk may take for a promise. Raising it waits longer for what never comes; one that is silent fails sooner,
# by its channel.
ANSWER_SECONDS_MAX = 10.0
# How long a proposer waits at most after its first failure, twice as long after each further one.
BACK_OFF_SECONDS = 0.5

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
        self._failures = 0
        self._promised_at = -math.inf

    @property
    def is_asked(self) -> bool:
        """Whether another node may be about to have something decided: it was promised something not long ago."""
        return asyncio.get_running_loop().time() - self._promised_at < ANSWER_SECONDS_MAX

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
        if request.ballot[1] != self._replica.id:
            self._promised_at = asyncio.get_running_loop().time()
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
        is_new = not request.epoch and request.document.epoch == FIRST_EPOCH
        if is_new and not self._is_empty():
            # A backend of the release before may have had it take a write since it promised; that has to be copied.
            raise ServiceError("not_empty", f"{self._seat().node_id} holds keys", "ask for promises again")
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
        document = await self._decide(voters, build, asks_all=asks_all)
        self._failures = 0 if document is not None else self._failures + 1
        return document

    async def back_off(self) -> None:
        """Wait for a while, so that one of several proposers gets through, however slow the disks are."""
        seconds_max = min(BACK_OFF_SECONDS * 2 ** (self._failures - 1), ANSWER_SECONDS_MAX)
        await asyncio.sleep(self._random.uniform(0.05, seconds_max))

    async def _decide(self, voters: Mapping[str, Channel], build: Build, *, asks_all: bool) -> PlacementDocument | None:
        state = self._replica.placement
        epoch = self._replica.epoch
        ballot = next_ballot({*self._seen, state.promised}, self._replica.id)
        self._seen = {ballot}
        everyone = {*voters, self._replica.id}

        def is_enough(promised: Collection[str]) -> bool:
            if asks_all or state.document is None:
                return everyone <= set(promised)
            return is_majority(replicas_of(state.document.old), promised)

        request = partial(PrepareRequest, epoch=epoch, ballot=ballot, node_count=self.node_count)
        promises: dict[str, PrepareReply] = {}
        for replica, reply in (await self._ask(voters, request, self.prepare, is_enough)).items():
            promise = cast(PrepareReply, reply)
            self._seen.add(promise.promised)
            if promise.is_promised:
                promises[replica] = promise
        if not is_enough(promises):
            return None
        proposal = build(promises)
        if proposal is None or proposal.epoch <= epoch:  # Another one was decided since it was thought of.
            return None
        document = choose(promises.values(), proposal)
        accepting = partial(AcceptRequest, epoch=epoch, ballot=ballot, document=document)
        is_done = partial(is_decided, state.document, document)
        accepted = set()
        for replica, reply in (await self._ask(voters, accepting, self.accept, is_done)).items():
            answer = cast(AcceptReply, reply)
            self._seen.add(answer.promised)
            if answer.is_accepted:
                accepted.add(replica)
        return document if is_done(accepted) else None

    async def _ask(
        self,
        voters: Mapping[str, Channel],
        build: Callable[[int], Request],
        answer: Callable[[Any], Coroutine[Any, Any, Reply]],
        is_enough: Callable[[Collection[str]], bool],
    ) -> dict[str, Reply]:
        """Ask those who decide, this node among them if it does, until enough agree or too few can.

        Returns:
            The replies by directory.
        """
        waiting = {
            asyncio.create_task(_answer_or_none(partial(channel.request, build))): replica
            for replica, channel in voters.items()
        }
        if self._decides():
            waiting[asyncio.create_task(_answer_or_none(partial(answer, build(0))))] = self._replica.id
        replies: dict[str, Reply] = {}
        agreed: set[str] = set()
        end = asyncio.get_running_loop().time() + ANSWER_SECONDS_MAX
        while waiting and not is_enough(agreed) and is_enough(agreed | set(waiting.values())):
            seconds = end - asyncio.get_running_loop().time()
            done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            for task in [task for task in waiting if task in done]:
                replica = waiting.pop(task)
                reply = task.result()
                if reply is not None:
                    replies[replica] = reply
                    if _is_agreed(reply):
                        agreed.add(replica)
        for task in waiting:
            task.cancel()
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


def _is_agreed(reply: Reply) -> bool:
    return reply.is_promised if isinstance(reply, PrepareReply) else cast(AcceptReply, reply).is_accepted


async def _answer_or_none(ask: Callable[[], Awaitable[Reply]]) -> Reply | None:
    """Return the reply; None if it was refused or did not come."""
    try:
        return await ask()
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
