"""What waits, by caller: callers come in turn, and what one of them has waiting in its order."""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Queues by caller, served round robin.

    Attributes:
        count: How many wait.
    """

    def __init__(self) -> None:
        self.count = 0
        # In the order in which callers are served.
        self._queues: dict[str, deque[T]] = {}

    def __contains__(self, caller: str) -> bool:
        return caller in self._queues

    def add(self, caller: str, item: T) -> None:
        """Have an item wait behind the others of its caller."""
        self._queues.setdefault(caller, deque()).append(item)
        self.count += 1

    def pop(self, may: Callable[[str], bool] = lambda caller: True) -> tuple[str, T] | None:
        """Return the first caller in turn that `may` get something, and its item; None if there is none."""
        for caller, queue in self._queues.items():
            if may(caller):
                item = queue.popleft()
                self.count -= 1
                del self._queues[caller]
                if queue:
                    self._queues[caller] = queue  # Behind the others.
                return caller, item
        return None

    def remove(self, caller: str, item: T) -> None:
        """Have an item wait no more, if it does."""
        queue = self._queues.get(caller, deque())
        if item in queue:
            queue.remove(item)
            self.count -= 1
            if not queue:
                del self._queues[caller]
