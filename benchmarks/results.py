"""What was measured: its statistics, and the table and ratios that show it."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from benchmarks.page import markdown

OURS = "jarvis"
NONE = "-"
Round = dict[str, float]


@dataclass(frozen=True)
class Measure:
    """One column.

    Attributes:
        key: Its name in the JSON.
        title: Its name for people.
        is_more_better: The direction of ratios.
        decimals: Digits after the point.
    """

    key: str
    title: str
    is_more_better: bool = False
    decimals: int = 1


MEASURES = (
    Measure("writes_per_s", "writes/s", True, 0),
    Measure("write_p50_ms", "write p50 ms"),
    Measure("write_p99_ms", "write p99 ms"),
    Measure("increments_per_s", "hot-key incr/s", True, 0),
    Measure("propagation_p50_ms", "seen by all p50 ms"),
    Measure("propagation_p99_ms", "seen by all p99 ms"),
    Measure("cpu_us", "cluster CPU µs/write", decimals=0),
    Measure("client_cpu_us", "client CPU µs/write", decimals=0),
    Measure("restart_s", "restart s", decimals=2),
    Measure("memory_mb", "MB per 10⁵ keys", decimals=0),
)


@dataclass(frozen=True)
class Comparison:
    """A ratio of like with like.

    Attributes:
        ours: A system of ours.
        theirs: A rival that acknowledges no less and no more.
        keys: The measures in which they are alike; empty for all.
    """

    ours: str
    theirs: str
    keys: tuple[str, ...] = ()


_SHOWN_BY_ALL = ("increments_per_s", "propagation_p50_ms", "propagation_p99_ms")
COMPARISONS = (
    Comparison("jarvis", "redis"),
    Comparison("jarvis-1", "redis"),
    Comparison("jarvis", "redis-py"),
    Comparison("jarvis-majority", "nats"),
    Comparison("jarvis-majority-tls", "nats"),
    Comparison("jarvis-majority", "etcd"),
    Comparison("jarvis-majority-tls", "etcd"),
    # Writers of the counter are on every node in both, and a write counts as seen only once all nodes show it.
    Comparison("jarvis", "etcd", _SHOWN_BY_ALL),
)


@dataclass(frozen=True)
class Target:
    """What a ratio should at least be."""

    title: str
    comparison: Comparison
    wanted: float


TARGETS = (
    Target(
        "writes/s, `majority` over mutual TLS, to etcd", Comparison("jarvis-majority-tls", "etcd", ("writes_per_s",)), 3
    ),
    Target(
        "writes/s, `majority` over mutual TLS, to NATS",
        Comparison("jarvis-majority-tls", "nats", ("writes_per_s",)),
        1.5,
    ),
    Target("writes/s, `one`, to Redis", Comparison("jarvis", "redis", ("writes_per_s",)), 1),
    Target("hot counter, writers on every node, to etcd", Comparison("jarvis", "etcd", ("increments_per_s",)), 100),
    Target("seen by all, p99, to etcd", Comparison("jarvis", "etcd", ("propagation_p99_ms",)), 2),
)


@dataclass
class Result:
    """One system's medians, the lowest and highest of its rounds, or why there are none."""

    name: str
    acknowledges: str = ""
    values: dict[str, float] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    missing: str = ""


def quantile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least `part` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def medians(rounds: Sequence[Round]) -> dict[str, float]:
    """Return the median of each measure over the rounds that have it."""
    keys = dict.fromkeys(key for measured in rounds for key in measured)
    return {key: statistics.median(measured[key] for measured in rounds if key in measured) for key in keys}


