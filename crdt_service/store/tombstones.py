"""What was purged, set aside: no digest shows it, and whatever still comes of such a key is joined with it.

Bounded, the oldest goes first. Only what is gone from here is forgotten for good.
"""

from collections.abc import Iterator
from itertools import groupby

from crdt_service.wire.message import Delta, Tombstone

# Raising it lets a node be away for longer, or while more is purged, without losing what it has; costs that much disk,
# and about six times as much memory.
TOMBSTONE_BYTES_MAX = 4 << 20
PAGE_BYTES_MAX = 1 << 20


class Tombstones:
    """The newest tombstones, by key.

    Attributes:
        forgotten: Number of the newest agreement of which something is not here any more, 0 for none.
    """

    def __init__(self) -> None:
        self.forgotten = 0
        self._kept: dict[str, Tombstone] = {}
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self._kept)

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def __iter__(self) -> Iterator[Tombstone]:
        return iter(list(self._kept.values()))

    def put(self, tombstone: Tombstone) -> None:
        """Add one, of a key that has none."""
        self._kept[tombstone.key] = tombstone
        self._bytes += tombstone_bytes(tombstone)
        while self._bytes > TOMBSTONE_BYTES_MAX:
            oldest = self.pop(next(iter(self._kept)))
            self.forgotten = max(self.forgotten, oldest.agreed)

    def pop(self, key: str) -> Tombstone:
        """Take out and return the one of a key.

        Raises:
            KeyError: It has none.
        """
        tombstone = self._kept.pop(key)
        self._bytes -= tombstone_bytes(tombstone)
        return tombstone

    def get(self, key: str) -> Tombstone | None:
        """Return the one of a key, or None."""
        return self._kept.get(key)

    def page(self, after: int) -> tuple[list[Tombstone], int | None]:
        """Return about 1 MiB of those of agreements after that number, whole agreements, the oldest first.

        With them comes the number of the last agreement on the page, None if no page follows.
        """
        ordered = sorted((each for each in self if each.agreed > after), key=lambda each: each.agreed)
        taken: list[Tombstone] = []
        total = 0
        for _, group in groupby(ordered, lambda each: each.agreed):
            if total > PAGE_BYTES_MAX:
                return taken, taken[-1].agreed
            for each in group:
                taken.append(each)
                total += tombstone_bytes(each)
        return taken, None


def states_bytes(states: list[Delta]) -> int:
    """Return about what a key's states take on the wire."""
    return sum(len(delta.key) + len(delta.state) + 16 for delta in states)


def tombstone_bytes(tombstone: Tombstone) -> int:
    """Return about what a tombstone takes on the wire."""
    return states_bytes(tombstone.states)
