"""Strategies of plugins decide as the built-in ones do, and do no harm when they fail."""

import jarvis_shapes
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.datatypes.mv_register import MvRegister
from crdt_service.kernel.config import ConflictRule, CrdtConfig, GossipConfig, PluginConfig, PluginsConfig
from crdt_service.kernel.error import ConfigError
from crdt_service.plugins.breaker import FAILURES_MAX, PROBATION_SECONDS, Breaker
from crdt_service.plugins.hook import Sibling, Undecided, Verdict
from crdt_service.plugins.resolvers import BYTES_MAX, SECONDS_MAX, SIBLINGS_MAX, Guard, Resolvers
from crdt_service.resolution.policy import Policy, Rule, read_policy
from crdt_service.resolution.sibling import Place
from crdt_service.resolution.strategy import STRATEGIES

_HEAD = "from crdt_service.plugins.hook import Undecided, Verdict, hookimpl\n"
# By name; the first fails otherwise than by what it returns.
_STRATEGIES = """
def _raise(siblings, sources):
    raise ValueError("no good")

def _none(siblings, sources):
    return None

def _other(siblings, sources):
    return Verdict(b"7", "made up")

def _text(siblings, sources):
    return Verdict("1", "text, and no bytes")

def _exit(siblings, sources):
    raise SystemExit(3)

def _unsure(siblings, sources):
    return Undecided(f"no opinion, {sources}")

def _first(siblings, sources):
    return Verdict(siblings[0].text, "x" * 10**6)

@hookimpl
def conflict_strategies():
    return {"raises": _raise, "none": _none, "other": _other, "text": _text, "exits": _exit, "unsure": _unsure,
            "first": _first}
"""


class Clocks:
    """Time, and time of the processor, that stand still unless moved."""

    def __init__(self):
        self.now = 0.0
        self.used = 0.0


def siblings(*values):
    """In canonical order, each by another node."""
    return [
        Sibling(place + 1, f"node-{place}~00000000", msgspec.json.encode(each)) for place, each in enumerate(values)
    ]


def collect(directory, *strategies, sources=(), settings=None, plugins=("p",), failures=None):
    """Return the policy of rules with these strategies, as a node reads it."""
    rules = [ConflictRule("", "any", strategy, list(sources)) for strategy in strategies]
    configs = [PluginConfig(name, False, 1000, 256, settings or {}) for name in plugins]
    resolvers = Resolvers(
        PluginsConfig(str(directory), configs),
        rules,
        clock=lambda: 0.0,
        processor_clock=lambda: 0.0,
        on_failure=(failures if failures is not None else []).append,
    )
    config = CrdtConfig(True, 1.0, 1, GossipConfig(True, 1.0, 1), "advanced", rules)
    return read_policy(config, resolvers.strategies)


def decide(policy, held):
    return policy.decide(policy.match(Place("k", (), MvRegister.tag)), held)


def guard(strategy, clocks, failures=None):
    return Guard(
        *("p", strategy, Breaker()),
        clock=lambda: clocks.now,
        processor_clock=lambda: clocks.used,
        on_failure=(failures if failures is not None else []).append,
    )


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "p.py").write_text(_HEAD + _STRATEGIES)
    return tmp_path


def test_the_built_in_strategies_come_through_the_hook(tmp_path):
    resolvers = Resolvers(
        PluginsConfig("", []), [], clock=lambda: 0.0, processor_clock=lambda: 0.0, on_failure=[].append
    )

    assert STRATEGIES == resolvers.strategies
    assert [] == resolvers.states()


def test_a_plugin_decides_and_its_reason_is_bounded(directory):
    decision = decide(collect(directory, "p.first"), siblings(1, 2))

    assert ("p.first", b"1", "x" * 500) == (decision.rule.strategy, decision.verdict.text, decision.verdict.because)


@pytest.mark.parametrize(
    ("strategy", "because"),
    [
        ("raises", "the plugin p failed: it raised ValueError: no good"),
        ("exits", "the plugin p failed: it raised SystemExit: 3"),
        ("none", "the plugin p failed: it returned neither a Verdict nor Undecided"),
        ("other", "the plugin p failed: it returned none of the siblings"),
        ("text", "the plugin p failed: it returned none of the siblings"),
    ],
)
def test_one_that_fails_leaves_the_decision_to_the_next_rule_and_is_counted(directory, strategy, because):
    failures = []
    policy = collect(directory, f"p.{strategy}", "max", failures=failures)

    for _ in range(2 * FAILURES_MAX):  # However often: it depends on nothing but the siblings.
        decision = decide(policy, siblings(2, 1))
        assert ("max", b"2") == (decision.rule.strategy, decision.verdict.text)
        assert [because] == [said for _, said in decision.undecided]
    assert ["p"] * 2 * FAILURES_MAX == failures


