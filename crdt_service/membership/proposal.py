"""What an operator may propose on top of a document; pure."""

from collections.abc import Collection, Mapping

from crdt_service.kernel.error import ServiceError
from crdt_service.membership import document as documents
from crdt_service.membership.document import can_abort, seats_of, tell_of
from crdt_service.wire.message import PlacementDocument, ProposeRequest


def make_proposal(
    document: PlacementDocument,
    request: ProposeRequest,
    proposer: str,
    *,
    factor: int,
    zones: Mapping[str, str],
    present: Collection[str],
) -> PlacementDocument | None:
    """Return the document that an operator asks for; None if that is so already.

    Args:
        document: The one that holds.
        request: What is asked for.
        proposer: The node that is asked.
        factor: Owners of each slot, as that node was told.
        zones: Where nodes run now, by node id.
        present: The directories that are there, by name.

    Raises:
        ServiceError: It cannot be.
    """
    if request.epoch != document.epoch:
        raise ServiceError("placement_changed", tell_of(document), "look, then run again")
    if request.reason == "abort":
        return _abort(document, proposer)
    if request.reason == "accept_loss":
        return _accept_loss(document, request, present)
    if document.next is not None:
        raise ServiceError("change_under_way", tell_of(document), "wait for its end, or give it up by `resize --abort`")
    if request.reason == "confirm_loss":
        return documents.confirm_loss(document)
    if request.reason != "resize" or not request.node_count:
        raise ServiceError("malformed", f"no operator may propose {request.reason!r}", "use the commands for it")
    return documents.resize(document, request.node_count, request.replication_factor or factor, zones, proposer)


def follows(document: PlacementDocument | None, proposal: PlacementDocument) -> bool:
    """Tell whether a document is a proposal, or the end of the change that it began."""
    if document is None or document == proposal:
        return document is not None
    return document.epoch == proposal.epoch + 1 and document.reason == "end" and document.old == proposal.next


def tell_of_loss(request: ProposeRequest) -> str:
    """Return what the log says of the seats that an operator gives up."""
    if not request.lost:
        return ""
    return f"; given up: {', '.join(request.lost)}{', without a majority of members' if request.is_forced else ''}"


def _abort(document: PlacementDocument, proposer: str) -> PlacementDocument | None:
    if document.next is None:
        return None
    if not can_abort(document):
        raise ServiceError("change_under_way", f"{tell_of(document)}, and cannot be given up", "wait for its end")
    return documents.abort(document, proposer)


def _accept_loss(document: PlacementDocument, request: ProposeRequest, present: Collection[str]) -> PlacementDocument:
    unknown = sorted(set(request.lost) - seats_of(document).keys())
    if unknown or not request.lost:
        names = ", ".join(unknown) or "nothing"
        raise ServiceError(
            "unknown_seat", f"{names}: no seat of placement {document.epoch}", "see `placement show` for its seats"
        )
    here = sorted(set(request.lost) & set(present))
    if here:
        raise ServiceError(
            "seat_present", f"{', '.join(here)} is here, so it is not lost", "leave it out, or stop its node first"
        )
    proposal = documents.accept_loss(document, request.lost, is_forced=request.is_forced)
    if proposal is None:
        raise ServiceError("owners_lost", "no seat would be left", "restore a backup into a new cluster")
    return proposal
