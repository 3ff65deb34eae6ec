"""A tree over the names of a store's keys: each node has 4 children, by the next 2 bits of the name.

Nodes are numbered from 0 in each depth; depth 0 is everything, depth 5 the slots, and below them sums are made on
demand from a scan of the slot. A node's sum is the exclusive or of all digests under it: a Merkle tree whose inner
nodes need no storage, since the order of adding does not matter. It tells apart what differs by accident, not malice.
"""

from collections.abc import Sequence
from functools import reduce
from operator import xor
from typing import TypeVar

from crdt_service.kernel.slot import NAME_BYTES, SLOT_BITS, SLOTS
from crdt_service.store.store import Store

LEVEL_BITS = 2
CHILDREN = 1 << LEVEL_BITS
SLOT_DEPTH = SLOT_BITS // LEVEL_BITS
DEPTH_MAX = 8 * NAME_BYTES // LEVEL_BITS

T = TypeVar("T")


class Tree:
    """A view of a store, restricted to some slots if `slots` is given."""

    def __init__(self, store: Store, slots: frozenset[int] | None = None) -> None:
        self._store = store
        self._slots = slots

    def root(self) -> int:
        """Return the sum of everything."""
        return self._sum_slots(0, 0)

    def count(self, depth: int, node: int) -> int:
        """Return how many keys are under a node, or a few more."""
        if depth < SLOT_DEPTH:
            return sum(map(len, self._select(self._store.slots, depth, node)))
        first, end = self._store.scan(_slot_of(depth, node), is_fresh=False).locate(node, depth * LEVEL_BITS)
        return end - first

    def sums(self, depth: int, node: int) -> list[int]:
        """Return the sums of a node's children."""
        children = range(node * CHILDREN, (node + 1) * CHILDREN)
        if depth < SLOT_DEPTH:
            return [self._sum_slots(depth + 1, child) for child in children]
        scan = self._store.scan(_slot_of(depth, node), is_fresh=False)
        return [scan.sum(*scan.locate(child, (depth + 1) * LEVEL_BITS)) for child in children]

    def rows(self, depth: int, node: int) -> list[tuple[int, int]]:
        """Return (name, digest) of all keys under a node."""
        if depth >= SLOT_DEPTH:
            scan = self._store.scan(_slot_of(depth, node), is_fresh=False)
            return scan.rows(*scan.locate(node, depth * LEVEL_BITS))
        slots = [slot for slot in self._select(range(SLOTS), depth, node) if self._store.slots[slot]]
        scans = (self._store.scan(slot, is_fresh=True) for slot in slots)
        return [row for scan in scans for row in scan.rows(0, len(scan.keys))]

    def cost(self, depth: int, node: int) -> int:
        """Return how many keys `visit` would have to look at."""
        return self._store.scan_cost(_slot_of(depth, node), is_fresh=depth == SLOT_DEPTH) if depth >= SLOT_DEPTH else 0

    def visit(self, depth: int, node: int) -> None:
        """Make the scan that a descent from a slot goes on with; deeper nodes take what it saw."""
        if depth == SLOT_DEPTH:
            self._store.scan(node, is_fresh=True)

    def _sum_slots(self, depth: int, node: int) -> int:
        return reduce(xor, self._select(self._store.sums, depth, node), 0)

    def _select(self, values: Sequence[T], depth: int, node: int) -> Sequence[T]:
        """Return those of a value per slot whose slots are under the node."""
        shift = (SLOT_DEPTH - depth) * LEVEL_BITS
        first = node << shift
        part = values[first : first + (1 << shift)]
        if self._slots is None:
            return part
        return [value for slot, value in enumerate(part, first) if slot in self._slots]


def _slot_of(depth: int, node: int) -> int:
    return node >> (depth - SLOT_DEPTH) * LEVEL_BITS
