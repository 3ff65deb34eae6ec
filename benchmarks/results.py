"""What was measured: its statistics, and the table and ratios that show it."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

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


@dataclass
class Result:
    """One system's medians, or why there are none."""

    name: str
    acknowledges: str = ""
    values: dict[str, float] = field(default_factory=dict)
    missing: str = ""


def quantile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least `part` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def medians(rounds: Sequence[Round]) -> dict[str, float]:
    """Return the median of each measure over the rounds that have it."""
    keys = dict.fromkeys(key for measured in rounds for key in measured)
    return {key: statistics.median(measured[key] for measured in rounds if key in measured) for key in keys}


def ratio(measure: Measure, ours: Result, theirs: Result) -> float | None:
    """Return how many times better we are, below 1 if worse; None if either lacks the measure."""
    mine, other = ours.values.get(measure.key), theirs.values.get(measure.key)
    if not mine or not other or mine < 0 or other < 0:
        return None
    return mine / other if measure.is_more_better else other / mine


def build_table(results: Sequence[Result]) -> Table:
    """Return a row per system, then a row of ratios per rival."""
    table = Table(
        title="Medians of interleaved rounds; ratios above 1 mean that Jarvis is better", title_justify="left"
    )
    table.add_column("system")
    for measure in MEASURES:
        table.add_column(measure.title, justify="right")
    for result in results:
        if not result.missing:
            table.add_row(result.name, *(_number(result.values.get(each.key), each.decimals) for each in MEASURES))
    ours = next((result for result in results if result.name == OURS and not result.missing), None)
    if ours is not None:
        table.add_section()
        for result in results:
            if not result.name.startswith(OURS) and not result.missing:
                ratios = (ratio(measure, ours, result) for measure in MEASURES)
                table.add_row(f"{OURS} ÷ {result.name}", *map(_coloured, ratios))
    return table


def to_plain(results: Sequence[Result], setting: dict[str, Any]) -> dict[str, Any]:
    """Return everything for the JSON file."""
    ours = next((result for result in results if result.name == OURS and not result.missing), None)
    systems = {}
    for result in results:
        if result.missing:
            systems[result.name] = {"missing": result.missing}
            continue
        plain: dict[str, Any] = {"acknowledges": result.acknowledges, **result.values}
        if ours is not None and not result.name.startswith(OURS):
            plain["jarvis_is_better_by"] = {each.key: ratio(each, ours, result) for each in MEASURES}
        systems[result.name] = plain
    return {"setting": setting, "systems": systems}


def _number(value: float | None, decimals: int) -> str:
    return NONE if value is None else f"{value:,.{decimals}f}".replace(",", " ")


def _coloured(value: float | None) -> str:
    if value is None:
        return NONE
    return f"[{'green' if value >= 1 else 'red'}]{value:.2f}[/]"
