"""What helm prints after an install: a table of all that runs, what to do next, and what is risky."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from harness.process import run
from tests.chart.conftest import CHART, Manifest, Render
from tests.chart.matrix import CASES, Case

Notes = Callable[..., str]
_NAMES = [name for index, name in enumerate(CASES) if not name.startswith("row-") or index % 4 == 0]
_WORKLOADS = {"Deployment", "StatefulSet"}
_LONGEST = "a" * 47


@pytest.fixture(scope="module")
def notes(helms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Notes:
    """The notes of an install; Helm 4 prints them without a cluster, Helm 3 does not."""
    nobody = str(tmp_path_factory.mktemp("notes") / "kubeconfig")

    def render(case: Case, release: str = "jarvis") -> str:
        command = [str(helms["helm4"]), "install", release, str(CHART), "--namespace", "jarvis-system"]
        command += ["--dry-run=client", "--values", "-"]
        for file in case.files:
            command += ["--values", str(file)]
        done = run(command, input=json.dumps(case.values), env={"PATH": "", "HOME": nobody, "KUBECONFIG": nobody})
        return done.stdout.partition("\nNOTES:\n")[2]

    return render


def _table(text: str) -> list[list[str]]:
    """The rows below the heading, each cut where the heading's columns begin."""
    lines = text.split("\n\n")[1].splitlines()
    starts = [lines[0].index(title) for title in ("Component", "Where", "How many")]
    for line in lines:
        for start in starts:
            assert (" ", False) == (line[start - 1], line[start].isspace()), line
    ends = [*starts[1:], None]
    rows = [[line[start:end].strip() for start, end in zip(starts, ends, strict=True)] for line in lines]
    assert ["Component", "Where", "How many"] == rows[0]
    return rows[1:]


