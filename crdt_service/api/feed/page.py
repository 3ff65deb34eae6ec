"""``GET /v1/changes``: which keys change, as they do."""

import asyncio

from crdt_service.api.call import Call, Response
from crdt_service.api.feed.cursor import CURSOR_LENGTH_MAX, read_cursor
from crdt_service.api.feed.event import CONTENT_TYPE
from crdt_service.api.feed.feed import Feed
from crdt_service.api.feed.hub import Hub
from crdt_service.api.feed.replay import REPLAYS_MAX
from crdt_service.api.parameter import header, text
from crdt_service.api.route import Access, Route
from crdt_service.kernel.ident import KEY_BYTES_MAX

PREFIX = text("prefix", KEY_BYTES_MAX, "tell only of keys that begin so", "")
CURSOR = text("cursor", CURSOR_LENGTH_MAX, "go on after the event that had this id")
LAST_EVENT_ID = header("last-event-id", CURSOR_LENGTH_MAX, "the same as `cursor`, which it overrides")
_HEADERS = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


class Changes:
    """The change feed.

    Args:
        hub: What all feeds read.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._free = asyncio.Semaphore(REPLAYS_MAX)

    def routes(self) -> list[Route]:
        """Return what is served."""
        return [
            Route(
                "GET",
                "/v1/changes",
                "follow_changes",
                Access.READ,
                "Tell which keys change, as server-sent events, until the client leaves.",
                self.follow,
                (PREFIX, CURSOR, LAST_EVENT_ID),
                media=CONTENT_TYPE.decode(),
                errors=("invalid_cursor", "invalid_key", "no_node", "overloaded", "stopping"),
            )
        ]

    async def follow(self, call: Call) -> Response:
        """Answer with a feed.

        Raises:
            ServiceError: The cursor is none, no node answers, or there are too many feeds.
        """
        given = call.values["last-event-id"] or call.values["cursor"]
        places = read_cursor(given) if given is not None else None
        subscriber = self._hub.enter(call.principal.narrow(call.values["prefix"]), call.caller)
        try:
            await self._hub.wait_ready()
            if call.scope["method"] == "HEAD":
                self._hub.leave(subscriber)
                return Response(200, b"", CONTENT_TYPE, list(_HEADERS))
            feed = Feed(self._hub, subscriber, self._free, places, call.is_admitted)
        except BaseException:
            self._hub.leave(subscriber)
            raise
        return Response(200, b"", CONTENT_TYPE, list(_HEADERS), feed)
