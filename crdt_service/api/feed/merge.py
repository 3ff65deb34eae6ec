"""The nodes' changes as one sequence. A key changes on each of its owners; that is told once, as far as is known.

Only owners count: each of them ends at the key's last state, so the one that was told last says so. A node that owns
nothing of a key and took a write of it hands that over and hears of no other, so it may end at less.

Nothing here waits or asks. What one node says stays in its order; between nodes there is none.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from crdt_service.api.feed.cursor import Place
from crdt_service.kernel.slot import slot_of
from crdt_service.wire.message import Change, ChangesReply

# Raising it tells fewer changes twice while replicas lag far behind each other, at about 700 bytes each.
KEYS_MAX = 1 << 15
# What a key held lately; a replica that lags further behind tells an older state again.
_DIGESTS_MAX = 4

# The owners of each slot; of a slot without any, or of none at all, every node counts.
Owners = Sequence[Sequence[str]]
Reason = Literal["node_joined", "node_restarted", "changes_lost", "node_unreachable", "fell_behind"]


class Reset(NamedTuple):
    """Changes of a node may be missing: whoever wants them lists the keys.

    Attributes:
        node_id: The node; empty for all.
        reason: Why.
    """

    node_id: str
    reason: Reason


class Changed(NamedTuple):
    """A key that changed, and the node that said so."""

    node_id: str
    change: Change


class _Key:
    """What is known of a key.

    Attributes:
        node_id: The node that said what was told last; empty if nothing was told.
        digests: What was told, the last at the end.
        words: By node, type and digest that it said last, whether it counts or not; who spoke last is at the end.
    """

    __slots__ = ("digests", "node_id", "words")

    def __init__(self) -> None:
        self.node_id = ""
        self.digests: tuple[bytes, ...] = ()
        self.words: dict[str, tuple[str, bytes]] = {}

    def tell(self, node_id: str, digest: bytes) -> bool:
        """Tell whether to tell what an owner says, and remember it.

        What was told is not told again, with two exceptions. A node that told something else since then must be
        followed, or what it told last would stay the last word. And an emptied key that came back may be emptied again.
        """
        if self.digests and (self.digests[-1] == digest or (self.node_id != node_id and digest in self.digests)):
            return False
        others = (known for known in self.digests if known and known != digest)
        self.node_id, self.digests = node_id, (*others, digest)[-_DIGESTS_MAX:]
        return True


class Merge:
    """Takes replies of nodes, each the next of its node.

    Args:
        places: Where the nodes are asked from at first.
        keys_max: Of how many keys it is remembered what was told.
        owners: Whose words count at first.

    Attributes:
        places: Up to where everything of each node is told, but for what does not count.
        owners: Whose words count.
    """

    def __init__(self, places: Mapping[str, Place], keys_max: int = KEYS_MAX, owners: Owners = ()) -> None:
        self.places = dict(places)
        self.owners = owners
        self._keys_max = keys_max
        # The keys heard of last are at the end.
        self._keys: dict[str, _Key] = {}

    def take(self, node_id: str, reply: ChangesReply) -> Iterator[Changed | Reset]:
        """Yield what is new in a reply; at each step `places` includes what was just yielded."""
        place = self.places.get(node_id)
        if place is None or place.epoch != reply.epoch or reply.is_gap:
            self.places[node_id] = Place(reply.epoch, reply.upto)
            yield Reset(node_id, _reason(place, reply))
        for change in reply.changes:
            self.places[node_id] = Place(reply.epoch, change.number)
            if self._is_new(node_id, change):
                yield Changed(node_id, change)
        self.places[node_id] = Place(reply.epoch, reply.upto)

    def last(self, key: str) -> Changed | None:
        """Return what was told last of a key; None if nothing was, or it is not remembered."""
        known = self._keys.get(key)
        return None if known is None or not known.digests else _repeat(key, known, known.node_id)

    def place(self, owners: Owners) -> Iterator[Changed]:
        """Have other owners' words count from now on; yield what that changes of what was told last.

        What a new owner said before is told now. Who owns a key no more may never reach its last state: what an owner
        said takes the place of its word.
        """
        before, self.owners = self.owners, owners
        for name, key in self._keys.items():
            slot = slot_of(name)
            old, new = (table[slot] if table else () for table in (before, owners))
            if old == new or not new:
                continue
            spoken = [node_id for node_id in key.words if node_id in new]
            for node_id in spoken:
                if old and node_id not in old and key.tell(node_id, key.words[node_id][1]):
                    yield _repeat(name, key, node_id)
            if spoken and key.node_id not in new:
                key.node_id = spoken[-1]
                if key.tell(key.node_id, key.words[key.node_id][1]):
                    yield _repeat(name, key, key.node_id)

    def _is_new(self, node_id: str, change: Change) -> bool:
        """Tell whether to tell a change, and remember what the node said."""
        key = self._keys.pop(change.key, None)
        if key is None:
            key = _Key()
            if len(self._keys) >= self._keys_max:
                del self._keys[next(iter(self._keys))]
        self._keys[change.key] = key
        key.words.pop(node_id, None)
        key.words[node_id] = (change.type_name, change.digest)
        owners = self.owners[slot_of(change.key)] if self.owners else ()
        return (not owners or node_id in owners) and key.tell(node_id, change.digest)


def _repeat(name: str, key: _Key, node_id: str) -> Changed:
    """Return what a node said of a key."""
    return Changed(node_id, Change(0, name, *key.words[node_id]))


def _reason(place: Place | None, reply: ChangesReply) -> Reason:
    if place is None:
        return "node_joined"
    return "node_restarted" if place.epoch != reply.epoch else "changes_lost"