def ranges(rounds: Sequence[Round]) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest of each measure."""
    keys = dict.fromkeys(key for measured in rounds for key in measured)
    found = {key: [measured[key] for measured in rounds if key in measured] for key in keys}
    return {key: (min(values), max(values)) for key, values in found.items()}


def ratio(measure: Measure, ours: Result, theirs: Result) -> float | None:
    """Return how many times better we are, below 1 if worse; None if either lacks the measure."""
    mine, other = ours.values.get(measure.key), theirs.values.get(measure.key)
    if not mine or not other or mine < 0 or other < 0:
        return None
    return mine / other if measure.is_more_better else other / mine


def compare(results: Sequence[Result]) -> dict[tuple[str, str], list[float | None]]:
    """Return the ratio of each measure for all pairs of systems that are alike and were measured."""
    found = {result.name: result for result in results if not result.missing}
    return {
        (pair.ours, pair.theirs): [
            ratio(each, found[pair.ours], found[pair.theirs]) if each.key in pair.keys or not pair.keys else None
            for each in MEASURES
        ]
        for pair in COMPARISONS
        if pair.ours in found and pair.theirs in found
    }


def build_table(results: Sequence[Result]) -> Table:
    """Return a row per system, then a row of ratios per pair that is alike."""
    table = Table(
        title="Medians of interleaved rounds; ratios above 1 mean that Jarvis is better", title_justify="left"
    )
    table.add_column("system")
    for measure in MEASURES:
        table.add_column(measure.title, justify="right")
    for result in results:
        if not result.missing:
            table.add_row(result.name, *_row(result))
    table.add_section()
    for (ours, theirs), ratios in compare(results).items():
        table.add_row(f"{ours} ÷ {theirs}", *map(_coloured, ratios))
    return table


def build_page(results: Sequence[Result], setting: dict[str, Any]) -> str:
    """Return the setting and the tables as Markdown: targets, systems, ratios."""
    found = {result.name: result for result in results if not result.missing}
    targets = []
    for target in TARGETS:
        pair = target.comparison
        measure = next(each for each in MEASURES if each.key == pair.keys[0])
        both = pair.ours in found and pair.theirs in found
        reached = ratio(measure, found[pair.ours], found[pair.theirs]) if both else None
        verdict = NONE if reached is None else "yes" if reached >= target.wanted else "**no**"
        targets.append((target.title, f"at least {target.wanted:g}", _factor(reached), verdict))
    titles = [measure.title for measure in MEASURES]
    parts = [
        f"{setting['clients']} clients, a connection each; distinct keys, 32-byte values; {setting['keys']:,} keys "
        f"before the rounds; medians of {setting['rounds']} interleaved rounds, each of {setting['seconds']:g} s of "
        f"writes, as many of increments, and {setting['samples']} writes seen by all; {setting['cores']} cores shared "
        f"by clients and servers; append of 4 KiB and fdatasync: median {setting['sync_us']:.0f} µs; load average "
        f"before the run, of other work: {setting['load_before']:.1f}.",
        markdown(("target", "wanted", "reached", "met"), targets),
        markdown(("system", *titles), [(result.name, *_row(result)) for result in found.values()]),
        markdown(
            ("ratio, above 1 Jarvis is better", *titles),
            [(f"{ours} ÷ {theirs}", *map(_factor, ratios)) for (ours, theirs), ratios in compare(results).items()],
        ),
        *(f"{result.name} is missing: {result.missing}" for result in results if result.missing),
    ]
    return "\n\n".join(parts)


def to_plain(results: Sequence[Result], setting: dict[str, Any]) -> dict[str, Any]:
    """Return everything for the JSON file."""
    systems: dict[str, Any] = {}
    for result in results:
        if result.missing:
            systems[result.name] = {"missing": result.missing}
        else:
            systems[result.name] = {"acknowledges": result.acknowledges, **result.values, "ranges": result.ranges}
    ratios = {
        f"{ours} to {theirs}": {each.key: value for each, value in zip(MEASURES, values, strict=True)}
        for (ours, theirs), values in compare(results).items()
    }
    return {"setting": setting, "systems": systems, "ratios": ratios}


def _row(result: Result) -> list[str]:
    return [_number(result.values.get(each.key), each.decimals) for each in MEASURES]


def _factor(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _number(value: float | None, decimals: int) -> str:
    return NONE if value is None else f"{value:,.{decimals}f}".replace(",", " ")


def _coloured(value: float | None) -> str:
    return NONE if value is None else f"[{'green' if value >= 1 else 'red'}]{_factor(value)}[/]"
