"""``GET /v1/keys``: keys by prefix, in pages."""

from collections.abc import Sequence

import msgspec

from crdt_service.api.call import Call, Response, show
from crdt_service.api.cursor import decode_cursor, encode_cursor, page_parameters
from crdt_service.api.route import Access, Route
from crdt_service.api.router import Router
from crdt_service.kernel.ident import check_key
from crdt_service.wire.message import LISTED_KEYS_MAX

# A key as base64.
_CURSOR_LENGTH_MAX = 1024


class ListedView(msgspec.Struct, omit_defaults=True):
    """A key of a listing.

    Attributes:
        key: Its name.
        type: Its type.
        etag: Of what it holds, as headers carry it but without quotes.
        other_types: Further types that it holds, left out of nearly every key.
    """

    key: str
    type: str
    etag: str
    other_types: Sequence[str] = ()


class KeysView(msgspec.Struct):
    """A page of keys.

    Attributes:
        keys: In the order of code points; may be fewer than asked for, even none, before the end.
        cursor: What the next page is asked for with, null at the end.
        unanswered: Nodes that did not answer, or whose word of a key could not be joined with the others': what they
            hold may be missing.
    """

    keys: list[ListedView]
    cursor: str | None
    unanswered: list[str]


class Listing:
    """The listing."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def routes(self) -> list[Route]:
        """Return what is served."""
        return [
            Route(
                "GET",
                "/v1/keys",
                "list_keys",
                Access.READ,
                "List the keys that begin with a prefix, in order.",
                self.list,
                page_parameters(LISTED_KEYS_MAX, _CURSOR_LENGTH_MAX),
                result=KeysView,
                errors=("invalid_cursor", "invalid_key", "no_node"),
            )
        ]

    async def list(self, call: Call) -> Response:
        """Answer with a page.

        Raises:
            ServiceError: The cursor is none, or no node answers.
        """
        cursor = call.values["cursor"]
        page = await self._router.list_keys(
            call.principal.narrow(call.values["prefix"]),
            "" if cursor is None else decode_cursor(cursor, _read_key),
            call.values["limit"],
        )
        keys = [
            ListedView(listed.key, listed.type_name, listed.digest.hex(), page.other_types.get(listed.key, ()))
            for listed in page.keys
            if call.principal.may_touch(listed.key)
        ]
        return show(KeysView(keys, None if page.after is None else encode_cursor(page.after.encode()), page.unanswered))


def _read_key(content: bytes) -> str:
    return check_key(content.decode())
