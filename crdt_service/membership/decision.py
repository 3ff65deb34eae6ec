"""Which document comes next is decided once: single-decree Paxos (Lamport, "Paxos Made Simple", 2001); pure.

The seats of a document's old set decide what follows it, a majority of them. The first document follows none: it is
decided among all nodes there are to be. Its first phase asks each of them, its second a majority (Howard, Malkhi and
Spiegelman, "Flexible Paxos", 2016). An empty directory cannot tell a new cluster from lost disks, so one that stays
silent may hold a document.
"""

from collections.abc import Collection, Iterable

from msgspec.structs import replace

from crdt_service.membership.document import replicas_of, seats_of
from crdt_service.wire.message import Ballot, PlacementDocument, PlacementState, PrepareReply


def prepare(state: PlacementState, ballot: Ballot) -> PlacementState | None:
    """Return what is known once `ballot` is promised; None if a greater one is."""
    return None if tuple(ballot) <= tuple(state.promised) else replace(state, promised=ballot)


def accept(
    state: PlacementState, ballot: Ballot, document: PlacementDocument, replica: str, node_id: str
) -> PlacementState | None:
    """Return what is known once `document` is accepted; None if a greater ballot is promised, or it names another seat.

    A first document is accepted only by a directory that it names: another one of the same node may be lost by now.
    """
    if tuple(ballot) < tuple(state.promised):
        return None
    if state.document is None and not _names(document, replica, node_id):
        return None
    return replace(state, promised=ballot, accepted_at=ballot, accepted=document)


def next_ballot(seen: Iterable[Ballot], replica: str) -> Ballot:
    """Return a ballot greater than all that were seen."""
    return (max((counter for counter, _ in seen), default=0) + 1, replica)


def choose(replies: Iterable[PrepareReply], own: PlacementDocument) -> PlacementDocument:
    """Return what to propose: of what was accepted before, that with the greatest ballot; else `own`."""
    known = [(tuple(reply.accepted_at), reply.accepted) for reply in replies if reply.accepted is not None]
    return max(known, key=lambda each: each[0])[1] if known else own


def is_decided(document: PlacementDocument | None, proposed: PlacementDocument, accepted: Collection[str]) -> bool:
    """Tell whether the directories that accepted what follows `document` are a majority of those who decide."""
    return is_majority(replicas_of(proposed.old if document is None else document.old), accepted)


def is_majority(voters: frozenset[str], agreed: Collection[str]) -> bool:
    """Tell whether those who agreed include more than half of those who decide."""
    return 2 * len(voters.intersection(agreed)) > len(voters)


def _names(document: PlacementDocument, replica: str, node_id: str) -> bool:
    seat = seats_of(document).get(replica)
    return seat is not None and seat.node_id == node_id
