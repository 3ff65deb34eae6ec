"""Values files are deltas that helm and the CLI take; a parent chart passes its own, and old ones stay accepted."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.process import Completed, run
from harness.spec.config import read_config
from harness.spec.schema import defaults
from tests.chart.conftest import CHART, ROOT, VALUES_FILES, Manifest, Render, find_pods
from tests.chart.crd import validate

_RELEASED = sorted((ROOT / "tests/chart/released").glob("*/values.yaml"))


def _flat(values: Manifest, path: tuple[str, ...] = ()) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        below = isinstance(value, dict) and value
        flat |= _flat(value, (*path, name)) if below else {".".join((*path, name)): value}
    return flat


@pytest.mark.parametrize("file", VALUES_FILES, ids=lambda file: file.stem)
def test_a_values_file_holds_only_what_differs_and_says_for_whom(file: Path):
    usual, text = _flat(defaults()), file.read_text()

    assert text.startswith("# ")
    assert {} == {key: value for key, value in _flat(yaml.safe_load(text)).items() if usual.get(key) == value}


@pytest.mark.parametrize("file", VALUES_FILES, ids=lambda file: file.stem)
def test_the_cli_takes_every_values_file(file: Path):
    assert yaml.safe_load(file.read_text()) == read_config(file).overrides


def test_the_readme_says_for_whom_each_values_file_is():
    named = {
        line.split("`")[1] for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `values/")
    }

    assert {f"values/{file.name}" for file in VALUES_FILES} == named


@pytest.mark.parametrize("file", _RELEASED, ids=lambda file: file.parent.name)
def test_values_of_earlier_releases_are_accepted(render: Render, file: Path):
    """A key that goes stays in the schema, and `_validate.tpl` and `rule.py` refuse it with what takes its place."""
    for manifest in render(files=(file,)):
        validate(manifest, "1.37")
    assert yaml.safe_load(file.read_text()) == read_config(file).overrides


def _parent(folder: Path, dependency: Manifest, values: Manifest) -> Path:
    chart = folder / "parent"
    shutil.copytree(CHART, chart / "charts/jarvis")
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    about = {
        "apiVersion": "v2",
        "name": "parent",
        "version": "1.0.0",
        "dependencies": [{"name": "jarvis", "version": version, **dependency}],
    }
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about))
    (chart / "values.yaml").write_text(yaml.safe_dump(values))
    return chart


def _template(helm: Path, chart: Path, *options: str) -> Completed:
    return run([str(helm), "template", "agents", str(chart), "--namespace", "agents", *options], check=False)


def _manifests(done: Completed) -> list[Manifest]:
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.mark.parametrize("alias", [{}, {"alias": "state"}], ids=["name", "alias"])
def test_a_parent_turns_jarvis_on_and_off_and_shares_its_globals(
    helms: dict[str, Path], tmp_path: Path, alias: Manifest
):
    name = alias.get("alias", "jarvis")
    values = {
        "global": {"image_registry": "mirror.example", "image_pull_secrets": ["mirror"], "team": {"name": "agents"}},
        name: {"enabled": True, "infrastructure": {"node_count": 5}},
    }
    chart = _parent(tmp_path, {**alias, "condition": f"{name}.enabled"}, values)

    for helm in helms.values():
        manifests = _manifests(_template(helm, chart))
        nodes = next(m for m in manifests if m["kind"] == "StatefulSet" and m["metadata"]["name"] == "agents-crdt")
        pods = find_pods(manifests)
        assert 5 == nodes["spec"]["replicas"]
        assert {True} == {pod["containers"][0]["image"].startswith("mirror.example/") for pod in pods}
        assert [[{"name": "mirror"}]] * len(pods) == [pod["imagePullSecrets"] for pod in pods]
        assert [] == _manifests(_template(helm, chart, "--set", f"{name}.enabled=false"))


def test_a_parent_is_told_of_a_key_that_jarvis_does_not_have(helms: dict[str, Path], tmp_path: Path):
    chart = _parent(tmp_path, {}, {"jarvis": {"replicaCount": 3}})

    for helm in helms.values():
        done = _template(helm, chart)
        assert (1, True) == (done.returncode, "replicaCount" in done.stderr)
