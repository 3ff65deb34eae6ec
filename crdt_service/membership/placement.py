"""Which nodes own which slot: rendezvous hashing (Thaler and Ravishankar, 1998), spread over zones.

Every process that sees the same members computes the same table, so nothing is agreed on and nothing is stored. When
a node joins, the only node that gains slots is the new one, and no slot loses more than one owner; when it leaves, its
slots go to others and nothing else moves. That holds with zones too: see `_choose`.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache

from crdt_service.kernel.slot import SLOTS

_SCORE_BYTES = 8
# One digest of 64 bytes scores eight slots: an eighth of the hashing of a digest each.
_SLOTS_PER_DIGEST = hashlib.blake2b.MAX_DIGEST_SIZE // _SCORE_BYTES
_SCORES = struct.Struct(f">{SLOTS}Q")
# As many nodes as a cluster may have: 8 MiB, so that a change of one member hashes one.
_CACHED_NODES_MAX = 1024


class Placement:
    """The owners of every slot for one set of members.

    Args:
        members: Zone of each node by node id; an empty zone is one zone more.
        replication_factor: Owners per slot, at least 1; fewer where there are fewer members.
    """

    def __init__(self, members: Mapping[str, str], replication_factor: int) -> None:
        self.members = dict(members)
        self.replication_factor = replication_factor
        # Of equal scores the greater id wins: the order of `members` must not matter.
        ids = sorted(members, reverse=True)
        zones = [members[node_id] for node_id in ids]
        columns: Iterable[tuple[int, ...]] = zip(*map(_score, ids), strict=True) if ids else [()] * SLOTS
        self._owners = [
            tuple(ids[number] for number in _choose(scores, zones, replication_factor)) for scores in columns
        ]

    def owners(self, slot: int) -> tuple[str, ...]:
        """Return the ids of the nodes that own `slot`, the preferred one first; as many as there are replicas."""
        return self._owners[slot]

    def owns(self, node_id: str) -> frozenset[int]:
        """Return the slots that `node_id` owns."""
        return frozenset(slot for slot, owners in enumerate(self._owners) if node_id in owners)

    def count(self) -> dict[str, int]:
        """Return how many slots each member owns."""
        counts = dict.fromkeys(sorted(self.members), 0)
        for owners in self._owners:
            for node_id in owners:
                counts[node_id] += 1
        return counts


def _choose(scores: tuple[int, ...], zones: list[str], count: int) -> list[int]:
    """Return up to `count` positions: the best of each zone in order of score, then the best of what remains.

    A new node raises the best score of its own zone only, or opens a zone: what it pushes out of the first part
    competes in the second, where it can only push out a worse one. So no old node gains a slot from it.
    """
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    first: list[int] = []
    used: set[str] = set()
    for number in order:
        if len(first) == count:
            return first
        if zones[number] not in used:
            used.add(zones[number])
            first.append(number)
    chosen = set(first)
    rest = [number for number in order if number not in chosen]
    return first + rest[: count - len(first)]


@lru_cache(_CACHED_NODES_MAX)
def _digest(node_id: str) -> bytes:
    seed = hashlib.blake2b(node_id.encode() + b"\0")
    parts = []
    for number in range(SLOTS // _SLOTS_PER_DIGEST):
        part = seed.copy()
        part.update(number.to_bytes(2, "big"))
        parts.append(part.digest())
    return b"".join(parts)


def _score(node_id: str) -> tuple[int, ...]:
    """Return the node's score for each slot, 64 bits."""
    return _SCORES.unpack(_digest(node_id))
