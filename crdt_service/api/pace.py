"""Bounds on what strangers cost: pages without an API key, and refusals, come at a bounded rate and wait beyond it.

Who is refused asks again at once, so refusing costs as much as answering. Who waits asks nothing meanwhile.
"""

import asyncio
from collections.abc import Callable

from crdt_service.access.room import Room
from crdt_service.access.turns import Turns

# Answers that wait. Raising it holds more connections that ask for too much.
WAITING_MAX = 256
# Turns that may come at once after a pause, as a part of those of a second.
_BURST_PART = 0.1


class Pace:
    """Turns at a bounded rate, given to addresses in turn.

    Args:
        per_second: How many.
        on_refused: Called with `pages` when so many wait that one is refused.
    """

    def __init__(self, per_second: float, on_refused: Callable[[str], object] = lambda name: None) -> None:
        self._interval = 1 / per_second
        self._ahead = max(0.0, per_second * _BURST_PART - 1) * self._interval
        # When the next turn is due, of turns that are evenly spread.
        self._next = 0.0
        self._room = Room("pages", WAITING_MAX, on_refused)
        self._waiting: Turns[asyncio.Future[None]] = Turns()
        self._timer: asyncio.TimerHandle | None = None

    async def wait_turn(self, address: str) -> None:
        """Return when it is the address's turn.

        Raises:
            ServiceError: Too many of its requests wait.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting.count and self._advance(loop.time()):
            return
        self._room.take(address)
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.add(address, turn)
        if self._timer is None:
            self._timer = loop.call_at(self._next - self._ahead, self._release)
        try:
            await turn
        finally:
            self._waiting.remove(address, turn)
            self._room.give(address)

    def _advance(self, now: float) -> bool:
        """Take a turn if one is due."""
        if now < self._next - self._ahead:
            return False
        self._next = max(now, self._next) + self._interval
        return True

    def _release(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._waiting.count and self._advance(loop.time()):
            following = self._waiting.pop()
            if following is not None and not following[1].done():
                following[1].set_result(None)
        if self._waiting.count:
            self._timer = loop.call_at(self._next - self._ahead, self._release)


class Shared:
    """A page that is costly to make: made at most so often, and once for all who wait for it.

    Who asks soon after it was made waits until it is made again, so that what it says is never older than the request.

    Args:
        render: Makes it.
        seconds: The least time between two makings.
    """

    def __init__(self, render: Callable[[], bytes], seconds: float = 1.0) -> None:
        self._render = render
        self._seconds = seconds
        self._next = 0.0
        self._made: asyncio.Future[bytes] | None = None

    async def get(self) -> bytes:
        """Return the page as it is now, or will be when it is made next."""
        loop = asyncio.get_running_loop()
        if self._made is None:
            if loop.time() >= self._next:
                self._next = loop.time() + self._seconds
                return self._render()
            self._made = loop.create_future()
            loop.call_at(self._next, self._make)
        return await asyncio.shield(self._made)

    def _make(self) -> None:
        made, self._made = self._made, None
        assert made is not None  # noqa: S101 - for the type checker: it is what was waited for.
        self._next = asyncio.get_running_loop().time() + self._seconds
        try:
            page = self._render()
        except Exception as error:
            made.set_exception(error)
        else:
            made.set_result(page)
