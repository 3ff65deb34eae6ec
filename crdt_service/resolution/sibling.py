"""Where concurrent writes stand beside each other, and how to read them there.

A place is a register or workflow: a key by itself, or a field of a map. Its siblings are the writes that none other has
seen; two or more of them are a conflict. A key that was created concurrently with several types is a place, too.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from crdt_service.datatypes.dotted import Path, State
from crdt_service.datatypes.lww_register import LwwRegister
from crdt_service.datatypes.map import Map, find_innermost
from crdt_service.datatypes.mv_register import MvRegister, Sibling, read_siblings
from crdt_service.datatypes.workflow import Workflow, read_steps
from crdt_service.kernel.clock import COUNTER_BITS
from crdt_service.kernel.dot import Dot

TYPE_NAMES: Mapping[int, str] = {kind.tag: kind.name for kind in (LwwRegister, MvRegister, Workflow)}
# Types of keys that can hold siblings; a register whose latest write wins keeps some only as a field of a map.
HOLDERS = frozenset({MvRegister.tag, Map.tag, Workflow.tag})
# Of the place that is a key itself where it holds several types; no type of states has it.
TYPES_TAG = 127
# What siblings need beside a definition.
_WORKFLOW_ENTRIES_MIN = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Place(NamedTuple):
    """One place in one key; places compare by key in the order of code points, which is that of UTF-8.

    Attributes:
        key: The key.
        path: The map's path parts that lead there, each a field behind its type's tag; empty for the key itself.
        tag: Tag of the type that holds the siblings; `TYPES_TAG` where the key holds several types.
    """

    key: str
    path: Path
    tag: int

    @property
    def address(self) -> tuple[str, int]:
        """Key and tag of the state that the place is in."""
        return self.key, Map.tag if self.path else self.tag

    @property
    def fields(self) -> list[str]:
        """The names of the map's fields that lead there."""
        return [part[1:] for part in self.path]


def find_place(address: tuple[str, int], path: Path) -> Place | None:
    """Return the place of an entry at `path`, or None if no siblings can stand there."""
    key, tag = address
    length = 0
    if tag == Map.tag:
        length, tag = find_innermost(path)
    return Place(key, path[:length], tag) if tag in TYPE_NAMES else None


def read_conflict(state: State, place: Place) -> dict[Dot, Sibling]:
    """Return the siblings at `place` by dot, or nothing where they are no conflict.

    Transitions of a workflow that reached the same state are none.
    """
    if place.tag == Workflow.tag:
        dots = state.below.get(place.path, ()) if place.path else state.owner.keys()
        if len(dots) < _WORKFLOW_ENTRIES_MIN:
            return {}
        length = len(place.path)
        steps = read_steps((dot, path[length:], content) for dot in dots for path, content in [state.owner[dot]])
        siblings = {dot: Sibling(stamp, dot[0], msgspec.json.encode(to)) for dot, stamp, to in steps}
        return siblings if len({sibling.text for sibling in siblings.values()}) > 1 else {}
    exact = state.exact.get(place.path, ())
    if len(exact) < 2:
        return {}
    siblings = {dot: sibling for dot in exact for sibling in read_siblings([(dot, (), state.owner[dot][1])])}
    return siblings if len(siblings) > 1 else {}


def find_node(replica: str) -> str:
    """Return the node that a replica id names."""
    return replica.partition("~")[0]


def format_time(stamp: int) -> str:
    """Return the time in a hybrid logical stamp as RFC 3339 in UTC, with milliseconds."""
    moment = _EPOCH + timedelta(milliseconds=stamp >> COUNTER_BITS)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
