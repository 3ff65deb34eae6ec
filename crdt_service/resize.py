"""Changes how many nodes there are to be: has that decided, and waits until those that go hold nothing any more."""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from crdt_service.kernel.config import split_address
from crdt_service.kernel.error import ServiceError
from crdt_service.membership.document import is_below, replicas_of, seats_of, tell_of
from crdt_service.membership.link import Endpoint
from crdt_service.net.operator import Operator
from crdt_service.survey import Report, Sighting, Survey, propose, survey
from crdt_service.wire.message import (
    LeaveReply,
    LeaveRequest,
    MemberUpdate,
    PlacementDocument,
    ProposeRequest,
)

POLL_SECONDS = 1.0
# Changes that nodes make by themselves end within it. Raising it waits longer for one whose nodes have failed.
PASSING_SECONDS_MAX = 120.0
# Raising it waits longer for nodes that restart amid a resize.
SILENT_SECONDS_MAX = 60.0
# What nodes do by themselves: no operator asked for it.
_PASSING = ("replace", "join", "upgrade", "confirm_loss")


class Resizing:
    """One run of the command.

    Args:
        operator: Connects to nodes.
        peers: Where nodes listen; those that answer tell of all.
        report: Called with a line of progress.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        operator: Operator,
        peers: Sequence[Endpoint],
        report: Report,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._operator = operator
        self._peers = peers
        self._report = report
        self._clock = clock
        self._said = ""

    async def resize(self, node_count: int, replication_factor: int = 0) -> None:
        """Return once that many nodes are decided on, and none beyond them holds anything.

        Interrupted, it may simply be begun again. Where no node answers it does nothing: a cluster that is down must
        not keep an upgrade from repairing it, and volumes keep what they hold.

        Args:
            node_count: How many nodes there are to be.
            replication_factor: Owners of each slot from now on, 0 for as many as the nodes were told.

        Raises:
            ServiceError: Another change was decided, too few nodes answer, or one ends before it handed all over.
        """
        seen = await survey(self._operator, self._peers)
        if not seen.sightings:
            self._report("no node answers, so none hands anything over; the volumes keep what they hold")
            return
        if seen.document is None:
            await self._have_leave(seen, node_count)
            return
        document = await self._wait_passing(seen, node_count)
        if document is None:
            return
        proposed = await self._propose(document, node_count, replication_factor)
        if proposed.epoch == document.epoch and proposed.next is None:
            self._report(f"placement {document.epoch} has {node_count} nodes already: nothing is to be changed")
        else:
            self._report(f"placement {proposed.epoch}: {node_count} nodes, {_count_going(proposed)} of them to go")
        await self._wait_end(proposed, node_count)
        await self._wait_empty(node_count)

    async def abort(self) -> None:
        """Give up the change that is under way.

        Raises:
            ServiceError: It cannot be given up, or too few nodes answer.
        """
        seen = await survey(self._operator, self._peers)
        document = seen.document
        if document is None or document.next is None:
            self._report("no change is under way" if seen.sightings else "no node answers: nothing is given up")
            return
        request = partial(ProposeRequest, epoch=document.epoch, reason="abort")
        await propose(self._operator, _choose(seen, document), request)
        self._report(f"placement {document.epoch} ({document.reason} by {document.proposer}) is given up")

    async def _propose(self, document: PlacementDocument, node_count: int, factor: int) -> PlacementDocument:
        """Return what was decided; the document as it is if that is what was asked for."""
        if document.next is not None:  # Another run of this command began it.
            return document
        seen = await survey(self._operator, self._peers)
        request = partial(
            ProposeRequest,
            epoch=document.epoch,
            reason="resize",
            node_count=node_count,
            replication_factor=factor,
        )
        reply = await propose(self._operator, _choose(seen, document), request)
        return document if reply.document is None else reply.document

    async def _wait_passing(self, seen: Survey, node_count: int) -> PlacementDocument | None:
        """Return the document to change, or the change to this count that is under way; None if nothing is to be done.

        What nodes do by themselves is waited for. One that does not end keeps a smaller cluster from coming to be, but
        no upgrade from repairing the nodes that it waits for.

        Raises:
            ServiceError: Another change is under way.
        """
        began = self._clock()
        document = seen.document
        while document is not None and document.next is not None:
            if document.reason == "resize" and document.next.node_count == node_count:
                return document
            if document.reason not in _PASSING:
                raise ServiceError(
                    "change_under_way", tell_of(document), "wait for its end, or give it up by resize --abort"
                )
            if self._clock() - began > PASSING_SECONDS_MAX:
                if document.next.node_count == node_count and not _has_going(document, node_count):
                    self._report(f"{tell_of(document)}: it goes on by itself, and is not waited for any longer")
                    return None
                raise ServiceError(
                    "change_under_way",
                    f"{tell_of(document)}, and does not end",
                    "see `placement show` for what it waits for, or give it up by resize --abort",
                )
            self._tell(f"{tell_of(document)} is waited for; {_describe_copies(seen)}")
            await asyncio.sleep(POLL_SECONDS)
            seen = await self._look()
            document = seen.document
        return document

    async def _wait_end(self, proposed: PlacementDocument, node_count: int) -> None:
        """Return once an even document holds with that many nodes.

        Raises:
            ServiceError: The change was given up, or another one followed.
        """
        while True:
            seen = await self._look()
            document = seen.document
            if document is None or document.epoch < proposed.epoch:
                await asyncio.sleep(POLL_SECONDS)
                continue
            current = document.next or document.old
            is_given_up = document.reason == "abort" and document.epoch == proposed.epoch + 1
            if is_given_up or current.node_count != node_count:
                raise ServiceError("placement_changed", tell_of(document), "look, then run again")
            if document.next is None or document.reason != "resize":
                self._report(f"placement {document.epoch} has {node_count} nodes")
                return
            self._tell(f"placement {document.epoch}: {_describe_copies(seen)}")
            await asyncio.sleep(POLL_SECONDS)

    async def _wait_empty(self, node_count: int) -> None:
        """Return once nodes beyond the count hold nothing, and most members know the placement durably.

        Raises:
            ServiceError: One of them ended before that.
        """
        going: dict[str, Sighting] = {}
        heard_at: dict[str, float] = {}
        empty: set[str] = set()
        while True:
            seen = await self._look()
            document = seen.document
            if document is None:
                continue
            now = self._clock()
            for sighting in seen.sightings.values():
                heard_at[sighting.replica] = now
                if not is_below(sighting.node_id, node_count):
                    going[sighting.replica] = sighting
            for sighting in going.values():
                replica = sighting.replica
                if replica not in empty and _holds_nothing(seen.sightings.get(replica), document.epoch):
                    empty.add(replica)
                    self._report(f"{sighting.node_id} holds nothing any more")
            left = [going[replica] for replica in sorted(going.keys() - empty)]
            gone = [each.node_id for each in left if now - heard_at[each.replica] > SILENT_SECONDS_MAX]
            if gone:
                raise ServiceError(
                    "node_unreachable",
                    f"{', '.join(gone)} ended before it handed all over",
                    "start it again, then run the command again",
                )
            voters = replicas_of(document.old)
            know = [each for each in seen.find(voters) if each.word is not None and each.word.epoch >= document.epoch]
            if not left and 2 * len(know) > len(voters):
                break
            if left:
                self._tell("; ".join(map(_describe_held, (seen.sightings.get(each.replica, each) for each in left))))
            await asyncio.sleep(POLL_SECONDS)
        silent = sorted(
            member for member in seen.members if not is_below(member, node_count) and not _has_answered(going, member)
        )
        if silent:
            self._report(f"{', '.join(silent)} does not answer: what it alone holds stays on its volume")

    async def _look(self) -> Survey:
        """Ask until a node answers.

        Raises:
            ServiceError: None does for long.
        """
        began = self._clock()
        while not (seen := await survey(self._operator, self._peers)).sightings:
            if self._clock() - began > SILENT_SECONDS_MAX:
                raise ServiceError("no_node", "no node answers any more", "see that nodes run, then run it again")
            await asyncio.sleep(POLL_SECONDS)
        return seen

    def _tell(self, line: str) -> None:
        """Report what is going on, once."""
        if line != self._said:
            self._report(line)
        self._said = line

    async def _have_leave(self, seen: Survey, node_count: int) -> None:
        """Have nodes leave that no placement names, as the release before did.

        Raises:
            ServiceError: One refuses, or ends before it has handed all over.
        """
        going = [member for member in seen.members.values() if not is_below(member.node_id, node_count)]
        self._report(f"{len(seen.members)} nodes, {len(going)} to hand over what they hold")
        await asyncio.gather(*(self._leave(member) for member in going))

    async def _leave(self, member: MemberUpdate) -> None:
        address = split_address(member.address, f"address of {member.node_id}")
        async with self._operator.connect(address) as (channel, _):
            before = -1
            while (held := cast(LeaveReply, await channel.request(LeaveRequest)).held) > 0:
                if held != before:
                    self._report(f"{member.node_id} holds {held} slots still")
                before = held
                await asyncio.sleep(POLL_SECONDS)
        self._report(f"{member.node_id} holds nothing any more")


def _choose(seen: Survey, document: PlacementDocument) -> Endpoint:
    """Return where a node listens that decides on what follows a document.

    Raises:
        ServiceError: None answers.
    """
    voters = seen.find(sorted(replicas_of(document.old)))
    current = [each for each in voters if each.word is not None and each.word.epoch == document.epoch]
    if not current:
        raise ServiceError("undecided", f"no member of placement {document.epoch} answers", "have more nodes run")
    return current[0].address


def _count_going(document: PlacementDocument) -> int:
    return 0 if document.next is None else len(replicas_of(document.old) - replicas_of(document.next))


def _has_going(document: PlacementDocument, node_count: int) -> bool:
    return any(not is_below(seat.node_id, node_count) for seat in seats_of(document).values())


def _describe_copies(seen: Survey) -> str:
    lacking = [f"{node_id} {count}" for node_id, count in sorted(seen.uncopied().items())]
    return f"slots to copy: {', '.join(lacking)}" if lacking else "all is copied"


def _holds_nothing(sighting: Sighting | None, epoch: int) -> bool:
    """Tell whether a node that has taken the placement up holds nothing that it does not own."""
    return (
        sighting is not None and sighting.word is not None and sighting.word.epoch >= epoch and not sighting.word.held
    )


def _describe_held(sighting: Sighting) -> str:
    word = sighting.word
    return f"{sighting.node_id} holds {0 if word is None else word.held} slots still"


def _has_answered(sightings: dict[str, Sighting], node_id: str) -> bool:
    return any(sighting.node_id == node_id for sighting in sightings.values())
