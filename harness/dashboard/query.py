"""What dashboards ask of Prometheus, and whether it answers."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.dashboard.generate import FOLDER

# Asks Prometheus' HTTP API for a path with parameters, and returns the decoded JSON, errors included.
Fetch = Callable[[str, Mapping[str, str]], Any]

_LABEL_VALUES: Final = re.compile(r"label_values\((?P<series>.+), (?P<label>\w+)\)")
# As Grafana sets them for an hour on a screen and scrapes of 15 s.
_BUILT_IN: Final = {"__rate_interval": "1m", "__range": "1h"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A query of a dashboard, with its variables put in.

    Attributes:
        place: Where it stands, for people: dashboard, panel or variable, and which of its queries.
        expr: PromQL.
    """

    place: str
    expr: str


def read_dashboards(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Return each dashboard of a folder by its file's name."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def find_failures(fetch: Fetch, dashboards: Sequence[Mapping[str, Any]] | None = None) -> list[str]:
    """Run every query of dashboards on a Prometheus, as Grafana does with all choices left as they are.

    Args:
        fetch: Asks that Prometheus.
        dashboards: Those of the chart if none are given.

    Returns:
        A line for each query or variable that is refused, or has no number to show; empty if all have.
    """
    failures = []
    for board in dashboards if dashboards is not None else list(read_dashboards().values()):
        chosen = dict(_BUILT_IN)
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                values = _choose(fetch, fill(variable["query"]["query"], chosen))
                if not values:
                    failures.append(f"{board['uid']}, variable {variable['name']}: nothing to choose")
                chosen[variable["name"]] = variable["allValue"] if variable["multi"] else "".join(values[:1])
        failures += [f"{asked.place}: {why}" for asked in read_queries(board, chosen) if (why := _judge(fetch, asked))]
    return failures


def read_queries(board: Mapping[str, Any], chosen: Mapping[str, str]) -> Iterator[Asked]:
    """Yield what each panel of a dashboard asks, with the chosen values of its variables."""
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            place = f"{board['uid']}, {panel['title']}, {target['refId']}"
            yield Asked(place, fill(target["expr"], chosen))


def fill(text: str, chosen: Mapping[str, str]) -> str:
    """Put values in the place of variables.

    Raises:
        KeyError: A variable has none.
    """
    return re.sub(r"\$(\w+)", lambda found: chosen[found[1]], text)


def _choose(fetch: Fetch, query: str) -> list[str]:
    found = _LABEL_VALUES.fullmatch(query)
    if found is None:
        raise ValueError(f"not of the form label_values(series, label): {query}")
    values: list[str] = fetch(f"/api/v1/label/{found['label']}/values", {"match[]": found["series"]}).get("data", [])
    return values


def _judge(fetch: Fetch, asked: Asked) -> str:
    """Return what is wrong with the answer; empty if nothing is."""
    answer = fetch("/api/v1/query", {"query": asked.expr})
    if answer["status"] != "success":
        return f"{answer['error']}: {asked.expr}"
    result = answer["data"]["result"]
    if not result:
        return f"no sample: {asked.expr}"
    if all(math.isnan(float(sample["value"][1])) for sample in result):
        return f"not a number: {asked.expr}"
    return ""