def test_one_that_cannot_decide_says_why_has_its_sources_and_did_not_fail(directory):
    failures = []

    decision = decide(collect(directory, "p.unsure", sources=["node-1"], failures=failures), siblings(2, 1))

    assert [("p.unsure", "no opinion, ('node-1',)")] == [(rule.strategy, said) for rule, said in decision.undecided]
    assert ("lww", []) == (decision.rule.strategy, failures)


@pytest.mark.parametrize(
    ("strategy", "plugins", "source", "says"),
    [
        ("q.first", ("p",), "", "a strategy is of the plugin q, which is not configured"),
        ("p.last", ("p",), _HEAD + _STRATEGIES, r"no strategy is 'p.last'"),
        ("vote", ("p",), "", "no strategy is 'vote'"),
        ("q.first", ("q",), "", "plugin q: LookupError: no entry point 'q' in the group jarvis.plugins"),
        ("p.first", ("p",), "raise OSError('no disk')", "plugin p: OSError: no disk"),
        ("p.first", ("p",), "raise SystemExit(3)", "plugin p: SystemExit: 3"),
        ("p.first", ("p",), "", r"no strategy is 'p.first'"),
        (
            "p.a",
            ("p",),
            _HEAD + "@hookimpl\ndef conflict_strategies():\n    return {'A b': max}",
            "a strategy has a name",
        ),
        ("p.a", ("p",), _HEAD + "@hookimpl\ndef conflict_strategies():\n    return {'a': 1}", "cannot be called"),
        ("p.a", ("p",), _HEAD + "@hookimpl\ndef conflict_strategy():\n    return {}", "unknown hook"),
    ],
)
def test_a_node_refuses_a_strategy_that_it_does_not_have(tmp_path, strategy, plugins, source, says):
    (tmp_path / "p.py").write_text(source)

    with pytest.raises(ConfigError, match=says):
        collect(tmp_path, strategy, plugins=plugins)


def test_settings_arrive_and_are_refused(tmp_path):
    (tmp_path / "p.py").write_text(
        _HEAD + "@hookimpl\ndef configure(settings):\n    raise ValueError(settings['colour'])"
    )

    with pytest.raises(ConfigError, match="plugin p: ValueError: blue"):
        collect(tmp_path, "p.first", settings={"colour": "blue"})


def test_a_plugin_that_no_rule_names_is_not_loaded(tmp_path):
    (tmp_path / "p.py").write_text("raise OSError('no disk')")

    assert "max" == decide(collect(tmp_path, "max"), siblings(1, 2)).rule.strategy


@pytest.mark.parametrize(
    "held", [siblings(*range(SIBLINGS_MAX + 1)), siblings("x" * (BYTES_MAX // 2), "y" * (BYTES_MAX // 2))]
)
def test_more_than_a_plugin_gets_is_left_to_the_next_rule(held):
    asked = []

    answer = guard(lambda given, _: asked.append(given), Clocks())(held, ())

    assert Undecided("more than 256 siblings or 1 MiB, which no plugin gets") == answer
    assert [] == asked


def test_a_plugin_that_takes_too_long_is_disabled_for_a_while():
    clocks, failures = Clocks(), []

    def take_long(given, _):
        clocks.used += SECONDS_MAX * 2
        return Verdict(given[0].text, "slow")

    decide_slowly = guard(take_long, clocks, failures)
    for _ in range(FAILURES_MAX):
        assert Verdict(b"1", "slow") == decide_slowly(siblings(1, 2), ())

    disabled = Undecided("the plugin p is disabled: it took more than 50 ms for a decision")
    assert disabled == decide_slowly(siblings(1, 2), ())
    assert ["p"] * FAILURES_MAX == failures
    clocks.now += PROBATION_SECONDS * 2
    assert Verdict(b"1", "slow") == decide_slowly(siblings(1, 2), ())


_OBJECTS = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2))


@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from("xyz"), _OBJECTS | st.integers()), min_size=2, max_size=6),
    st.randoms(use_true_random=False),
)
def test_the_order_in_which_siblings_arrive_does_not_matter(held, randomness):
    strategy = guard(jarvis_shapes.conflict_strategies()["fullest"], Clocks())
    policy = Policy([Rule("a", "shapes.fullest")], {**STRATEGIES, "shapes.fullest": strategy})
    arrived = [Sibling(stamp, f"{node}~0", msgspec.json.encode(value)) for stamp, node, value in held]
    expected = decide(policy, arrived)

    randomness.shuffle(arrived)

    assert expected == decide(policy, arrived)
