"""What an operator trusts when the chart is upgraded, by whichever helm, on whichever Kubernetes."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from harness.process import Completed, run
from tests.chart.conftest import CHART, ROOT, VALUES_FILES, Manifest, Render
from tests.chart.immutable import immutable_of

_RELEASED = sorted((ROOT / "tests/chart/released").glob("*/values.yaml"))
_FILES = [None, *VALUES_FILES, *_RELEASED]
_OLDEST = 29
_VERSIONS = [f"1.{minor}" for minor in range(_OLDEST, int(kubernetes_validate.latest_version().split(".")[1]) + 1)]
_LONGEST = "r" * 47

# By which field the API server tells the items of a list apart when it merges what several own.
_MERGE_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
# A Service's ports are told apart by port, a container's by containerPort; both by protocol, and each name is unique.
_PORT_KEYS = ("port", "containerPort", "name")


def _name(file: Path | None) -> str:
    return "defaults" if file is None else f"{file.parent.name}-{file.stem}"


def _render(helm: Path, chart: Path, file: Path | None, *options: str) -> Completed:
    values = [] if file is None else ["--values", str(file)]
    return run(
        [str(helm), "template", "jarvis", str(chart), "--namespace", "jarvis-system", *values, *options], check=False
    )


class _StrictLoader(yaml.CSafeLoader):
    """Refuses a mapping with a key twice, of which PyYAML keeps the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        twice = [key for key, count in Counter(key.value for key, _ in node.value).items() if count > 1]
        assert [] == twice, node.start_mark
        return super().construct_mapping(node, deep)


def _read(done: Completed) -> list[Manifest]:
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.load_all(done.stdout, _StrictLoader) if document]


def _by_name(manifests: list[Manifest]) -> dict[str, Manifest]:
    named = {f"{body['apiVersion']} {body['kind']} {body['metadata']['name']}": body for body in manifests}
    assert len(named) == len(manifests)
    return named


def _walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, below in items:
        yield from _walk(below, (*path, str(name)))


@pytest.fixture(scope="module")
def next_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as it is, with other versions."""
    chart = tmp_path_factory.mktemp("next") / "jarvis"
    shutil.copytree(CHART, chart)
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "9.9.9", "appVersion": "9.9.9"}))
    return chart


@pytest.mark.parametrize("file", _FILES, ids=_name)
def test_a_version_bump_changes_images_and_nothing_that_is_immutable(helm: Path, next_version: Path, file: Path | None):
    before, after = (_read(_render(helm, chart, file)) for chart in (CHART, next_version))

    assert set(_by_name(before)) == set(_by_name(after))
    assert immutable_of(before) == immutable_of(after)
    assert "9.9.9" in str(after)


@pytest.mark.parametrize("file", _RELEASED, ids=_name)
def test_what_an_earlier_release_made_can_be_upgraded(helm: Path, file: Path):
    released = yaml.safe_load((file.parent / "immutable.yaml").read_text())
    now = immutable_of(_read(_render(helm, CHART, file)))

    assert released == {name: now.get(name) for name in released}


@pytest.mark.parametrize("file", _FILES, ids=_name)
def test_every_render_is_the_same_whatever_the_helm(helms: dict[str, Path], file: Path | None):
    first, second = (_render(helms["helm"], CHART, file).stdout for _ in range(2))
    other = _read(_render(helms["helm4"], CHART, file))

    assert first == second
    assert _by_name(_read(_render(helms["helm"], CHART, file))) == _by_name(other)


@pytest.mark.parametrize("name", ["helm", "helm4"])
@pytest.mark.parametrize("file", _FILES, ids=_name)
def test_both_helms_find_nothing_to_lint(helms: dict[str, Path], name: str, file: Path | None):
    values = [] if file is None else ["--values", str(file)]
    done = run([str(helms[name]), "lint", "--strict", str(CHART), *values], check=False)

    assert (0, "") == (done.returncode, "" if done.returncode == 0 else done.stdout + done.stderr)


def test_nothing_depends_on_the_version_of_kubernetes_but_that_it_is_old_enough(helm: Path):
    rendered = {_render(helm, CHART, None, "--kube-version", version).stdout for version in _VERSIONS}
    older = _render(helm, CHART, None, "--kube-version", f"1.{_OLDEST - 1}")

    assert 1 == len(rendered)
    assert "" not in rendered
    assert (1, True) == (older.returncode, "1.29" in older.stderr)


def test_no_template_asks_the_cluster():
    sources = [path.read_text() for path in sorted((CHART / "templates").rglob("*")) if path.is_file()]
    asking = re.compile(r"\blookup\b|\.Capabilities|\b(now|rand[A-Z]\w*|uuidv4|gen[A-Z]\w*|getHostByName)\b")

    assert [] == [
        found for text in sources for found in re.findall(r"{{(?!-? ?/\*)[^}]*}}", text) if asking.search(found)
    ]


@pytest.mark.parametrize("file", _FILES, ids=_name)
def test_the_server_can_merge_every_list_and_owns_what_is_its_own(helm: Path, file: Path | None):
    for body in _read(_render(helm, CHART, file)):
        assert "status" not in body
        assert not {"namespace", "creationTimestamp", "uid", "resourceVersion"} & set(body["metadata"])
        for path, value in _walk(body):
            place = (body["kind"], body["metadata"]["name"], *path)
            assert value is not None, place
            if not isinstance(value, list) or not path:
                continue
            if path[-1] in _MERGE_KEYS:
                told = [tuple(item[key] for key in _MERGE_KEYS[path[-1]]) for item in value]
                assert sorted(set(told)) == sorted(told), place
            elif path[-1] == "ports" and body["kind"] != "NetworkPolicy":
                for key in _PORT_KEYS:
                    told = [(item[key], item.get("protocol", "TCP")) for item in value if key in item]
                    assert sorted(set(told)) == sorted(told), place


def test_the_longest_release_name_leaves_every_name_short_enough(render: Render):
    # 63 for a label; a StatefulSet's pods have its name and a hash in one, a CronJob's Jobs a time in theirs.
    most = {"StatefulSet": 52, "CronJob": 52}
    names = [(body["kind"], body["metadata"]["name"]) for body in render(release=_LONGEST)]

    assert [] == [(kind, name) for kind, name in names if len(name) > most.get(kind, 63)]
    assert [] == [name for _, name in names if not re.fullmatch("[a-z]([a-z0-9-]*[a-z0-9])?", name)]


def test_two_releases_share_a_namespace_and_two_namespaces_a_name(render: Render):
    def names(release: str, namespace: str) -> set[tuple[str, str]]:
        manifests = render(release=release, namespace=namespace)
        assert {release} == {body["metadata"]["labels"]["app.kubernetes.io/instance"] for body in manifests}
        return {(body["kind"], body["metadata"]["name"]) for body in manifests}

    assert set() == names("jarvis", "a") & names("jarvis-crdt", "a")
    across = {kind for kind, _ in names("jarvis", "a") & names("jarvis", "b")}
    assert not {kind for kind in across if kind.startswith("Cluster") or kind in {"Namespace", "PersistentVolume"}}


@pytest.mark.parametrize("release", ["1jarvis", "jarvis.one"])
def test_a_release_name_that_no_service_may_have_is_refused(template: Any, release: str):
    done = template(release=release)

    assert (1, True) == (done.returncode, f"the release name {release}" in done.stderr)
