"""Dots and causal contexts: which events a replica has seen.

A dot names one event: (replica, counter from 1). A context is a version vector plus the ranges beyond it, because
deltas may arrive with gaps (dotted version vectors; Almeida et al., arXiv:1603.01529). Ranges, and not single dots, so
that a part of a state can say that it has seen a million dots in a row.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping

from crdt_service.kernel.error import MalformedError
from crdt_service.kernel.ident import is_replica

Dot = tuple[str, int]
# First and last counter, both seen.
Span = tuple[int, int]
COUNTER_MAX = 2**63 - 1
_FEW = 32


class CausalContext:
    """A set of dots, compact where it has no gaps; equal sets have equal representations.

    Attributes:
        vector: Replica to the last counter before its first gap; all from 1 on are seen.
        cloud: Replica to the sorted spans beyond its first gap, never empty and with a gap between any two.
    """

    __slots__ = ("cloud", "vector")

    def __init__(self, dots: Iterable[Dot] = ()) -> None:
        self.vector: dict[str, int] = {}
        self.cloud: dict[str, list[Span]] = {}
        for dot in dots:
            self.add(dot)

    def __contains__(self, dot: Dot) -> bool:
        replica, counter = dot
        return counter <= self.vector.get(replica, 0) or (
            bool(self.cloud) and replica in self.cloud and _holds(self.cloud[replica], counter)
        )

    def __bool__(self) -> bool:
        return bool(self.vector or self.cloud)

    def newest(self, replica: str) -> int:
        """Return the highest counter seen of `replica`, 0 if none."""
        if self.cloud and replica in self.cloud:
            return self.cloud[replica][-1][1]
        return self.vector.get(replica, 0)

    def add(self, dot: Dot) -> None:
        """Add one dot."""
        self.add_span(dot[0], dot[1], dot[1])

    def add_span(self, replica: str, first: int, last: int) -> None:
        """Add the dots of `replica` from `first` to `last`; costs the spans that they meet."""
        known = self.vector.get(replica, 0)
        if last <= known:
            return
        spans = self.cloud.get(replica) if self.cloud else None
        if first > known + 1:
            if spans is None:
                self.cloud[replica] = [(first, last)]
            else:
                _merge_span(spans, first, last)
            return
        if spans is not None:
            # A span that begins right behind `last` is no gap either.
            met = bisect_right(spans, (last + 1, COUNTER_MAX + 1))
            if met:
                last = max(last, spans[met - 1][1])
                del spans[:met]
            if not spans:
                del self.cloud[replica]
        self.vector[replica] = last

    def merge(self, other: "CausalContext") -> None:
        """Add every dot of `other`; costs its size and the gaps that it closes."""
        for replica, last in other.vector.items():
            self.add_span(replica, 1, last)
        for replica, spans in other.cloud.items():
            ours = self.cloud.get(replica)
            if ours is None or len(spans) <= _FEW:
                added = spans
            else:  # One by one, each could move all that lie behind it.
                added = _fold(sorted((*ours, *spans)))
                del self.cloud[replica]
            for first, last in added:
                self.add_span(replica, first, last)

    def spans(self) -> Iterator[tuple[str, int, int]]:
        """Yield (replica, first, last) of all that is seen, a replica's in order."""
        for replica, last in self.vector.items():
            yield replica, 1, last
        for replica, spans in self.cloud.items():
            for first, last in spans:
                yield replica, first, last

    def pick(self, dots: Mapping[Dot, object]) -> list[Dot]:
        """Return those of `dots` that were seen, at the cost of the smaller of both."""
        budget = len(dots)
        seen: list[Dot] = []
        for replica, first, last in self.spans():
            budget -= last - first + 1
            if budget < 0:
                return [dot for dot in dots if dot in self]
            seen += [(replica, counter) for counter in range(first, last + 1) if (replica, counter) in dots]
        return seen

    def replicas(self) -> list[str]:
        """Return the replicas of which anything is seen, in order."""
        if self.vector and self.cloud:
            return sorted(self.vector.keys() | self.cloud.keys())
        return sorted(self.vector or self.cloud)


def check_dot(dot: Dot) -> None:
    """Refuse a dot whose replica id or counter is out of range.

    Raises:
        MalformedError: It is.
    """
    if not is_replica(dot[0]) or not 0 < dot[1] <= COUNTER_MAX:
        raise MalformedError("a dot names no replica or no event")


def _holds(spans: list[Span], counter: int) -> bool:
    at = bisect_right(spans, (counter, COUNTER_MAX + 1))
    return at > 0 and counter <= spans[at - 1][1]


def _fold(spans: list[Span]) -> list[Span]:
    """Return sorted spans without overlaps and without neighbours."""
    folded = spans[:1]
    for first, last in spans[1:]:
        if first > folded[-1][1] + 1:
            folded.append((first, last))
        elif last > folded[-1][1]:
            folded[-1] = (folded[-1][0], last)
    return folded


def _merge_span(spans: list[Span], first: int, last: int) -> None:
    """Put a span among others, joined with those that it meets."""
    if first > spans[-1][1] + 1:  # The usual case: the newest comes last.
        spans.append((first, last))
        return
    begin = bisect_left(spans, (first,))
    if begin and spans[begin - 1][1] >= first - 1:
        begin -= 1
        first = spans[begin][0]
    end = bisect_right(spans, (last + 1, COUNTER_MAX + 1))
    if end > begin:
        last = max(last, spans[end - 1][1])
    spans[begin:end] = [(first, last)]
