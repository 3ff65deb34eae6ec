"""Which keys changed last on this node, in order: a ring in memory that every commit writes to, read or not."""

from collections import deque
from collections.abc import Callable, Collection
from itertools import islice
from operator import itemgetter

# Raising it lets a reader be away for longer before it has to list all keys, at about 80 bytes each.
RING_MAX = 1 << 16
_key = itemgetter(0)


class Changes:
    """The newest changes, numbered from 1.

    Attributes:
        newest: Number of the newest change, 0 before the first.
        on_change: Called after some were added; None while nobody waits.
    """

    def __init__(self) -> None:
        self.newest = 0
        self.on_change: Callable[[], None] | None = None
        self._keys: deque[str] = deque(maxlen=RING_MAX)

    def append(self, addresses: Collection[tuple[str, int]]) -> None:
        """Add the addresses that a commit changed."""
        self._keys.extend(map(_key, addresses))
        self.newest += len(addresses)
        if self.on_change is not None:
            self.on_change()

    def reaches(self, after: int) -> bool:
        """Tell whether every change past number `after` is still known."""
        return self.newest - len(self._keys) <= after <= self.newest

    def take(self, after: int, count: int) -> tuple[int, dict[str, int]]:
        """Return (number, changed keys past `after` up to it, each with its last number, in that order).

        Call it only if the ring reaches back to `after`; there are at most `count` keys.
        """
        position = len(self._keys) - (self.newest - after)
        numbers: dict[str, int] = {}
        upto = min(self.newest, after + count)
        for number, key in enumerate(islice(self._keys, position, position + count), after + 1):
            numbers.pop(key, None)
            numbers[key] = number
        return upto, numbers
