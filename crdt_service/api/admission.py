"""How many requests are answered at once, how many wait, and for how long: load is shed before it drowns the process.

Beyond what one core can do, more requests at once only make each slower, until all miss their deadlines. So a bounded
number is at work, a bounded number waits in order, and the rest is refused at once, while refusing is still cheap.
"""

import asyncio
from collections import deque

from crdt_service.kernel.error import ServiceError

# Enough to fill the nodes' group commits. Raising it makes each request slower under load, and holds more in memory.
AT_WORK_MAX = 256
# Raising them lets clients wait for longer instead of being told to come again.
WAITING_MAX = 1024
WAIT_SECONDS_MAX = 1.0
# Raising it lets bodies that trickle in hold more memory.
BODY_BYTES_MAX = 64 << 20
_OVERLOADED = ServiceError("overloaded", "more requests come than are answered", "retry later, or run more backends")


class Admission:
    """Permits for requests at work, given in the order of asking.

    Attributes:
        at_work: Permits that are out.
    """

    def __init__(
        self,
        at_work_max: int = AT_WORK_MAX,
        waiting_max: int = WAITING_MAX,
        wait_seconds_max: float = WAIT_SECONDS_MAX,
    ) -> None:
        self.at_work = 0
        self._at_work_max = at_work_max
        self._waiting_max = waiting_max
        self._wait_seconds_max = wait_seconds_max
        self._waiting: deque[tuple[asyncio.Future[bool], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def enter(self) -> None:
        """Return once the request may be worked at; `leave` must follow.

        Raises:
            ServiceError: Too many wait, or this one did for too long.
        """
        if self.at_work < self._at_work_max and not self._waiting:
            self.at_work += 1
            return
        if len(self._waiting) >= self._waiting_max:
            raise _OVERLOADED
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        due = loop.time() + self._wait_seconds_max
        self._waiting.append((turn, due))
        if self._timer is None:
            self._timer = loop.call_at(due, self._expire)
        try:
            is_admitted = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.leave()
            raise
        if not is_admitted:
            raise _OVERLOADED

    def leave(self) -> None:
        """Give the permit back, to the first that waits."""
        while self._waiting:
            turn, _ = self._waiting.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self.at_work -= 1

    def _expire(self) -> None:
        """Refuse those that are due; they wait in the order of their times."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._waiting:
            turn, due = self._waiting[0]
            if due > loop.time():
                self._timer = loop.call_at(due, self._expire)
                return
            self._waiting.popleft()
            if not turn.done():
                turn.set_result(False)


class BodyBudget:
    """Memory for the bodies of requests under way, whether whole or still coming."""

    def __init__(self, bytes_max: int = BODY_BYTES_MAX) -> None:
        self._free = bytes_max

    def take(self, size_bytes: int) -> None:
        """Take some.

        Raises:
            ServiceError: There is not so much left.
        """
        if size_bytes > self._free:
            raise _OVERLOADED
        self._free -= size_bytes

    def give(self, size_bytes: int) -> None:
        """Give it back."""
        self._free += size_bytes
