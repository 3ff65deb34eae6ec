"""The nodes' changes as one sequence. A key changes on each of its owners; that is told once, as far as is known.

Nothing here waits or asks. What one node says stays in its order; between nodes there is none.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from crdt_service.api.feed.cursor import Place
from crdt_service.wire.message import Change, ChangesReply

# Raising it tells fewer changes twice while replicas lag far behind each other, at about 300 bytes each.
KEYS_MAX = 1 << 15
# What a key held lately; a replica that lags further behind tells an older state again.
_DIGESTS_MAX = 4

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


class _Told(NamedTuple):
    """What was told of a key: digests, the last at the end, and the node that said that."""

    node_id: str
    digests: tuple[bytes, ...]


class Merge:
    """Takes replies of nodes, each the next of its node.

    Args:
        places: Where the nodes are asked from at first.
        keys_max: Of how many keys it is remembered what was told.

    Attributes:
        places: Up to where everything of each node is told.
    """

    def __init__(self, places: Mapping[str, Place], keys_max: int = KEYS_MAX) -> None:
        self.places = dict(places)
        self._keys_max = keys_max
        # The keys heard of last are at the end.
        self._told: dict[str, _Told] = {}

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

    def _is_new(self, node_id: str, change: Change) -> bool:
        """Tell whether to tell a change, and remember it.

        What was told is not told again, with two exceptions. A node that told something else since then must be
        followed, or what it told last would stay the last word. And an emptied key that came back may be emptied again.
        """
        told = self._told.pop(change.key, None)
        if told is None:
            is_new, told = True, _Told(node_id, (change.digest,))
            if len(self._told) >= self._keys_max:
                del self._told[next(iter(self._told))]
        else:
            is_last = told.digests[-1] == change.digest
            is_new = not is_last and (told.node_id == node_id or change.digest not in told.digests)
            if is_new:
                others = (digest for digest in told.digests if digest and digest != change.digest)
                told = _Told(node_id, (*others, change.digest)[-_DIGESTS_MAX:])
        self._told[change.key] = told
        return is_new


def _reason(place: Place | None, reply: ChangesReply) -> Reason:
    if place is None:
        return "node_joined"
    return "node_restarted" if place.epoch != reply.epoch else "changes_lost"
