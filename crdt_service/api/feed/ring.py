"""The newest events of all nodes, encoded once for every feed. Feeds read it by position; nobody has a queue."""

from bisect import bisect_left
from collections import deque
from itertools import islice
from typing import NamedTuple

from crdt_service.api.feed.cursor import Places, read_cursor

# Raising them lets a reader be slower before it has to list the keys again.
EVENTS_MAX = 1 << 14
BYTES_MAX = 16 << 20
# Raising it sends more at once to a feed that is behind, and holds more for one that does not read.
PIECE_BYTES = 8 << 10


class Entry(NamedTuple):
    """An event in the ring.

    Attributes:
        key: The key that changed; None for what concerns all keys.
        cursor: Where a feed is after it.
        encoded: What is sent.
    """

    key: str | None
    cursor: str
    encoded: bytes

    def concerns(self, prefix: str) -> bool:
        """Tell whether a feed of the keys that begin so is told."""
        return self.key is None or self.key.startswith(prefix)


class Ring:
    """Events by position: 0, 1, 2 …; the oldest go when there are too many.

    Args:
        cursor: Where a feed is before the first event.
        events_max: How many events are kept.
        bytes_max: How large they are together.

    Attributes:
        first: Position of the oldest.
        next: Position of the one to come.
    """

    def __init__(self, cursor: str, *, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self.first = 0
        self.next = 0
        self._base = cursor
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._events_max = events_max
        self._bytes_max = bytes_max
        # Feeds that stand at one place with one prefix share what they read there.
        self._pieces: dict[tuple[int, str], tuple[bytes, int]] = {}

    def append(self, entry: Entry) -> None:
        """Add an event."""
        self._entries.append(entry)
        self._bytes += len(entry.encoded)
        self.next += 1
        self._pieces.clear()
        while len(self._entries) > self._events_max or self._bytes > self._bytes_max:
            oldest = self._entries.popleft()
            self._base = oldest.cursor
            self._bytes -= len(oldest.encoded)
            self.first += 1

    def read(self, position: int, prefix: str) -> tuple[bytes, int]:
        """Return (events from `position` on that concern a prefix, about `PIECE_BYTES` of them, position after them).

        Call it only if `position` is not before `first`.
        """
        piece = self._pieces.get((position, prefix))
        if piece is None:
            parts, size, after = [], 0, position
            for entry in islice(self._entries, position - self.first, None):
                after += 1
                if entry.concerns(prefix):
                    parts.append(entry.encoded)
                    size += len(entry.encoded)
                    if size >= PIECE_BYTES:
                        break
            piece = self._pieces[position, prefix] = (b"".join(parts), after)
        return piece

    def locate(self, places: Places, newest: Places) -> int | None:
        """Return the position from which on a client that is at `places` lacks events; None if it lacks older ones.

        Args:
            places: From the client.
            newest: Where the ring's last event leads, or further.
        """

        def is_beyond(cursor: str) -> bool:
            return not _includes(places, read_cursor(cursor), newest)

        if is_beyond(self._base):
            return None
        index = bisect_left(range(len(self._entries)), True, key=lambda number: is_beyond(self._entries[number].cursor))
        return self.first + index


def _includes(places: Places, others: Places, newest: Places) -> bool:
    """Tell whether `places` are as far as `others`, which are no newer than `newest`."""
    for node_id, other in others.items():
        place = places.get(node_id)
        if place is None:
            return False
        is_later_run = place.epoch != other.epoch and place.epoch == newest[node_id].epoch
        if not is_later_run and (place.epoch != other.epoch or place.number < other.number):
            return False
    return True
