"""The picture: one small chart per measure, so that no axis is shared by unlike things."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.results import MEASURES, OURS, Result

_SHOWN = ("writes_per_s", "increments_per_s", "propagation_p99_ms", "cpu_us", "restart_s", "memory_mb")
_OURS, _THEIRS = "#1f6feb", "#9aa4b2"


def draw(results: Sequence[Result], file: Path) -> None:
    """Write a PNG."""
    mpl.use("Agg")
    figure, axes = plt.subplots(2, 3, figsize=(11, 5.6), layout="constrained")
    for axis, key in zip(axes.flat, _SHOWN, strict=True):
        measure = next(each for each in MEASURES if each.key == key)
        shown = [result for result in results if result.values.get(key) is not None][::-1]
        values = [result.values[key] for result in shown]
        colours = [_OURS if result.name.startswith(OURS) else _THEIRS for result in shown]
        bars = axis.barh([result.name for result in shown], values, color=colours, height=0.65)
        axis.bar_label(bars, [f"{value:,.{measure.decimals}f}".replace(",", " ") for value in values], padding=3)
        axis.set_title(f"{measure.title} ({'more' if measure.is_more_better else 'less'} is better)", fontsize=10)
        axis.margins(x=0.22)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.tick_params(bottom=False, labelbottom=False, left=False)
    figure.savefig(file, dpi=110)
    plt.close(figure)
