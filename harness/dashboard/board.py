"""A dashboard as Grafana's JSON has it, in the classic model that every Grafana since 12 reads and migrates."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from harness.dashboard.panel import DATA_SOURCE, Panel

SCHEMA_VERSION: Final = 42
GRID_WIDTH: Final = 24
_ROW_HEIGHT: Final = 1


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a dashboard.

    Attributes:
        name: `$name` in expressions.
        label: Its name for people.
        query: What may be chosen, like `label_values(metric, label)`.
        multi: Whether several, or all, may be chosen; a regular expression then.
    """

    name: str
    label: str
    query: str
    multi: bool = True

    def render(self) -> dict[str, Any]:
        """Return the variable as JSON has it."""
        everything = {"allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}}
        return {
            "name": self.name,
            "label": self.label,
            "type": "query",
            "datasource": dict(DATA_SOURCE),
            "definition": self.query,
            "query": {"query": self.query, "refId": self.name},
            "refresh": 2,
            "sort": 1,
            "multi": self.multi,
            "includeAll": self.multi,
            **(everything if self.multi else {"current": {}}),
            "options": [],
        }


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, from left to right; a line of them ends where the next does not fit.

    Attributes:
        title: The heading.
        panels: What is below it.
    """

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard.

    Attributes:
        uid: Its identity, in its address too; never changes.
        title: Its name.
        description: What question it answers.
        variables: What may be chosen, besides the data source.
        rows: What it shows, from top to bottom.
    """

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    def render(self) -> str:
        """Return the file that Grafana reads."""
        return json.dumps(self._json(), indent=1, ensure_ascii=False) + "\n"

    def _json(self) -> dict[str, Any]:
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["jarvis"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "annotations": {"list": []},
            "links": [
                {
                    "title": "Jarvis",
                    "type": "dashboards",
                    "tags": ["jarvis"],
                    "asDropdown": False,
                    "includeVars": False,
                    "keepTime": True,
                    "targetBlank": False,
                }
            ],
            "templating": {
                "list": [
                    {
                        "name": "datasource",
                        "label": "Data source",
                        "type": "datasource",
                        "query": "prometheus",
                        "regex": "",
                        "refresh": 1,
                        "multi": False,
                        "includeAll": False,
                        "current": {},
                        "options": [],
                    },
                    *(variable.render() for variable in self.variables),
                ]
            },
            "panels": list(self._panels()),
        }

    def _panels(self) -> Iterator[dict[str, Any]]:
        numbers = itertools.count(1)
        top = 0
        for row in self.rows:
            place = {"x": 0, "y": top, "w": GRID_WIDTH, "h": _ROW_HEIGHT}
            yield {
                "id": next(numbers),
                "type": "row",
                "title": row.title,
                "gridPos": place,
                "collapsed": False,
                "panels": [],
            }
            left, top, height = 0, top + _ROW_HEIGHT, 0
            for panel in row.panels:
                if left + panel.width > GRID_WIDTH:
                    left, top, height = 0, top + height, 0
                place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
                yield panel.render(place, next(numbers))
                left, height = left + panel.width, max(height, panel.height)
            top += height
