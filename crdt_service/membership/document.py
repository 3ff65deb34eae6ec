"""Numbered placements: who owns slots, and which document may follow which; pure.

An even document has one set of owners. An odd one joins two: every quorum is one of each, while the next owners copy
what the old ones hold. It ends in the even document after it, with the next set, or, given up, with the old one again.
So quorums of any two documents that follow each other meet (Lynch and Shvartsman, "RAMBO", 2002).
"""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from crdt_service.kernel.error import ConfigError, MalformedError
from crdt_service.kernel.ident import check_node_id, check_zone, is_replica
from crdt_service.wire.message import EPOCH_MAX, REASONS, OwnerSet, PlacementDocument, PlacementState, Seat

# The first document of a new cluster: nothing is held, so nothing is copied.
FIRST_EPOCH = 2
# That of a cluster which the release before began: owners followed its live members, and may be any of them.
UPGRADE_EPOCH = 1
# Beyond what those who are given up may have decided meanwhile.
FORCED_EPOCHS = 1000


def is_joint(document: PlacementDocument) -> bool:
    """Tell whether two sets own slots together."""
    return document.next is not None


def check_document(document: PlacementDocument) -> None:
    """Refuse what no honest process decides.

    Raises:
        MalformedError: It is no document.
    """
    if (document.epoch % 2 == 1) != is_joint(document) or document.reason not in REASONS:
        raise MalformedError(f"placement {document.epoch}: it is no document")
    for owners in sets_of(document):
        for seat in owners.seats:
            try:
                check_node_id(seat.node_id)
                check_zone(seat.zone)
            except ConfigError as error:
                raise MalformedError(f"placement {document.epoch}: {error.message}") from error
            if not is_replica(seat.replica):
                raise MalformedError(f"placement {document.epoch}: replica {seat.replica!r}")
        ids = [seat.node_id for seat in owners.seats]
        if ids != sorted(set(ids)) or len(replicas_of(owners)) < len(ids):
            raise MalformedError(f"placement {document.epoch}: seats are not in order, or twice there")


def sets_of(document: PlacementDocument) -> tuple[OwnerSet, ...]:
    """Return the old set, and the next one if there is one."""
    return (document.old,) if document.next is None else (document.old, document.next)


def replicas_of(owners: OwnerSet) -> frozenset[str]:
    """Return the names of the seats' directories."""
    return frozenset(seat.replica for seat in owners.seats)


def seats_of(document: PlacementDocument) -> dict[str, Seat]:
    """Return every seat of either set by its directory's name."""
    return {seat.replica: seat for owners in sets_of(document) for seat in owners.seats}


def has_seat(document: PlacementDocument, replica: str) -> bool:
    """Tell whether a directory owns slots, or may."""
    return replica in seats_of(document)


def number_of(node_id: str) -> int | None:
    """Return the number at the end of a node's id, None if there is none."""
    number = node_id.rpartition("-")[2]
    return int(number) if number.isdecimal() else None


def is_below(node_id: str, node_count: int) -> bool:
    """Tell whether a node is one of so many; one without a number is."""
    number = number_of(node_id)
    return number is None or number < node_count


def make_set(seats: Iterable[Seat], factor: int, node_count: int) -> OwnerSet:
    """Return a set of owners."""
    return OwnerSet(sorted(seats, key=lambda seat: seat.node_id), factor, node_count)


def first(seats: Iterable[Seat], factor: int, node_count: int, proposer: str, *, is_new: bool) -> PlacementDocument:
    """Return the first document: of a new cluster, or of one whose owners no document named before."""
    owners = make_set(seats, factor, node_count)
    if is_new:
        return PlacementDocument(FIRST_EPOCH, owners, None, False, "first", proposer, [])
    return PlacementDocument(UPGRADE_EPOCH, owners, owners, True, "upgrade", proposer, [])


def seat(document: PlacementDocument, seats: Iterable[Seat], proposer: str) -> PlacementDocument:
    """Return what gives directories a seat: that of their node id, or one more."""
    known = {each.node_id for each in document.old.seats}
    joining = {each.node_id: each for each in seats}
    reason = "replace" if joining.keys() <= known else "join"
    seated = {each.node_id: each for each in document.old.seats} | joining
    owners = make_set(seated.values(), document.old.factor, document.old.node_count)
    return _change(document, owners, reason, proposer)


