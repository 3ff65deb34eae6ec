"""Runs checkov and kube-score, which judge manifests by what operators have learnt the hard way."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from harness.cluster.checkov import ensure_checkov
from harness.cluster.progress import Progress
from harness.cluster.tool import find_tool
from harness.process import run
from tests.chart.conftest import Manifest

_KUBERNETES = "v1.37"
_NAMESPACE = "jarvis-system"
_CLUSTER_WIDE = ("Cluster", "Namespace", "PersistentVolume", "PriorityClass", "StorageClass")
# Off unless asked for. Not asked for: requests that equal limits, which leave pods no room for bursts.
_MORE = ("container-ports-check", "container-seccomp-profile")
_PERFECT = 10


class Finding(NamedTuple):
    """What a judge does not like: its name, the check's, the object as Kind/name, and the values it was made of."""

    judge: str
    check: str
    object: str
    case: str


def judge(rendered: Mapping[str, Sequence[Manifest]]) -> set[Finding]:
    """Return what both judges find in these manifests, each as it is in its namespace."""
    with TemporaryDirectory() as scratch:
        for case, manifests in rendered.items():
            text = yaml.dump_all(map(_placed, manifests), Dumper=yaml.CSafeDumper)
            (Path(scratch) / f"{case}.yaml").write_text(text)
        return {*_checkov(Path(scratch), set(rendered)), *_kube_score(Path(scratch), set(rendered))}


def _placed(manifest: Manifest) -> Manifest:
    """Return a manifest with the namespace that Helm gives it at the API server."""
    placed = copy.deepcopy(manifest)
    if not placed["kind"].startswith(_CLUSTER_WIDE):
        placed["metadata"].setdefault("namespace", _NAMESPACE)
    return placed


def _checkov(folder: Path, cases: set[str]) -> Iterator[Finding]:
    command = [*ensure_checkov(Progress()), "--directory", str(folder), "--framework", "kubernetes"]
    # It asks nobody on the network, and exits with 1 if it finds anything.
    done = run([*command, "--skip-download", "--compact", "--output", "json"], check=False)
    report = json.loads(done.stdout)
    results = report["results"]
    assert not results["parsing_errors"]
    assert cases == {_case(each["file_path"]) for each in results["passed_checks"] + results["failed_checks"]}
    for each in results["failed_checks"]:
        kind, _namespace, name = each["resource"].split(".", 2)
        yield Finding("checkov", each["check_id"], f"{kind}/{name}", _case(each["file_path"]))


def _case(path: str) -> str:
    return Path(path).stem


def _kube_score(folder: Path, cases: set[str]) -> Iterator[Finding]:
    options = ["--kubernetes-version", _KUBERNETES, "--output-format", "json"]
    options += [word for name in _MORE for word in ("--enable-optional-test", name)]
    for case in cases:
        done = run([str(find_tool("kube-score")), "score", str(folder / f"{case}.yaml"), *options], check=False)
        report: list[Any] = json.loads(done.stdout)
        assert report
        for each in report:
            name = f"{each['type_meta']['kind']}/{each['object_meta']['name']}"
            for check in each["checks"]:
                if check["grade"] < _PERFECT and not check["skipped"]:
                    yield Finding("kube-score", check["check"]["id"], name, case)