def _objects(manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    return {f"{body['kind'].lower()}/{body['metadata']['name']}": body for body in manifests}


@pytest.mark.parametrize("name", _NAMES)
def test_the_table_has_every_workload_and_nothing_that_is_not_there(
    notes: Notes, rendered: Callable[[str], list[Manifest]], name: str
):
    rows, objects = _table(notes(CASES[name])), _objects(rendered(name))
    workloads = {place for place, body in objects.items() if body["kind"] in _WORKLOADS}

    assert workloads == {place for _, place, _ in rows if place.partition("/")[0] in {"deployment", "statefulset"}}
    assert set() == {place for _, place, _ in rows} - set(objects)
    assert len(rows) == len({component for component, _, _ in rows})


@pytest.mark.parametrize("name", _NAMES)
def test_nothing_is_left_blank(notes: Notes, name: str):
    text = notes(CASES[name])

    assert [] == re.findall(r"<no value>|%!|map\[|<nil>|\[\]|\(\)", text)
    assert [] == [line for line in text.splitlines() if line != line.rstrip()]
    assert "\n\n\n" not in text
    assert ["Next", "Risky"] == [line for line in text.splitlines()[1:] if line and not line.startswith(" ")]
    # Below each heading there is something.
    assert [True, True] == [text.partition(f"\n{heading}\n")[2].startswith("  ") for heading in ("Next", "Risky")]
    # Text begins where the text above it does: two spaces, a word or two, and the command; or what belongs to it.
    next_ = text.partition("\nNext\n")[2].partition("\n\nRisky")[0].splitlines()
    assert [] == [line for line in next_ if not re.match(r" {2}(?=\S).{10} \S| {13}\S", line)]


@pytest.mark.parametrize("name", _NAMES)
def test_commands_name_what_is_there(notes: Notes, rendered: Callable[[str], list[Manifest]], name: str):
    text, objects = notes(CASES[name]), _objects(rendered(name))
    next_ = text.partition("\nNext\n")[2].partition("\nRisky")[0]
    named = set(re.findall(r"\b((?:service|statefulset|deployment|cronjob)/\S+)", next_))
    named |= {f"httproute/{found}" for found in re.findall(r"get httproute (\S+)", next_)}

    assert "statefulset/jarvis-crdt" in named
    assert set() == named - set(objects)
    # Secrets and the authority's ConfigMap are made outside of the manifests; pods or jobs have to know them.
    everything = json.dumps(rendered(name))
    assert [] == [found for found in re.findall(r"get (?:secret|configmap) (\S+)", next_) if found not in everything]


def test_columns_are_as_wide_as_the_longest_name_needs(notes: Notes):
    rows = _table(notes(CASES["production"], release=_LONGEST))

    assert ["CRDT nodes", f"statefulset/{_LONGEST}-crdt", "3 x large, 200Gi each"] == rows[0]


def _places(rows: Sequence[Sequence[str]]) -> Mapping[str, tuple[str, str]]:
    return {component: (place, amount) for component, place, amount in rows}


def test_numbers_are_those_of_the_values(notes: Notes, render: Render):
    receivers = {"slack": {"enabled": True, "existing_secret": "slack"}}
    values = {
        "infrastructure": {"node_count": 5, "storage_size": "7Gi", "instance_type": "xlarge"},
        "deployment": {"auto_scaling": {"enabled": False}, "replicas": 1},
        "ingress": {"enabled": True, "hosts": ["a.example", "b.example"]},
        "gateway": {"enabled": True, "parent_refs": [{"name": "web"}, {"name": "inner"}]},
        "notifications": receivers,
    }
    places = _places(_table(notes(Case(values, ()))))

    assert {
        "CRDT nodes": ("statefulset/jarvis-crdt", "5 x xlarge, 7Gi each"),
        "Backend": ("deployment/jarvis-backend", "1 pod, port 8000"),
        "Ingress": ("ingress/jarvis-backend", "for a.example, b.example"),
        "Gateway": ("httproute/jarvis-backend", "at web, inner"),
        "Prometheus": ("deployment/jarvis-prometheus", "1 pod, port 9090, 30d of metrics in 20Gi"),
        "Alertmanager": ("deployment/jarvis-alertmanager", "1 pod, port 9093, tells slack"),
        "Grafana": ("deployment/jarvis-grafana", "1 pod, port 3000"),
        "Dashboards": ("configmap/jarvis-dashboards", "4 dashboards"),
    }.items() <= places.items()
    [rules] = [body for body in render(values) if body["metadata"]["name"] == "jarvis-rules"]
    assert ("configmap/jarvis-rules", f"{len(rules['data'])} rules") == places["Alert rules"]
    assert "3 to 10 pods, port 8000" == _places(_table(notes(Case({}, ()))))["Backend"][1]


def test_a_stack_that_exists_gets_rules_and_dashboards_alone(notes: Notes):
    places = _places(_table(notes(Case({"monitoring": {"stack": "existing"}}, ()))))

    assert {"CRDT nodes", "Backend", "Backups", "Alert rules", "Dashboards"} == set(places)
    assert "prometheusrule/jarvis-rules" == places["Alert rules"][0]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"security": {"enable_tls": False}}, "security.enable_tls is off"),
        ({"security": {"api_key_required": False}}, "security.api_key_required is off"),
        ({"security": {"rate_limiting": {"enabled": False}}}, "security.rate_limiting is off"),
        ({"security": {"network_policies": False}}, "security.network_policies is off"),
        ({"security": {"enable_rbac": False}}, "security.enable_rbac is off"),
        ({"ingress": {"enabled": True, "hosts": ["a.example"]}}, "does not verify the backend's certificate"),
        ({}, "Nobody is told of alerts"),
        ({}, "who deletes it deletes all data"),
    ],
)
def test_what_is_risky_is_said_where_it_is_and_only_there(notes: Notes, values: Manifest, says: str):
    risky = notes(Case(values, ())).partition("\nRisky\n")[2]
    usual = notes(CASES["all-0"]).partition("\nRisky\n")[2]

    assert says in risky
    assert (says in usual) == (says in {"does not verify the backend's certificate", "who deletes it deletes all data"})
