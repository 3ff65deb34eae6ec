"""Conflicts as people read them: siblings, origins, times, the rule that decided and why; all of it bounded JSON."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from crdt_service.datatypes.mv_register import Sibling
from crdt_service.resolution.conflicts import Conflicts
from crdt_service.resolution.sibling import TYPE_NAMES, Place, find_node, format_time, read_conflict

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


class ConflictSummary(msgspec.Struct):
    """The conflicts of a key.

    Attributes:
        places: How many places hold siblings; more than one only in a map.
        strategies: Those that decide.
        resolutions: The first hundred, where they are asked for.
    """

    places: int
    strategies: list[str]
    resolutions: list[Resolution] | UnsetType = UNSET


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
    """Return how many places of a state hold siblings and which strategies decide, as JSON; empty without conflict."""
    strategies = conflicts.find(address)
    if not strategies:
        return b""
    return msgspec.json.encode(ConflictSummary(len(strategies), sorted(set(strategies.values()))))


def explain_state(conflicts: Conflicts, address: tuple[str, int], state: Any) -> bytes:
    """Return the same with the first hundred resolutions, as JSON; also without conflict."""
    strategies = conflicts.find(address)
    budget = _Budget(EXPLAINED_BYTES_MAX, EXPLAINED_BYTES_MAX)
    shown = sorted(strategies)[:PLACES_MAX]
    resolutions = [_resolve(conflicts, place, _read(state, place), budget) for place in shown]
    return msgspec.json.encode(ConflictSummary(len(strategies), sorted(set(strategies.values())), resolutions))


def explain_listed(conflicts: Conflicts, place: Place, state: Any) -> tuple[int, bytes]:
    """Return (newest stamp, resolution as JSON) of one place for a listing, values of up to 1 KiB included."""
    siblings = _read(state, place)
    budget = _Budget(LISTED_BYTES_MAX, LISTED_BYTES_MAX * SIBLINGS_MAX)
    return siblings[-1].stamp, msgspec.json.encode(_resolve(conflicts, place, siblings, budget))


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
