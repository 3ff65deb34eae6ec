"""``placement``: shows who owns what, and has an operator accept that disks are lost for ever."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.kernel.slot import SLOTS, slot_of
from crdt_service.membership.document import accept_loss, replicas_of, seats_of, tell_of
from crdt_service.membership.link import Endpoint
from crdt_service.membership.ownership import follow_document
from crdt_service.net.operator import Operator
from crdt_service.survey import Report, Sighting, Survey, propose, survey
from crdt_service.wire.message import (
    Concern,
    ListReply,
    ListRequest,
    PlacementDocument,
    ProposeRequest,
    Seat,
)

# Nodes that see each other have taken the same document up within it.
SETTLE_SECONDS_MAX = 10.0
POLL_SECONDS = 0.5
_PAGE_KEYS = 1000
_HEADINGS = ("NODE", "SEAT", "ZONE", "SLOTS", "TO COPY", "STATE")


@dataclass(frozen=True)
class Loss:
    """What goes with some seats.

    Attributes:
        slots: Those of which fewer owners are left than a majority: what only the lost ones had acknowledged is gone.
        all_slots: Those of them that have no owner left: all of them is gone that no other node happens to hold.
        keys: How many keys of `slots` those who are left hold.
    """

    slots: frozenset[int]
    all_slots: frozenset[int]
    keys: int


class PlacementCommand:
    """One run of a command.

    Args:
        operator: Connects to nodes.
        peers: Where nodes listen; those that answer tell of all.
        report: Called with a line of progress.
    """

    def __init__(self, operator: Operator, peers: Sequence[Endpoint], report: Report) -> None:
        self._operator = operator
        self._peers = peers
        self._report = report

    async def show(self) -> list[str]:
        """Return the placement as lines of text.

        Raises:
            ServiceError: No node answers.
        """
        seen = await self._survey()
        if seen.document is None:
            nodes = sorted(sighting.node_id for sighting in seen.sightings.values())
            return [f"there is no placement yet; nodes that answer: {', '.join(nodes)}; see their /health"]
        return describe(seen, seen.document)

    async def accept_loss(self, names: Sequence[str], confirm: Callable[[list[str]], None]) -> list[str]:
        """Decide to go on without some seats; return what is told of it.

        A majority of the members decides it. Where none answers, every one that is left takes the same document up by
        itself, so all of them have to be there.

        Args:
            names: Seats, by their directories or their nodes.
            confirm: Called with the directories that are given up once it is reported what goes with them.

        Raises:
            ServiceError: A seat is no loss, none would be left, or one that is left does not answer.
        """
        seen, document = await self._read_settled()
        lost = _read_seats(document, names)
        here = [sighting.node_id for sighting in seen.find(lost)]
        if here:
            raise ServiceError(
                "seat_present", f"{', '.join(here)} answers, so it is not lost", "leave it out, or stop its node first"
            )
        voters = replicas_of(document.old)
        is_forced = 2 * len(seen.find(voters)) <= len(voters)
        proposal = accept_loss(document, lost, is_forced=is_forced)
        if proposal is None:
            raise ServiceError("owners_lost", "no seat would be left", "restore a backup into a new cluster")
        left = sorted(seats_of(proposal).values(), key=lambda seat: seat.node_id)
        silent = [seat.node_id for seat in left if seat.replica not in seen.sightings]
        if silent and is_forced:
            raise ServiceError(
                "undecided",
                f"{', '.join(silent)} does not answer, and is not given up",
                "no majority of members is left, so each one that is has to answer; start it, or give it up, too",
            )
        loss = await self._measure(document, lost, seen.find(seat.replica for seat in left))
        for line in _describe_loss(document, lost, loss, left, is_forced=is_forced):
            self._report(line)
        confirm(lost)
        request = partial(ProposeRequest, epoch=document.epoch, reason="accept_loss", lost=lost, is_forced=is_forced)
        asked = seen.find(seat.replica for seat in left) if is_forced else [_first(seen, document, lost)]
        for sighting in asked:
            try:
                await propose(self._operator, sighting.address, request)
            except ServiceError as error:
                if not is_forced or not await self._has_taken_up(sighting, proposal):
                    raise
                self._report(f"{sighting.node_id} has it already ({error.code})")
        return [
            f"placement {proposal.epoch}: {', '.join(lost)} is given up; the others copy from each other what is left",
            "check the data, then run `placement confirm-loss`",
        ]

    async def confirm_loss(self) -> list[str]:
        """Have nodes no longer tell of accepted losses; return what is told of it.

        Raises:
            ServiceError: A change is under way, or too few nodes answer.
        """
        seen = await self._survey()
        document = seen.document
        if document is None or not document.lost:
            return ["no accepted loss is to be confirmed"]
        request = partial(ProposeRequest, epoch=document.epoch, reason="confirm_loss")
        await propose(self._operator, _first(seen, document, ()).address, request)
        return [f"the loss of {', '.join(document.lost)} is confirmed"]

    async def _survey(self) -> Survey:
        seen = await survey(self._operator, self._peers)
        if not seen.sightings:
            raise ServiceError("no_node", "no node answers", "give the address of one that runs by --peer")
        return seen

    async def _read_settled(self) -> tuple[Survey, PlacementDocument]:
        """Return what nodes say once all that answer have taken the same document up.

        Raises:
            ServiceError: There is none, or they do not.
        """
        end = time.monotonic() + SETTLE_SECONDS_MAX
        while True:
            seen = await self._survey()
            if seen.document is None:
                raise ServiceError("no_placement", "there is no placement yet", "look at /health of the nodes")
            behind = [
                sighting.node_id
                for sighting in seen.find(seats_of(seen.document))
                if sighting.word is None or sighting.word.epoch != seen.document.epoch
            ]
            if not behind:
                return seen, seen.document
            if time.monotonic() > end:
                raise ServiceError(
                    "undecided",
                    f"{', '.join(behind)} has not taken up placement {seen.document.epoch}",
                    "see that nodes reach each other, then run it again",
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _has_taken_up(self, sighting: Sighting, document: PlacementDocument) -> bool:
        seen = await survey(self._operator, [sighting.address])
        word = seen.sightings[sighting.replica].word if sighting.replica in seen.sightings else None
        return word is not None and word.epoch >= document.epoch

    async def _measure(self, document: PlacementDocument, lost: Sequence[str], left: Iterable[Sighting]) -> Loss:
        slots, all_slots = lost_slots(document, lost)
        keys: set[str] = set()
        if slots:
            for sighting in left:
                keys |= await self._list_keys(sighting, slots)
        return Loss(slots, all_slots, len(keys))

    async def _list_keys(self, sighting: Sighting, slots: frozenset[int]) -> set[str]:
        """Return the keys of some slots that a node holds."""
        keys: set[str] = set()
        after = ""
        async with self._operator.connect(sighting.address) as (channel, _):
            while True:
                request = partial(ListRequest, prefix="", after=after, limit=_PAGE_KEYS)
                reply = cast(ListReply, await channel.request(request))
                keys |= {each.key for each in reply.keys if slot_of(each.key) in slots}
                if reply.upto is None:
                    return keys
                after = reply.upto


def lost_slots(document: PlacementDocument, lost: Iterable[str]) -> tuple[frozenset[int], frozenset[int]]:
    """Return (slots of which fewer owners are left than a majority, those of them that have none left)."""
    gone = frozenset(lost)
    ownership = follow_document(document)
    majority, every = set(), set()
    for slot in range(SLOTS):
        for group in ownership.groups(slot):
            left = len(set(group.owners) - gone)
            if left < group.needed(Concern.MAJORITY):
                majority.add(slot)
                every |= set() if left else {slot}
    return frozenset(majority), frozenset(every)


def describe(seen: Survey, document: PlacementDocument) -> list[str]:
    """Return what is known of a placement as lines: its number and change, then a table of its seats."""
    ownership = follow_document(document)
    current = document.next or document.old
    left = seen.uncopied()
    lines = [
        f"{tell_of(document)}: {len(current.seats)} of {current.node_count} nodes have a seat,"
        f" each slot has {min(current.factor, len(current.seats))} owners"
    ]
    if document.next is not None:
        waits = sorted(
            {*left, *(seat.node_id for seat in seats_of(document).values() if not seen.find([seat.replica]))}
        )
        lines.append(f"slots to copy: {sum(left.values())}; waits for: {', '.join(waits) or 'the decision to end it'}")
    if document.lost:
        lines.append(
            f"the loss of {', '.join(document.lost)} was accepted: check the data, then `placement confirm-loss`"
        )
    owned = ownership.count()
    kept = replicas_of(current)
    rows = [
        (
            seat.node_id,
            seat.replica,
            seat.zone or "-",
            str(owned.get(seat.node_id, 0) if seat.replica in kept else 0),
            str(left.get(seat.node_id, 0) if seat.replica in kept else 0),
            _judge(seen, document, seat),
        )
        for seat in sorted(seats_of(document).values(), key=lambda seat: (seat.node_id, seat.replica))
    ]
    seats = seats_of(document)
    rows += [
        (sighting.node_id, "none", _zone_of(sighting) or "-", "0", "0", "syncing")
        for sighting in sorted(seen.sightings.values(), key=lambda sighting: sighting.node_id)
        if sighting.replica not in seats
    ]
    return [*lines, "", *_align([_HEADINGS, *rows])]


def _judge(seen: Survey, document: PlacementDocument, seat: Seat) -> str:
    sighting = seen.sightings.get(seat.replica)
    if sighting is None:
        others = Counter(other.node_id for other in seen.sightings.values())
        return "another volume answers" if others[seat.node_id] else "does not answer"
    if sighting.word is None or sighting.word.epoch < document.epoch:
        return f"has taken up placement {0 if sighting.word is None else sighting.word.epoch} only"
    if document.next is not None and seat.replica not in replicas_of(document.next):
        return "goes"
    return "comes" if seat.replica not in replicas_of(document.old) else "holds"


def _zone_of(sighting: Sighting) -> str:
    return "" if sighting.word is None else sighting.word.zone


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _read_seats(document: PlacementDocument, names: Sequence[str]) -> list[str]:
    """Return the directories that an operator names, by themselves or by their nodes.

    Raises:
        ConfigError: A name is that of no seat, or of two.
    """
    seats = seats_of(document)
    lost = []
    for name in names:
        found = [seat.replica for seat in seats.values() if name in (seat.replica, seat.node_id)]
        if len(found) != 1:
            what = f"two seats: {', '.join(sorted(found))}" if found else f"no seat of placement {document.epoch}"
            raise ConfigError(f"{name}: {what}", "give a seat as `placement show` has it")
        lost += found
    return sorted(set(lost))


def _describe_loss(
    document: PlacementDocument, lost: Sequence[str], loss: Loss, left: Sequence[Seat], *, is_forced: bool
) -> list[str]:
    members = f"{len(left)} of {len(replicas_of(document.old))} members are left: "
    return [
        f"given up for ever: {', '.join(lost)}",
        f"{len(loss.slots)} of {SLOTS} slots lose the majority of their owners, {len(loss.all_slots)} of them all",
        f"{loss.keys} keys are known in them; what only the lost seats had acknowledged of them is gone",
        members + ("each of them takes the new placement up by itself" if is_forced else "a majority of them decides"),
    ]


def _first(seen: Survey, document: PlacementDocument, lost: Iterable[str]) -> Sighting:
    """Return a node that decides on what follows a document.

    Raises:
        ServiceError: None answers.
    """
    voters = seen.find(sorted(replicas_of(document.old) - set(lost)))
    if not voters:
        raise ServiceError("undecided", f"no member of placement {document.epoch} answers", "have more nodes run")
    return voters[0]
