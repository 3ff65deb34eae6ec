"""Panels as Grafana's JSON has them: a dashboard says what is shown, this module how."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

# Whoever imports a dashboard elsewhere chooses the data source at its top.
DATA_SOURCE: Final[Mapping[str, str]] = {"type": "prometheus", "uid": "${datasource}"}

Step = tuple[float, str]


class Unit(StrEnum):
    """Units of values, by Grafana's ids."""

    COUNT = "short"
    SHARE = "percentunit"
    SECONDS = "s"
    BYTES = "bytes"
    BYTES_PER_SECOND = "binBps"
    PER_SECOND = "cps"
    REQUESTS_PER_SECOND = "reqps"
    CORES = "none"


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression.

    Attributes:
        expr: The expression; `$instance`, `$job`, `$__rate_interval` and `$__range` are Grafana's.
        legend: Name of each series, where `{{label}}` is a label's value.
    """

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """What all panels have.

    Attributes:
        title: Its heading.
        description: What it shows, and what to do if it looks bad.
        unit: Unit of its values.
        queries: What it shows; at least one.
        steps: Values from which on it has another colour.
        base: Its colour below them.
    """

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    steps: tuple[Step, ...] = ()
    base: str = "green"

    kind = ""
    width = 8
    height = 8
    # What happened at one moment is asked for once; a panel over time asks for each step.
    instant = False

    def render(self, place: Mapping[str, int], number: int) -> dict[str, Any]:
        """Return the panel as JSON has it; `place` is where it is in the grid, `number` its id in the dashboard."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "gridPos": dict(place),
            "datasource": dict(DATA_SOURCE),
            "targets": [self._target(index, query) for index, query in enumerate(self.queries)],
            "fieldConfig": {
                "defaults": {"unit": self.unit.value, "thresholds": self._thresholds(), **self._field()},
                "overrides": [],
            },
            "options": self._options(),
        }

    def _target(self, index: int, query: Query) -> dict[str, Any]:
        return {
            "refId": "ABCDEFGH"[index],
            "datasource": dict(DATA_SOURCE),
            "expr": query.expr,
            "legendFormat": query.legend,
            "instant": self.instant,
            "range": not self.instant,
        }

    def _thresholds(self) -> dict[str, Any]:
        colors = ((None, self.base), *self.steps)
        return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in colors]}

    def _field(self) -> dict[str, Any]:
        raise NotImplementedError

    def _options(self) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(frozen=True)
class Stat(Panel):
    """One number, as it is now: the last of a series that has ended would look as if it still were so.

    Attributes:
        texts: What is shown in place of a value.
    """

    texts: tuple[tuple[str, str], ...] = ()

    kind = "stat"
    width = 4
    height = 4
    instant = True

    def _field(self) -> dict[str, Any]:
        shown = {
            value: {"index": index, "text": text, "color": "text"} for index, (value, text) in enumerate(self.texts)
        }
        return {
            "color": {"mode": "thresholds"},
            "mappings": [{"type": "value", "options": shown}] if shown else [],
        }

    def _options(self) -> dict[str, Any]:
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background",
            "graphMode": "none",
            "textMode": "value",
        }


@dataclass(frozen=True)
class Chart(Panel):
    """Lines over time; where there are steps, they are lines too.

    Attributes:
        stacked: Whether series are shown as parts of their sum.
        maximum: Top of the axis, where there is one.
    """

    stacked: bool = False
    maximum: float | None = None

    kind = "timeseries"

    def _field(self) -> dict[str, Any]:
        return {
            "color": {"mode": "palette-classic"},
            "min": 0,
            **({} if self.maximum is None else {"max": self.maximum}),
            "custom": {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 30 if self.stacked else 5,
                "showPoints": "never",
                "spanNulls": False,
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
                "thresholdsStyle": {"mode": "dashed" if self.steps else "off"},
            },
        }

    def _options(self) -> dict[str, Any]:
        return {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }


@dataclass(frozen=True)
class Heatmap(Panel):
    """How the observations of a histogram are spread over its buckets, over time."""

    kind = "heatmap"

    def _target(self, index: int, query: Query) -> dict[str, Any]:
        return {**super()._target(index, query), "format": "heatmap"}

    def _field(self) -> dict[str, Any]:
        return {"custom": {"scaleDistribution": {"type": "linear"}}}

    def _options(self) -> dict[str, Any]:
        return {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "exponent": 0.5, "steps": 64, "reverse": False},
            "filterValues": {"le": 1e-9},
            "legend": {"show": False},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": False},
            "yAxis": {"axisPlacement": "left", "unit": self.unit.value},
        }


@dataclass(frozen=True)
class Timeline(Panel):
    """A line of colour for each series: when it was up, and when it was not."""

    kind = "state-timeline"

    def _field(self) -> dict[str, Any]:
        shown = {"0": {"index": 0, "text": "down", "color": "red"}, "1": {"index": 1, "text": "up", "color": "green"}}
        return {
            "color": {"mode": "thresholds"},
            "mappings": [{"type": "value", "options": shown}],
            "custom": {"fillOpacity": 70, "lineWidth": 0},
        }

    def _options(self) -> dict[str, Any]:
        return {
            "alignValue": "left",
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "mergeValues": True,
            "rowHeight": 0.8,
            "showValue": "never",
            "tooltip": {"mode": "single", "sort": "none"},
        }
