"""``GET /v1/conflicts``: the conflicts that all reachable nodes hold, by key, in pages."""

from typing import Annotated, cast

import msgspec
from msgspec import Meta

from crdt_service.api.asgi import encode_json
from crdt_service.api.call import Call, Response, show
from crdt_service.api.cursor import decode_cursor, encode_cursor, page_parameters
from crdt_service.api.route import Access, Route
from crdt_service.api.router import Router
from crdt_service.kernel.ident import check_key
from crdt_service.replication.listing import merge_conflicts
from crdt_service.resolution.explanation import Resolution
from crdt_service.wire.message import CONFLICTS_MAX, Conflict, ConflictsReply, ConflictsRequest

# More than a place of eight fields of 256 bytes takes, as base64.
_CURSOR_LENGTH_MAX = 4096
# The tags of types, and that of a key which holds several.
_Place = tuple[str, Annotated[tuple[str, ...], Meta(max_length=8)], Annotated[int, Meta(ge=1, le=127)]]
_decoder = msgspec.msgpack.Decoder(_Place)


class ListedConflict(Resolution, kw_only=True):
    """One conflict and what was decided.

    Attributes:
        key: The key that holds it.
        node: The node that told it.
    """

    key: str
    node: str


class ConflictsView(msgspec.Struct):
    """A page of conflicts.

    Attributes:
        conflicts: In the order of their keys.
        cursor: What the next page is asked for with, null at the end.
        unanswered: Nodes that did not answer, whose conflicts may be missing.
    """

    conflicts: list[ListedConflict]
    cursor: str | None
    unanswered: list[str]


class Conflicts:
    """The listing."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def routes(self) -> list[Route]:
        """Return what is served."""
        return [
            Route(
                "GET",
                "/v1/conflicts",
                "list_conflicts",
                Access.READ,
                "List the conflicts that the nodes hold, in the order of keys.",
                self.list,
                page_parameters(CONFLICTS_MAX, _CURSOR_LENGTH_MAX),
                result=ConflictsView,
                errors=("invalid_cursor", "invalid_key", "no_node"),
            )
        ]

    async def list(self, call: Call) -> Response:
        """Answer with a page.

        Raises:
            ServiceError: The cursor is none, or no node answers.
        """
        prefix, limit, cursor = (call.values[name] for name in ("prefix", "limit", "cursor"))
        prefix = call.principal.narrow(prefix)
        after = None if cursor is None else decode_cursor(cursor, _read_place)
        answers, unanswered = await self._router.ask_all(
            lambda request_id: ConflictsRequest(request_id, prefix, after, limit)
        )
        replies = {node_id: cast(ConflictsReply, reply) for node_id, reply in answers.items()}
        page, following = merge_conflicts(replies, limit)
        return show(
            {
                "conflicts": [
                    _show(node_id, conflict) for node_id, conflict in page if call.principal.may_touch(conflict.key)
                ],
                "cursor": None if following is None else encode_cursor(msgspec.msgpack.encode(following)),
                "unanswered": unanswered,
            }
        )


def _show(node_id: str, conflict: Conflict) -> msgspec.Raw:
    """Put key and node before the members of the resolution."""
    head = encode_json({"key": conflict.key, "node": node_id})
    return msgspec.Raw(head[:-1] + b"," + conflict.resolution[1:])


def _read_place(content: bytes) -> _Place:
    place: _Place = _decoder.decode(content)
    check_key(place[0])
    return place
