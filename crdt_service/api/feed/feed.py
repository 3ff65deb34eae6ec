"""One client's feed: pieces of server-sent events, one after the other as the client takes them."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from crdt_service.api.feed.cursor import Place, write_cursor
from crdt_service.api.feed.event import encode_end, encode_event, encode_opening, encode_pulse
from crdt_service.api.feed.hub import Hub, Subscriber
from crdt_service.api.feed.merge import Reset
from crdt_service.api.feed.replay import replay

# Clients of a backend that goes away come back spread over this time.
RETRY_MS_MIN = 500
RETRY_MS_MAX = 5000
_FELL_BEHIND = Reset("", "fell_behind")


class Feed:
    """An asynchronous iterator of pieces.

    Args:
        hub: What it reads; it is ready.
        subscriber: The feed as the hub sees it, entered; `aclose` has it leave.
        free: Limits replays of all clients.
        places: Where the client is; None to begin here and now.
        is_admitted: Tells whether the client may still follow.
    """

    __slots__ = ("_hub", "_is_admitted", "_is_ended", "_opening", "_replay", "_subscriber")

    def __init__(
        self,
        hub: Hub,
        subscriber: Subscriber,
        free: asyncio.Semaphore,
        places: dict[str, Place] | None,
        is_admitted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._is_admitted = is_admitted
        self._is_ended = False
        self._replay: AsyncGenerator[bytes, None] | None = None
        subscriber.position = hub.ring.next
        if places is not None:
            position = hub.ring.locate(places, hub.places)
            if position is None:
                self._replay = replay(
                    hub.channels, free, subscriber.topic.prefix, places, dict(hub.places), known=hub.merge
                )
            else:
                subscriber.position = position
        cursor = hub.cursor if places is None else write_cursor(places)
        self._opening = encode_opening(cursor, self._draw_retry_ms())

    def __aiter__(self) -> "Feed":
        return self

    async def __anext__(self) -> bytes:
        """Return what is next, once there is something."""
        if self._opening:
            opening, self._opening = self._opening, b""
            return opening
        while not self._hub.is_stopped and self._is_admitted():
            piece = await self._take_replay() or self._take_ring()
            if piece:
                return piece
            await self._subscriber.wait()
        if self._is_ended:
            raise StopAsyncIteration
        self._is_ended = True
        return encode_end(self._draw_retry_ms())

    async def aclose(self) -> None:
        """Leave the hub."""
        self._hub.leave(self._subscriber)
        if self._replay is not None:
            await self._replay.aclose()

    async def _take_replay(self) -> bytes:
        if self._replay is not None:
            piece = await anext(self._replay, b"")
            if piece:
                return piece
            self._replay = None
        return b""

    def _take_ring(self) -> bytes:
        hub, subscriber = self._hub, self._subscriber
        is_pulse_due, subscriber.is_pulse_due = subscriber.is_pulse_due, False
        if subscriber.position < subscriber.topic.end:
            if subscriber.position < hub.ring.first:
                subscriber.position = hub.ring.next
                return encode_event(_FELL_BEHIND, hub.cursor)
            piece, subscriber.position = hub.ring.read(subscriber.position, subscriber.topic.prefix)
            if piece:
                return piece
        return encode_pulse(hub.cursor) if is_pulse_due else b""

    def _draw_retry_ms(self) -> int:
        return self._hub.randomness.randint(RETRY_MS_MIN, RETRY_MS_MAX)
