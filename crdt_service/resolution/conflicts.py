"""Which places of this node hold siblings: an index that each joined delta moves on, at the delta's cost.

It holds no values; what the siblings are is read from the state, which stays the only truth.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from crdt_service.datatypes.dotted import State
from crdt_service.datatypes.map import Map
from crdt_service.datatypes.registry import get_type
from crdt_service.kernel.dot import Dot
from crdt_service.resolution.policy import Policy
from crdt_service.resolution.sibling import HOLDERS, TYPE_NAMES, TYPES_TAG, Place, find_place, read_conflict

# What decides which of several types of a key is shown: the first in the order of types, on every node.
TYPE_ORDER = "type_order"


class Arisen(NamedTuple):
    """Siblings that joined others.

    Attributes:
        type: Name of the type that holds them.
        strategy: What decides between them now.
        joined: How many did.
    """

    type: str
    strategy: str
    joined: int


class _Found(NamedTuple):
    """What decides at a place, and its siblings' dots; a tuple, because a set takes four times the memory."""

    strategy: str
    dots: tuple[Dot, ...]


class Conflicts:
    """The index; addresses are pairs of key and type tag.

    Attributes:
        policy: What decides.
        types: Of each key that holds several types the tags of those that are there to be read, the shown one first.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.types: dict[str, tuple[int, ...]] = {}
        self._held: dict[tuple[str, int], dict[Place, _Found]] = {}
        # Only a map has more than one place: which of them a dot is in.
        self._places: dict[tuple[str, int], dict[Dot, Place]] = {}
        # Inserting moves what comes after; conflicts are few, and 100 000 pointers move in some 20 microseconds.
        self._order: list[Place] = []

    def __len__(self) -> int:
        return len(self._order)

    def update(self, address: tuple[str, int], delta: Any, state: Any) -> list[Arisen]:
        """Take in that `delta` was joined into `state`; return the conflicts that this made."""
        if address[1] not in HOLDERS or (address not in self._held and len(state.owner) < 2):
            return []
        # A dictionary, because a set has another order in each process.
        touched = dict.fromkeys(find_place(address, path) for path, _ in delta.owner.values())
        if address[1] == Map.tag:
            places = self._places.get(address, {})
            touched.update(dict.fromkeys(places[dot] for dot in delta.context.pick(places)))
        else:
            touched.update(dict.fromkeys(self._held.get(address, ())))
        return [arisen for place in touched if place is not None for arisen in self._judge(place, state)]

    def update_types(self, key: str, tags: tuple[int, ...]) -> list[Arisen]:
        """Take in the types of which a key holds something to be read, in their order; return the conflicts made."""
        before = self.types.get(key, ())
        if tags == before or (len(tags) < 2 and not before):
            return []
        place = Place(key, (), TYPES_TAG)
        if len(tags) < 2:
            del self.types[key]
            del self._order[bisect_left(self._order, place)]
            return []
        self.types[key] = tags
        if not before:
            insort(self._order, place)
        # Of the first types of a key, one was there to be joined.
        joined = sum(tag not in before for tag in tags) - (not before)
        return [Arisen(get_type(tags[0]).name, TYPE_ORDER, joined)] if joined else []

    def forget(self, address: tuple[str, int]) -> None:
        """Take in that the state is gone from this node."""
        self._places.pop(address, None)
        for place in self._held.pop(address, ()):
            del self._order[bisect_left(self._order, place)]

    def find(self, address: tuple[str, int]) -> Mapping[Place, str]:
        """Return the places of a state that hold siblings, and the strategy that decides at each."""
        return {place: found.strategy for place, found in self._held.get(address, {}).items()}

    def walk(self, prefix: str, after: Place | None) -> Iterator[Place]:
        """Yield the places in keys that begin with `prefix`, in order, from the first beyond `after`."""
        start = bisect_left(self._order, Place(prefix, (), 0))
        if after is not None:
            start = max(start, bisect_right(self._order, after))
        while start < len(self._order) and self._order[start].key.startswith(prefix):
            yield self._order[start]
            start += 1

    def _judge(self, place: Place, state: State) -> list[Arisen]:
        address = place.address
        held = self._held.get(address, {})
        before = set(held[place].dots) if place in held else set()
        siblings = read_conflict(state, place)
        if place.path:
            self._move(address, place, before - siblings.keys(), siblings)
        if not siblings:
            if before:
                del held[place]
                del self._order[bisect_left(self._order, place)]
                if not held:
                    del self._held[address]
            return []
        strategy = self.policy.decide(self.policy.match(place), siblings.values()).rule.strategy
        self._held.setdefault(address, held)[place] = _Found(strategy, tuple(siblings))
        if not before:
            insort(self._order, place)
        # Of the first siblings of a place, one was there to be joined.
        joined = len(siblings.keys() - before) - (not before)
        return [Arisen(TYPE_NAMES[place.tag], strategy, joined)] if joined else []

    def _move(self, address: tuple[str, int], place: Place, gone: set[Dot], present: Iterable[Dot]) -> None:
        """Note which dots of a map are at `place` now."""
        places = self._places.setdefault(address, {})
        for dot in gone:
            if places.get(dot) == place:  # Only a faulty replica moves a dot from one place to another.
                del places[dot]
        places.update(dict.fromkeys(present, place))
        if not places:
            del self._places[address]
