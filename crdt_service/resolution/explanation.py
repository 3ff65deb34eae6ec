"""Conflicts as people read them: siblings, origins, times, the rule that decided and why; all of it bounded JSON."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from crdt_service.datatypes.mv_register import Sibling
from crdt_service.datatypes.registry import get_type
from crdt_service.resolution.conflicts import TYPE_ORDER, Conflicts
from crdt_service.resolution.sibling import TYPE_NAMES, TYPES_TAG, Place, find_node, format_time, read_conflict

# Of one key; the number of all stands beside them.
PLACES_MAX = 100
SIBLINGS_MAX = 100
# Raising them shows more of large values: in a listing of each, when one key is explained of all together.
LISTED_BYTES_MAX = 1 << 10
EXPLAINED_BYTES_MAX = 4 << 20


class SiblingView(msgspec.Struct):
    """One sibling.

    Attributes:
        node: The node that took the write.
        replica: The node's replica id, which a lost disk renews.
        time: RFC 3339 in UTC, with milliseconds.
        bytes: Size of the value as JSON.
        value: The value; left out where it is too large for the answer.
    """

    node: str
    replica: str
    time: str
    bytes: int
    value: msgspec.Raw | UnsetType = UNSET


class UndecidedView(msgspec.Struct):
    """A rule that matched and could not decide."""

    rule: str
    strategy: str
    because: str


class Resolution(msgspec.Struct):
    """One conflict and what was decided.

    Attributes:
        field: Names of the map's fields that lead to the register; empty if it is the key itself.
        type: Type that holds the siblings.
        rule: Where the rule that decided stands.
        strategy: Its strategy.
        because: One sentence.
        undecided: Rules before it that matched and could not decide.
        sibling_count: How many siblings there are.
        siblings: The first hundred, by time, replica and bytes.
        value: What readers see; left out where it is too large for the answer.
        other_types: Where the key holds several types, those beside `type`, which readers see; there are no siblings
            and no value then.
    """

    field: list[str]
    type: str
    rule: str
    strategy: str
    because: str
    undecided: list[UndecidedView]
    sibling_count: int
    siblings: list[SiblingView]
    value: msgspec.Raw | UnsetType = UNSET
    other_types: list[str] | UnsetType = UNSET


class ConflictSummary(msgspec.Struct):
    """The conflicts of a key.

    Attributes:
        places: How many places hold siblings; more than one only in a map.
        strategies: Those that decide.
        resolutions: The first hundred, where they are asked for.
        other_types: The types beside the one that the answer shows, of which the key holds something, too; left out
            where there are none.
    """

    places: int
    strategies: list[str]
    resolutions: list[Resolution] | UnsetType = UNSET
    other_types: list[str] | UnsetType = UNSET


class _Others(msgspec.Struct):
    other_types: list[str] = []


class _Types(_Others):
    type: str = ""


_types = msgspec.json.Decoder(_Types)
_others = msgspec.json.Decoder(_Others)


class _Budget:
    """Hands out values as long as bytes are left."""

    def __init__(self, each: int, total: int) -> None:
        self._each = each
        self._left = total

    def admit(self, text: bytes) -> msgspec.Raw | UnsetType:
        """Return the value, or nothing if it is too large."""
        if len(text) > min(self._each, self._left):
            return UNSET
        self._left -= len(text)
        return msgspec.Raw(text)


def summarize(conflicts: Conflicts, address: tuple[str, int]) -> bytes:
    """Return how many places of a state hold siblings and which strategies decide, as JSON; empty without conflict.

    With it come the other types that the key holds.
    """
    strategies = conflicts.find(address)
    others = _list_others(conflicts, address)
    if not strategies and others is UNSET:
        return b""
    return msgspec.json.encode(ConflictSummary(len(strategies), sorted(set(strategies.values())), other_types=others))


def read_other_types(conflict: bytes) -> tuple[str, ...]:
    """Return the other types in what `summarize` or `explain_state` returned."""
    return tuple(_others.decode(conflict).other_types) if conflict else ()


def read_types(resolution: bytes) -> list[str]:
    """Return the types of a key that holds several, the shown one first, from what `explain_listed` says of it."""
    types = _types.decode(resolution)
    return [types.type, *types.other_types]


def explain_state(conflicts: Conflicts, address: tuple[str, int], state: Any) -> bytes:
    """Return the same with the first hundred resolutions, as JSON; also without conflict."""
    strategies = conflicts.find(address)
    budget = _Budget(EXPLAINED_BYTES_MAX, EXPLAINED_BYTES_MAX)
    shown = sorted(strategies)[:PLACES_MAX]
    resolutions = [_resolve(conflicts, place, _read(state, place), budget) for place in shown]
    others = _list_others(conflicts, address)
    if others is not UNSET:
        resolutions.append(_resolve_types(conflicts, address[0]))
    return msgspec.json.encode(ConflictSummary(len(strategies), sorted(set(strategies.values())), resolutions, others))


def explain_listed(conflicts: Conflicts, place: Place, state: Any) -> tuple[int, bytes]:
    """Return (newest stamp, resolution as JSON) of one place for a listing, values of up to 1 KiB included.

    Where a key holds several types their number is in the place of the stamp: who knows more of them knows more.
    """
    if place.tag == TYPES_TAG:
        return len(conflicts.types[place.key]), msgspec.json.encode(_resolve_types(conflicts, place.key))
    siblings = _read(state, place)
    budget = _Budget(LISTED_BYTES_MAX, LISTED_BYTES_MAX * SIBLINGS_MAX)
    return siblings[-1].stamp, msgspec.json.encode(_resolve(conflicts, place, siblings, budget))


def _list_others(conflicts: Conflicts, address: tuple[str, int]) -> list[str] | UnsetType:
    names = [get_type(tag).name for tag in conflicts.types.get(address[0], ()) if tag != address[1]]
    return names or UNSET


def _resolve_types(conflicts: Conflicts, key: str) -> Resolution:
    shown, *others = (get_type(tag).name for tag in conflicts.types[key])
    return Resolution(
        field=[],
        type=shown,
        rule="types",
        strategy=TYPE_ORDER,
        because=f"{shown} comes before {' and '.join(others)} in the order of types",
        undecided=[],
        sibling_count=0,
        siblings=[],
        other_types=others,
    )


def _read(state: Any, place: Place) -> list[Sibling]:
    return sorted(read_conflict(state, place).values())


def _resolve(conflicts: Conflicts, place: Place, siblings: list[Sibling], budget: _Budget) -> Resolution:
    policy = conflicts.policy
    decision = policy.decide(policy.match(place), siblings)
    return Resolution(
        field=place.fields,
        type=TYPE_NAMES[place.tag],
        rule=decision.rule.name,
        strategy=decision.rule.strategy,
        because=decision.verdict.because,
        undecided=[UndecidedView(rule.name, rule.strategy, because) for rule, because in decision.undecided],
        sibling_count=len(siblings),
        siblings=[
            SiblingView(
                find_node(sibling.replica),
                sibling.replica,
                format_time(sibling.stamp),
                len(sibling.text),
                budget.admit(sibling.text),
            )
            for sibling in siblings[:SIBLINGS_MAX]
        ],
        value=budget.admit(decision.verdict.text),
    )
