"""Dots and causal contexts: which events a replica has seen.

A dot names one event: (replica, counter from 1). A context is a version vector plus the dots beyond it, because deltas
may arrive with gaps (dotted version vectors; Almeida et al., arXiv:1603.01529).
"""

from collections.abc import Iterable

from crdt_service.kernel.error import MalformedError
from crdt_service.kernel.ident import is_replica

Dot = tuple[str, int]
COUNTER_MAX = 2**63 - 1


class CausalContext:
    """A set of dots, compact where it has no gaps; equal sets have equal representations."""

    __slots__ = ("cloud", "vector")

    def __init__(self, dots: Iterable[Dot] = ()) -> None:
        self.vector: dict[str, int] = {}
        self.cloud: set[Dot] = set()
        for dot in dots:
            self.add(dot)

    def __contains__(self, dot: Dot) -> bool:
        return dot[1] <= self.vector.get(dot[0], 0) or dot in self.cloud

    def __bool__(self) -> bool:
        return bool(self.vector or self.cloud)

    def newest(self, replica: str) -> int:
        """Return the highest counter seen of `replica`, 0 if none."""
        last = self.vector.get(replica, 0)
        if not self.cloud:
            return last
        return max([last, *(counter for name, counter in self.cloud if name == replica)])

    def add(self, dot: Dot) -> None:
        """Add one dot."""
        replica, counter = dot
        last = self.vector.get(replica, 0)
        if counter == last + 1:
            self.vector[replica] = counter
            if self.cloud:
                self.cloud.discard(dot)
                self._compact(replica)
        elif counter > last:
            self.cloud.add(dot)

    def merge(self, other: "CausalContext") -> None:
        """Add every dot of `other`; costs the size of `other` and of this context's gaps."""
        for replica, counter in other.vector.items():
            if counter > self.vector.get(replica, 0):
                self.vector[replica] = counter
                self.cloud = {dot for dot in self.cloud if dot[0] != replica or dot[1] > counter}
                self._compact(replica)
        for dot in other.cloud:
            self.add(dot)

    def to_plain(self) -> tuple[list[Dot], list[Dot]]:
        """Return (vector, cloud) as sorted lists."""
        # A delta's has one dot or two: sorting would cost more than the rest.
        vector, cloud = list(self.vector.items()), list(self.cloud)
        return sorted(vector) if len(vector) > 1 else vector, sorted(cloud) if len(cloud) > 1 else cloud

    @classmethod
    def from_plain(cls, vector: list[Dot], cloud: list[Dot]) -> "CausalContext":
        """Return the context of two lists, the inverse of `to_plain`.

        Raises:
            MalformedError: A replica id or counter is out of range.
        """
        for dot in (*vector, *cloud):
            check_dot(dot)
        context = cls()
        context.vector = dict(vector)
        for dot in cloud:
            context.add(dot)
        return context

    def _compact(self, replica: str) -> None:
        following = self.vector.get(replica, 0) + 1
        while (replica, following) in self.cloud:
            self.cloud.discard((replica, following))
            self.vector[replica] = following
            following += 1


def check_dot(dot: Dot) -> None:
    """Refuse a dot whose replica id or counter is out of range.

    Raises:
        MalformedError: It is.
    """
    if not is_replica(dot[0]) or not 0 < dot[1] <= COUNTER_MAX:
        raise MalformedError("a dot names no replica or no event")
