"""This replica's own commits, numbered from 1 without gaps: what every peer is sent, each from its own position.

A peer durably remembers up to which number it has everything that concerns it, so after a cut, however long, it is sent
just what it lacks, as long as the log reaches back that far; beyond that a digest repair takes over. One bounded log
serves all peers, so a slow one costs no memory of its own.
"""

from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from crdt_service.datatypes.part import cut
from crdt_service.datatypes.registry import get_type
from crdt_service.kernel.slot import slot_of
from crdt_service.wire.message import Delta

# Raising it lets peers be away for longer before a digest repair is needed, and costs that much memory.
LOG_BYTES_MAX = 32 << 20
PUSH_BYTES_MAX = 1 << 20
# Entries before the first live one are cut off in bulk, so that dropping one is cheap.
_CUT_ENTRIES = 4096


class _Entry(NamedTuple):
    committed_at: float
    delta: Delta | None  # None once its key was purged.


@dataclass(frozen=True, slots=True)
class Push:
    """Deltas of the commits up to number `upto`; `committed_at` is the oldest one's wall clock in seconds."""

    upto: int
    committed_at: float
    deltas: list[Delta]


class CommitLog:
    """The newest own deltas.

    Attributes:
        newest: Number of the newest delta, 0 before the first.
        bytes: About what the kept deltas take on the wire.
    """

    def __init__(self, newest: int = 0) -> None:
        self.newest = newest
        self.bytes = 0
        self._entries: list[_Entry] = []
        self._start = 0

    @property
    def oldest(self) -> int:
        """Number of the oldest delta still kept; one past `newest` if none is."""
        return self.newest - (len(self._entries) - self._start) + 1

    def append(self, committed_at: float, deltas: list[Delta]) -> int:
        """Add durable deltas, committed at that wall clock in seconds; return the number of the last."""
        for delta in deltas:
            self._entries.append(_Entry(committed_at, delta))
            self.bytes += delta_bytes(delta)
        self.newest += len(deltas)
        while self.bytes > LOG_BYTES_MAX:
            dropped = self._entries[self._start].delta
            self.bytes -= delta_bytes(dropped) if dropped is not None else 0
            self._start += 1
        if self._start >= _CUT_ENTRIES:
            del self._entries[: self._start]
            self._start = 0
        return self.newest

    def forget(self, keys: Collection[str]) -> None:
        """Send no delta of these keys any more: everybody has seen them, and forgets."""
        if not keys:
            return
        gone = frozenset(keys)
        for place in range(self._start, len(self._entries)):
            entry = self._entries[place]
            if entry.delta is not None and entry.delta.key in gone:
                self.bytes -= delta_bytes(entry.delta)
                self._entries[place] = _Entry(entry.committed_at, None)

    def restore(self, newest: int, deltas: list[Delta]) -> None:
        """Add what a log says: durable deltas with numbers up to `newest`."""
        if newest - len(deltas) != self.newest and newest > self.newest:
            self._entries, self._start, self.bytes = [], 0, 0
            self.newest = newest - len(deltas)
        self.append(0.0, deltas)

    def reaches(self, after: int) -> bool:
        """Tell whether every delta past number `after` is still kept."""
        return self.oldest - 1 <= after <= self.newest

    def take(self, after: int, slots: Container[int] | None = None) -> Push:
        """Return about 1 MiB of the deltas past `after`, those of one key joined, of `slots` if given.

        Call it only if the log reaches back to `after`.
        """
        position = len(self._entries) - (self.newest - after)
        deltas: list[Delta] = []
        places: dict[tuple[str, int], int] = {}
        total = 0
        committed_at = 0.0
        upto = after
        for entry in self._entries[position:]:
            delta = entry.delta
            if delta is not None and (slots is None or slot_of(delta.key) in slots):
                if deltas and total + delta_bytes(delta) > PUSH_BYTES_MAX:
                    break
                total += delta_bytes(delta)
                committed_at = committed_at or entry.committed_at
                place = places.setdefault((delta.key, delta.tag), len(deltas))
                if place == len(deltas):
                    deltas.append(delta)
                else:
                    deltas[place] = _join(deltas[place], delta)
            upto += 1
        return Push(upto, committed_at, deltas)


def delta_bytes(delta: Delta) -> int:
    """Return about what a delta takes on the wire."""
    return len(delta.state) + len(delta.key) + 16


def group_deltas(deltas: Iterable[Delta], bytes_max: int) -> Iterator[list[Delta]]:
    """Return all deltas in groups of at most `bytes_max` on the wire, or of a single delta."""
    return (group for group in cut(deltas, delta_bytes, bytes_max) if group)


def _join(one: Delta, two: Delta) -> Delta:
    datatype = get_type(one.tag)
    state = datatype.join(datatype.restore(one.state), datatype.restore(two.state))
    return Delta(one.key, one.tag, one.version, datatype.encode(state))
