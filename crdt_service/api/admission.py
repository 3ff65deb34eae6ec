"""How many requests are answered at once, how many wait, and for how long: load is shed before it drowns the process.

Beyond what one core can do, more requests at once only make each slower, until all miss their deadlines. So a bounded
number is at work, a bounded number waits, callers in turn, and the rest is refused at once, while refusing is still
cheap. Of both numbers each caller has a share.

What one caller has at work the others wait for at every turn of the event loop. So while several ask and turns are long
each caller has fewer at work: a limit that is raised by a step and lowered by a part, as TCP's window is (Chiu and
Jain, Computer Networks 17(1), 1989). Where nodes or disks are slow turns are short, and the limit stays out of the way.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from crdt_service.access.room import Room
from crdt_service.access.turns import Turns

# Enough to fill the nodes' group commits, half of it too. Raising it makes each request slower under load, and holds
# more in memory.
AT_WORK_MAX = 256
# Raising them lets clients wait for longer instead of being told to come again.
WAITING_MAX = 1024
WAIT_SECONDS_MAX = 1.0
# A turn of the event loop that takes more CPU time is long; while other processes have the core it takes none. Raising
# it serves one busy caller in larger batches, and has the others wait for longer.
TURN_SECONDS_MAX = 0.002
# The least that a caller may have at work, and the part by which the limit is lowered. Raising the first keeps nodes
# busier while turns are long for other reasons.
AT_WORK_MIN = 8
_LOWERED_PART = 1 / 8
# By how much it is raised in a short turn, if some wait.
_RAISED_STEP = 0.5
# For so long after two callers have asked each leaves room to the other.
COMPANY_SECONDS = 1.0
# What waits, and when it has waited for too long.
_Turn = asyncio.Future[bool]


class Admission:
    """Permits for requests at work, given to callers in turn, and to each in the order of its asking.

    Args:
        at_work_max: Permits.
        waiting_max: How many may wait.
        wait_seconds_max: For how long.
        on_refused: Called with `requests` when a request is refused.

    Attributes:
        at_work: Permits that are out.
    """

    def __init__(
        self,
        at_work_max: int = AT_WORK_MAX,
        waiting_max: int = WAITING_MAX,
        wait_seconds_max: float = WAIT_SECONDS_MAX,
        on_refused: Callable[[str], object] = lambda name: None,
    ) -> None:
        self.at_work = 0
        self._wait_seconds_max = wait_seconds_max
        self._permits = Room("requests", at_work_max)
        self._at_work_max = at_work_max
        self._limit = float(at_work_max)
        self._newest: str | None = None
        self._company_until = 0.0
        self._is_measuring = False
        self._room = Room("requests", waiting_max, on_refused)
        self._waiting: Turns[_Turn] = Turns()
        self._due: deque[tuple[float, str, _Turn]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._waiting.count

    async def enter(self, caller: str = "") -> None:
        """Return once the request may be worked at; `leave` must follow.

        Raises:
            ServiceError: Too many of the caller's wait, or this one did for too long.
        """
        self._watch(caller)
        if caller not in self._waiting and self._may_work(caller):
            self._take(caller)
            return
        self._room.take(caller)
        loop = asyncio.get_running_loop()
        turn: _Turn = loop.create_future()
        self._waiting.add(caller, turn)
        due = loop.time() + self._wait_seconds_max
        self._due.append((due, caller, turn))
        if self._timer is None:
            self._timer = loop.call_at(due, self._expire)
        try:
            is_admitted = await turn
        except asyncio.CancelledError:
            self._waiting.remove(caller, turn)
            if turn.done() and not turn.cancelled() and turn.result():
                self.leave(caller)
            raise
        finally:
            self._room.give(caller)
        if not is_admitted:
            raise self._room.refuse()

    def leave(self, caller: str = "") -> None:
        """Give the permit back, to the next caller that may have it."""
        self.at_work -= 1
        self._permits.give(caller)
        # What one gives back may let several in: the fewer are out, the larger each caller's share is.
        while (following := self._waiting.pop(self._may_work)) is not None:
            next_caller, turn = following
            if not turn.done():
                self._take(next_caller)
                turn.set_result(True)

    def _may_work(self, caller: str) -> bool:
        is_alone = asyncio.get_running_loop().time() >= self._company_until
        return self._permits.has(caller) and (is_alone or self._permits.holds(caller) < self._limit)

    def _watch(self, caller: str) -> None:
        """Take notice of callers that ask beside each other."""
        if caller != self._newest:
            if self._newest is not None:
                self._company_until = asyncio.get_running_loop().time() + COMPANY_SECONDS
            self._newest = caller

    def _take(self, caller: str) -> None:
        self._permits.take(caller)
        self.at_work += 1
        if not self._is_measuring:
            self._is_measuring = True
            asyncio.get_running_loop().call_soon(self._measure, time.thread_time())

    def _measure(self, started: float) -> None:
        """Adapt the limit to the length of the turn that ends."""
        self._is_measuring = False
        if time.thread_time() - started > TURN_SECONDS_MAX:
            self._limit = max(AT_WORK_MIN, self._limit * (1 - _LOWERED_PART))
        elif self._waiting.count:
            self._limit = min(self._at_work_max, self._limit + _RAISED_STEP)

    def _expire(self) -> None:
        """Refuse those that are due; they are kept in the order of their times."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._due:
            due, caller, turn = self._due[0]
            if due > loop.time() and not turn.done():
                self._timer = loop.call_at(due, self._expire)
                return
            self._due.popleft()
            if not turn.done():
                self._waiting.remove(caller, turn)
                turn.set_result(False)
