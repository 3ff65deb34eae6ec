"""The change feed for listeners within the backend."""

import asyncio
from collections.abc import AsyncIterator

from crdt_service.api.feed.feed import Feed
from crdt_service.api.feed.hub import Hub

_CHANGE = b"\nevent: change\n"
_DATA = b"\ndata: "


async def follow_changes(hub: Hub) -> AsyncIterator[list[bytes]]:
    """Yield every change from now on, in batches of JSON, until the hub is stopped.

    Raises:
        ServiceError: No node is reachable, or there are too many feeds.
    """
    subscriber = hub.enter("")
    try:
        await hub.wait_ready()
        feed = Feed(hub, subscriber, asyncio.Semaphore(), None)
        async for piece in feed:
            if changes := [text.partition(_DATA)[2] for text in piece.split(b"\n\n") if _CHANGE in text]:
                yield changes
    finally:
        hub.leave(subscriber)
