"""The picture: one small chart per measure, so that no axis is shared by unlike things."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.results import MEASURES, OURS, Measure, Result

_SHOWN = ("writes_per_s", "increments_per_s", "propagation_p99_ms", "cpu_us", "restart_s", "memory_mb")
# A range so wide has decades enough to label.
_WIDE = 100
_OURS, _THEIRS = "#1f6feb", "#5b6470"


def draw(results: Sequence[Result], file: Path) -> None:
    """Write a PNG: a dot for each median on a logarithmic axis, which has no zero for bars to stand on."""
    mpl.use("Agg")
    figure, axes = plt.subplots(2, 3, figsize=(15, 8.4), layout="constrained")
    for axis, key in zip(axes.flat, _SHOWN, strict=True):
        _draw_measure(axis, next(each for each in MEASURES if each.key == key), results)
    figure.suptitle("Logarithmic axes; dots are medians, lines run from the lowest round to the highest", fontsize=11)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _draw_measure(axis: mpl.axes.Axes, measure: Measure, results: Sequence[Result]) -> None:
    shown = [result for result in results if result.values.get(measure.key, 0) > 0][::-1]
    for row, result in enumerate(shown):
        colour = _OURS if result.name.startswith(OURS) else _THEIRS
        value = result.values[measure.key]
        axis.plot(result.ranges.get(measure.key, (value, value)), (row, row), color=colour, linewidth=2, alpha=0.5)
        axis.plot(value, row, "o", color=colour, markersize=7)
        text = f"{value:,.{measure.decimals}f}".replace(",", " ")
        axis.annotate(text, (value, row), (0, 7), textcoords="offset points", ha="center", fontsize=9, color=colour)
    axis.set_xscale("log")
    values = [bound for result in shown for bound in (result.values[measure.key], *result.ranges.get(measure.key, ()))]
    low, high = (min(values) / 1.8, max(values) * 1.8) if values else (1.0, 10.0)
    axis.set_xlim(low, high)
    axis.set_ylim(-0.5, len(shown) - 0.3)
    axis.set_yticks(range(len(shown)), [result.name for result in shown])
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < _WIDE else (1.0,)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}".replace(",", " ")))
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", color="#e1e4e8")
    axis.set_axisbelow(True)
    axis.set_title(f"{measure.title} ({'more' if measure.is_more_better else 'less'} is better)", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
