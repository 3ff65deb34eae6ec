"""Renders the chart with the real helm; there is no other judge of a template."""

import copy
import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cluster.tool import find_tool
from harness.process import Completed, run
from tests.chart.matrix import CASES, CHART, ROOT, VALUES_FILES

__all__ = ["CHART", "ROOT", "VALUES_FILES", "Manifest", "Render", "find_pods", "nested"]

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


@pytest.fixture(scope="session")
def helm() -> Path:
    return find_tool("helm")


@pytest.fixture(scope="session")
def helms() -> dict[str, Path]:
    """Both generations of helm: `helm` is 3, `helm4` is 4."""
    return {name: find_tool(name) for name in ("helm", "helm4")}


@pytest.fixture(scope="session")
def template(helm: Path) -> Callable[..., Completed]:
    """`helm template` with values given as a dictionary; may fail. What was rendered is not rendered again."""

    @cache
    def run_once(values: str, files: tuple[bytes, ...], release: str, namespace: str) -> Completed:
        command = [str(helm), "template", release, str(CHART), "--namespace", namespace, "--values", "-"]
        with tempfile.TemporaryDirectory() as directory:
            for number, text in enumerate(files):
                file = Path(directory, f"{number}.yaml")
                file.write_bytes(text)
                command += ["--values", str(file)]
            return run(command, input=values, check=False)

    def render(
        values: Manifest | None = None,
        files: tuple[Path, ...] = (),
        release: str = "jarvis",
        namespace: str = "jarvis-system",
    ) -> Completed:
        return run_once(json.dumps(values or {}), tuple(file.read_bytes() for file in files), release, namespace)

    return render


@pytest.fixture(scope="session")
def render(template: Callable[..., Completed]) -> Render:
    """Manifests of the chart with these values."""

    def manifests(values: Manifest | None = None, files: tuple[Path, ...] = (), **names: str) -> list[Manifest]:
        done = template(values, files, **names)
        assert done.returncode == 0, done.stderr
        # The same as yaml.safe_load_all, eight times as quick.
        return [document for document in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if document]

    return manifests


@pytest.fixture(scope="session")
def rendered(render: Render) -> Callable[[str], list[Manifest]]:
    """Manifests of one of `matrix.CASES`, rendered once; nobody may change them."""

    @cache
    def manifests(name: str) -> list[Manifest]:
        case = CASES[name]
        return render(case.values, case.files)

    return manifests


@pytest.fixture(scope="session")
def schema() -> Manifest:
    return yaml.safe_load((CHART / "values.schema.yaml").read_text())


def nested(path: tuple[str, ...], value: Any) -> Manifest:
    """`{"a": {"b": value}}` of the path (a, b)."""
    for key in reversed(path):
        value = {key: value}
    return copy.deepcopy(value)


def find_pods(body: Any) -> list[Manifest]:
    """Specifications of every pod in a manifest, of whatever kind it is."""
    if isinstance(body, dict):
        here = [body] if "containers" in body else []
        return here + [pod for value in body.values() for pod in find_pods(value)]
    return [pod for value in body for pod in find_pods(value)] if isinstance(body, list) else []
