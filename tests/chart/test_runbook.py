"""Runbooks: what they tell people to type and to ask for exists."""

import re
from pathlib import Path

import pytest

from harness.cluster.tool import find_tool
from harness.process import run
from harness.release.name import SECRETS, TRUST, node_names
from harness.spec.schema import walk
from tests.chart.conftest import ROOT, Render
from tests.chart.series import find_grouped, find_selectors, read_series
from tests.unit.service.double import make_all_routes

_PAGES = [ROOT / "docs/alerts.md", *sorted((ROOT / "docs/runbooks").glob("*.md"))]
_PROGRAMS = {"kubectl", "api", "api()", "jarvis", "jarvis()", "(umask", "curl", "helm", "python", "chronyc"}
_ANYWHERE = pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.stem)


def _blocks(page: Path, language: str) -> list[str]:
    """The lines of all blocks in this language."""
    blocks = re.findall(rf"(?ms)^```{language}\n(.*?)^```", page.read_text())
    return [line for block in blocks for line in block.splitlines()]


def _commands(page: Path) -> list[str]:
    return [line.removeprefix("$ ") for line in _blocks(page, "console")]


@_ANYWHERE
def test_commands_are_of_programs_that_operators_have(page: Path):
    lines = _blocks(page, "console")

    assert lines
    assert all(line.startswith("$ ") for line in lines)
    assert {command.split()[0] for command in _commands(page)} <= _PROGRAMS


@_ANYWHERE
def test_commands_name_objects_that_there_are(render: Render, page: Path):
    manifests = render()
    known = {manifest["metadata"]["name"] for manifest in manifests} | {
        *SECRETS,
        TRUST,
        *node_names(3),
        "jarvis-system",
    }
    components = {m["metadata"]["labels"]["app.kubernetes.io/component"] for m in manifests}
    text = "\n".join(_commands(page))

    assert set(re.findall(r"(?<!/etc/)\bjarvis-[a-z0-9-]+", text)) <= known
    assert set(re.findall(r"app\.kubernetes\.io/component=([a-z-]+)", text)) <= components
    assert set(re.findall(r"--from=(\w+)/", text)) <= {"cronjob"}


@_ANYWHERE
def test_pages_that_are_asked_for_are_served(page: Path):
    served = [re.sub(r"{[^}]*}", "[^/]+", route.path) for route in make_all_routes()]
    asked = re.findall(r"api '?(/[^\s?']*)", "\n".join(_commands(page)))
    asked += re.findall(r"localhost:9101(/\w+)", "\n".join(_commands(page)))

    assert [] == [path for path in asked if not any(re.fullmatch(pattern, path) for pattern in served)]


@_ANYWHERE
def test_queries_are_promql_over_series_that_there_are(page: Path):
    series = read_series()
    for query in _blocks(page, "promql"):
        asked = list(find_selectors(query))
        assert asked, query
        for name, labels in asked:
            assert labels <= series[name], query
        assert find_grouped(query) <= set().union(*(series[name] for name, _ in asked)), query
        run([str(find_tool("promtool")), "--experimental", "promql", "format", query])


@_ANYWHERE
def test_keys_and_links_lead_somewhere(page: Path):
    text = page.read_text()
    keys = {key.dotted for key in walk()}
    named = set(
        re.findall(r"`((?:infrastructure|deployment|crdt|backup|monitoring|security|notifications)\.[a-z_.]+)`", text)
    )
    named |= {f"monitoring.{key}" for key in re.findall(r"`(alert_thresholds\.[a-z_]+)`", text)}

    assert set() == named - keys
    for target, _, anchor in re.findall(r"\]\(([^)#]+)(#([^)]*))?\)", text):
        assert (page.parent / target).exists(), target
        headings = re.findall(r"(?m)^#+ (.*)$", (page.parent / target).read_text())
        assert not anchor or anchor in {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings}, anchor
