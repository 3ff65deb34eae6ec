"""Which strategy decides where: ordered rules on the key's prefix and type, the first that matches and can decide does.

A decision depends on nothing but the place and its siblings, so replicas with the same siblings and rules decide alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crdt_service.datatypes.map import Map
from crdt_service.datatypes.mv_register import MvRegister, Sibling
from crdt_service.kernel.config import CrdtConfig
from crdt_service.kernel.error import ConfigError
from crdt_service.resolution.sibling import TYPE_NAMES, Place
from crdt_service.resolution.strategy import (
    KEEP,
    LWW,
    PRIORITY,
    STRATEGIES,
    Strategy,
    Verdict,
    choose_latest,
    find_plugin,
)

ANY = "any"
_MODE = "crdt.conflict_resolution"
_RULES = "crdt.conflict_rules"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        name: Where it stands, for explanations.
        strategy: Name of the strategy.
        prefix: Keys that begin so.
        type: Type of the key, or `any`.
        sources: Node ids for the strategy `priority`.
    """

    name: str
    strategy: str
    prefix: str = ""
    type: str = ANY
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and how.

    Attributes:
        rule: The rule that decided.
        verdict: The value and why.
        undecided: Rules before it that matched and could not decide, each with the reason.
    """

    rule: Rule
    verdict: Verdict
    undecided: tuple[tuple[Rule, str], ...]


# What a register or workflow does by its type, whatever the rules say.
_BY_TYPE = {tag: Rule(f"type {name}", LWW) for tag, name in TYPE_NAMES.items() if tag != MvRegister.tag}


class Policy:
    """Ordered rules; after the last, the latest write wins.

    Args:
        rules: In order; their strategies are in `strategies`.
        strategies: What can decide, by name.
    """

    def __init__(self, rules: Iterable[Rule], strategies: Mapping[str, Strategy] = STRATEGIES) -> None:
        self._rules = (*rules, Rule("default", LWW))
        self._strategies = strategies

    def match(self, place: Place) -> list[Rule]:
        """Return the rules that hold at `place`, in order; never none."""
        if place.tag in _BY_TYPE:
            return [_BY_TYPE[place.tag]]
        kind = Map.name if place.path else MvRegister.name
        return [rule for rule in self._rules if rule.type in (ANY, kind) and place.key.startswith(rule.prefix)]

    def decide(self, rules: Sequence[Rule], siblings: Iterable[Sibling]) -> Decision:
        """Return what the first of `rules` that can decides between siblings, given in any order."""
        ordered = sorted(siblings)
        undecided: list[tuple[Rule, str]] = []
        for rule in rules:
            verdict = self._strategies[rule.strategy](ordered, rule.sources)
            if isinstance(verdict, Verdict):
                return Decision(rule, verdict, tuple(undecided))
            undecided.append((rule, verdict.because))
        return Decision(Rule("default", LWW), choose_latest(ordered), tuple(undecided))

    def is_kept(self, rules: Sequence[Rule]) -> bool:
        """Tell whether readers always get the array of all siblings."""
        return rules[0].strategy == KEEP


# What the type itself shows.
SHOW_ALL = Policy([Rule(_MODE, KEEP)])


def read_policy(config: CrdtConfig, strategies: Mapping[str, Strategy] = STRATEGIES) -> Policy:
    """Return the policy of the configuration.

    Raises:
        ConfigError: Rules stand beside a mode that has none, or one names no strategy or not its sources.
    """
    if config.conflict_resolution != "advanced":
        if config.conflict_rules:
            raise ConfigError(
                f"{_RULES}: given while {_MODE} is {config.conflict_resolution}",
                f"remove them, or set {_MODE}: advanced",
            )
        return SHOW_ALL if config.conflict_resolution == "multi_value" else Policy([Rule(_MODE, LWW)])
    rules = []
    for index, rule in enumerate(config.conflict_rules):
        name = f"{_RULES}[{index}]"
        if rule.strategy not in strategies:
            known = ", ".join(strategies)
            raise ConfigError(f"{name}.strategy: no strategy is {rule.strategy!r}", f"use one of {known}")
        if not find_plugin(rule.strategy) and (rule.strategy == PRIORITY) != bool(rule.sources):
            raise ConfigError(
                f"{name}.sources: {len(rule.sources)} while the strategy is {rule.strategy}",
                f"name node ids for {PRIORITY}, and for no other built-in strategy",
            )
        rules.append(Rule(name, rule.strategy, rule.prefix, rule.type, tuple(rule.sources)))
    return Policy(rules, strategies)
