"""The pinned programs know their own versions; `make tools` builds them."""

import pytest

from harness.cluster import version
from harness.cluster.cache import cache_root
from harness.cluster.tool import find_tool
from harness.process import run


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        ("helm", ("version", "--short"), version.HELM),
        ("helm4", ("version", "--short"), version.HELM4),
        ("prometheus", ("--version",), f"prometheus, version {version.PROMETHEUS.removeprefix('v')} "),
        ("promtool", ("--version",), f"promtool, version {version.PROMETHEUS.removeprefix('v')} "),
        ("alertmanager", ("--version",), f"alertmanager, version {version.ALERTMANAGER.removeprefix('v')} "),
        ("amtool", ("--version",), f"amtool, version {version.ALERTMANAGER.removeprefix('v')} "),
        ("kube-score", ("version",), f"kube-score version: {version.KUBE_SCORE.removeprefix('v')},"),
    ],
)
def test_a_tool_knows_its_version(tool: str, arguments: tuple[str, ...], expected: str):
    path = find_tool(tool)
    if cache_root() not in path.parents:
        pytest.skip(f"{path} is not ours, and may be of any version")

    said = run([str(path), *arguments]).stdout

    assert expected == said[: len(expected)]
