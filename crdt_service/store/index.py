"""The keys of each slot in order, from the first time that somebody lists them: 8 bytes a key, and nothing before."""

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterator

from crdt_service.kernel.slot import SLOTS


class KeyIndex:
    """Sorted keys by slot; a slot has none until `build`, and is kept up from then on."""

    def __init__(self) -> None:
        self._slots: list[list[str] | None] = [None] * SLOTS

    def missing(self) -> list[int]:
        """Return the slots that are still to be built."""
        return [slot for slot, keys in enumerate(self._slots) if keys is None]

    def build(self, slot: int, keys: Collection[str]) -> None:
        """Take in all keys of a slot."""
        self._slots[slot] = sorted(keys)

    def add(self, slot: int, key: str) -> None:
        """Take in a key that was not there."""
        keys = self._slots[slot]
        if keys is not None:
            insort(keys, key)

    def remove(self, slot: int, key: str) -> None:
        """Take in that a key is gone."""
        keys = self._slots[slot]
        if keys is not None:
            del keys[bisect_left(keys, key)]

    def clear(self, slot: int) -> None:
        """Take in that all keys of a slot are gone."""
        if self._slots[slot]:
            self._slots[slot] = []

    def walk(self, prefix: str, after: str) -> Iterator[str]:
        """Yield the keys of built slots that begin with `prefix`, in order, from the first beyond `after`.

        It costs a search in each slot, and then the logarithm of their number for each key.
        """
        heads: list[tuple[str, int, list[str]]] = []
        for keys in self._slots:
            if keys:
                place = bisect_right(keys, after) if after >= prefix else bisect_left(keys, prefix)
                if place < len(keys) and keys[place].startswith(prefix):
                    heads.append((keys[place], place, keys))
        heapq.heapify(heads)
        while heads:
            key, place, keys = heads[0]
            yield key
            place += 1
            if place < len(keys) and keys[place].startswith(prefix):
                heapq.heapreplace(heads, (keys[place], place, keys))
            else:
                heapq.heappop(heads)