def resize(
    document: PlacementDocument, node_count: int, factor: int, zones: Mapping[str, str], proposer: str
) -> PlacementDocument | None:
    """Return what leaves out nodes beyond a count and takes in today's zones and factor; None if nothing changes.

    Args:
        document: An even one.
        node_count: How many nodes there are to be.
        factor: Owners of a slot.
        zones: Where nodes run now, by node id; of others it stays.
        proposer: The node that proposes it.
    """
    seats = {
        each.node_id: replace(each, zone=zones.get(each.node_id, each.zone))
        for each in document.old.seats
        if is_below(each.node_id, node_count)
    }
    if not seats:
        return None
    owners = make_set(seats.values(), factor, node_count)
    if owners == document.old:
        return None
    return _change(document, owners, "resize", proposer)


def accept_loss(document: PlacementDocument, lost: Iterable[str], *, is_forced: bool) -> PlacementDocument | None:
    """Return what goes on without some seats, and copies what the others hold; None if no seat would be left.

    With `is_forced` no majority of the seats decides it, so its number exceeds what those left out may have decided.
    """
    gone = set(lost)
    current = document.next if document.next is not None else document.old
    left = [each for each in current.seats if each.replica not in gone]
    known = [each for each in document.old.seats if each.replica not in gone]
    if not left or not known:
        return None
    step = 2 if is_joint(document) else 1
    epoch = document.epoch + step + (FORCED_EPOCHS if is_forced else 0)
    epoch += 1 - epoch % 2
    named = sorted({*document.lost, *(gone & seats_of(document).keys())})
    return PlacementDocument(
        epoch,
        make_set(known, document.old.factor, document.old.node_count),
        make_set(left, current.factor, current.node_count),
        True,
        "accept_loss",
        "operator",
        named,
    )


def confirm_loss(document: PlacementDocument) -> PlacementDocument | None:
    """Return what no longer tells of accepted losses; None if there are none."""
    if not document.lost:
        return None
    return replace(_change(document, document.old, "confirm_loss", "operator"), lost=[])


def end(document: PlacementDocument, proposer: str) -> PlacementDocument:
    """Return the even document in which the next owners of an odd one own slots alone."""
    return _settle(document, document.next, "end", proposer)


def abort(document: PlacementDocument, proposer: str) -> PlacementDocument:
    """Return the even document in which the old owners of an odd one own slots alone again."""
    return _settle(document, document.old, "abort", proposer)


def can_abort(document: PlacementDocument) -> bool:
    """Tell whether a change may be given up: of these two the set before is none that a majority has promised to."""
    return document.next is not None and document.reason not in ("upgrade", "accept_loss")


def tell_of(document: PlacementDocument) -> str:
    """Return what people are told of a document: its number, who changed what, and whether that is over."""
    nodes = (document.next or document.old).node_count
    is_over = "in force" if document.next is None else "under way"
    return f"placement {document.epoch} is {is_over} ({document.reason} by {document.proposer}, {nodes} nodes)"


def take_up(state: PlacementState, document: PlacementDocument, whole: bytes) -> PlacementState:
    """Return what a node knows once it has taken a later document up: nothing is promised or copied under it yet."""
    return PlacementState(document, whole=whole, life=state.life, lives=_remember(state, document))


def _remember(state: PlacementState, document: PlacementDocument) -> dict[str, tuple[int, int]]:
    """Return the lives of seats that still count; of others it does not matter."""
    known = seats_of(document)
    return {replica: life for replica, life in state.lives.items() if replica in known}


def _change(document: PlacementDocument, owners: OwnerSet, reason: str, proposer: str) -> PlacementDocument:
    return replace(document, epoch=document.epoch + 1, next=owners, copies_all=False, reason=reason, proposer=proposer)


def _settle(document: PlacementDocument, owners: OwnerSet | None, reason: str, proposer: str) -> PlacementDocument:
    if owners is None or document.epoch >= EPOCH_MAX:
        raise MalformedError(f"placement {document.epoch}: there is nothing to end")
    return PlacementDocument(document.epoch + 1, owners, None, False, reason, proposer, document.lost)
