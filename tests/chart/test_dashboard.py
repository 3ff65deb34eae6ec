"""Dashboards: what Grafana needs of each, and that they ask only for what is there."""

import itertools
import re
import subprocess
from typing import Any

import pytest

from harness.cluster.tool import find_tool
from harness.dashboard.query import fill, read_dashboards
from tests.chart.conftest import Manifest
from tests.chart.series import find_grouped, find_selectors, read_series

_BOARDS = read_dashboards()
_CHOSEN = {"namespace": "jarvis-system", "instance": ".*", "job": ".*", "__rate_interval": "1m", "__range": "1h"}
_GRAFANA_UNITS = {"short", "none", "percentunit", "s", "bytes", "binBps", "cps", "reqps"}


def _panels(board: Manifest) -> list[Manifest]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def _exprs(board: Manifest) -> list[str]:
    return [target["expr"] for panel in _panels(board) for target in panel["targets"]]


def test_there_is_a_dashboard_for_each_question():
    assert {
        "api.json": ("jarvis-api", "Jarvis: API"),
        "cluster.json": ("jarvis-cluster", "Jarvis: cluster"),
        "crdt.json": ("jarvis-crdt", "Jarvis: CRDT"),
        "system.json": ("jarvis-system", "Jarvis: system"),
    } == {name: (board["uid"], board["title"]) for name, board in _BOARDS.items()}


@pytest.mark.parametrize("board", _BOARDS.values(), ids=_BOARDS)
def test_panels_are_told_apart_and_explained(board: Manifest):
    panels = _panels(board)

    assert len(board["panels"]) == len({panel["id"] for panel in board["panels"]})
    assert len(panels) == len({panel["title"] for panel in panels})
    assert board["description"]
    for panel in panels:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in _GRAFANA_UNITS, panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references, panel["title"]
        assert sorted(set(references)) == references


@pytest.mark.parametrize("board", _BOARDS.values(), ids=_BOARDS)
def test_panels_lie_in_the_grid_and_on_no_other(board: Manifest):
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        columns = range(place["x"], place["x"] + place["w"])
        for cell in itertools.product(columns, range(place["y"], place["y"] + place["h"])):
            assert taken.setdefault(cell, panel["title"]) == panel["title"]


@pytest.mark.parametrize("board", _BOARDS.values(), ids=_BOARDS)
def test_the_data_source_is_a_choice_everywhere(board: Manifest):
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    first, *others = board["templating"]["list"]

    assert ("datasource", "prometheus") == (first["type"], first["query"])
    assert all(chosen == variable["datasource"] for variable in others)
    for panel in _panels(board):
        assert [chosen] * (1 + len(panel["targets"])) == [
            panel["datasource"],
            *(t["datasource"] for t in panel["targets"]),
        ]


@pytest.mark.parametrize("board", _BOARDS.values(), ids=_BOARDS)
def test_every_variable_is_used(board: Manifest):
    names = {variable["name"] for variable in board["templating"]["list"]} - {"datasource"}
    used = set(re.findall(r"\$(\w+)", " ".join(_exprs(board)))) - {"__rate_interval", "__range"}

    assert names == used


@pytest.mark.parametrize("board", _BOARDS.values(), ids=_BOARDS)
def test_steps_rise(board: Manifest):
    for panel in _panels(board):
        first, *others = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert first is None
        assert sorted(set(others)) == others, panel["title"]


@pytest.mark.parametrize("board", _BOARDS.values(), ids=_BOARDS)
def test_only_metrics_of_the_catalogue_are_asked_for_and_by_labels_that_they_have(board: Manifest):
    series = read_series()
    variables = [variable["query"]["query"] for variable in board["templating"]["list"][1:]]
    for expr in (*_exprs(board), *variables):
        asked = list(find_selectors(expr))
        assert asked, expr
        for name, labels in asked:
            assert labels <= series[name], expr
        assert find_grouped(expr) <= set().union(*(series[name] for name, _ in asked)), expr


@pytest.mark.parametrize("board", _BOARDS.values(), ids=_BOARDS)
def test_legends_name_labels_that_are_left(board: Manifest):
    series = read_series()
    for panel in _panels(board):
        for target in panel["targets"]:
            expr = target["expr"]
            grouped = re.findall(r"by \(([^)]*)\)", expr)
            left = (
                set(grouped[-1].split(", "))
                if grouped
                else set().union(*(series.get(n, set()) for n in re.findall(r"\w+", expr)))
            )
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= left, panel["title"]


def test_every_expression_is_promql():
    exprs = [fill(expr, _CHOSEN) for board in _BOARDS.values() for expr in _exprs(board)]
    # One program for all: a sum of their absences is an expression if each of them is.
    whole = " + ".join(f"absent({expr})" for expr in exprs)
    done = subprocess.run(
        [str(find_tool("promtool")), "--experimental", "promql", "format", whole],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)


def test_numbers_of_now_are_asked_for_as_of_now():
    panels: list[Any] = [panel for board in _BOARDS.values() for panel in _panels(board)]

    assert all((panel["type"] == "stat") == target["instant"] for panel in panels for target in panel["targets"])
    assert {"stat", "timeseries", "heatmap", "state-timeline"} == {panel["type"] for panel in panels}
