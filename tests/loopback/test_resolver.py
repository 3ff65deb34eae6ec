"""Nodes that have the same plugin decide alike by its strategy; one that lacks it does not start."""

import contextlib
import shutil
import subprocess

import pytest

from loadtests.cluster import ROOT, LoopbackCluster, command, environment, wait_until
from tests.loopback.partition import heal, start_apart

# Decides for the first, but for what it cannot bear.
_PICKY = """
from crdt_service.plugins.hook import Verdict, hookimpl

def choose(siblings, sources):
    if any(b"bad" in sibling.text for sibling in siblings):
        raise ValueError("no good")
    return Verdict(siblings[0].text, "the first")

@hookimpl
def conflict_strategies():
    return {"first": choose}
"""
_RULES = (
    {"prefix": "picky/", "strategy": "picky.first"},
    {"prefix": "picky/", "strategy": "first_writer"},
    {"strategy": "shapes.fullest"},
)


@pytest.fixture
def cluster(tmp_path):
    """Three nodes run, and none knows another."""
    with contextlib.ExitStack() as stack:
        plugins = [{"name": "shapes"}, {"name": "picky"}]
        cut = LoopbackCluster(tmp_path, node_count=3, conflict_rules=_RULES, plugins=plugins)
        cut.plugins_dir.mkdir(exist_ok=True)
        shutil.copy(ROOT / "examples/plugins/shapes/jarvis_shapes.py", cut.plugins_dir / "shapes.py")
        (cut.plugins_dir / "picky.py").write_text(_PICKY)
        stack.callback(cut.stop)
        start_apart(cut)
        yield cut


def explain_on_all(cluster, key, count):
    """Return the resolution that all nodes give, once each has all siblings."""

    def read():
        found = []
        for name in cluster.node_ids:
            conflict = cluster.get(f"/v1/keys/{key}?explain=true&node={name}").get("conflict", {"resolutions": []})
            found += conflict["resolutions"]
        return len(found) == len(cluster.node_ids) and all(each["sibling_count"] == count for each in found) and found

    first, *others = wait_until(read, f"all siblings of {key}", cluster.logs)
    assert [first] * len(others) == others
    return first


def test_nodes_decide_alike_by_the_strategy_of_a_plugin_and_pass_by_one_that_raises(cluster):
    for name, value in zip(cluster.node_ids, ({"a": 1}, {"a": 2, "b": 2}, {"c": 3}), strict=True):
        for key, written in (("order", value), ("picky/good", name), ("picky/bad", f"bad {name}")):
            cluster.post(f"/v1/keys/{key}?node={name}", {"type": "mv_register", "op": {"assign": written}})

    heal(cluster)

    order = explain_on_all(cluster, "order", 3)
    good = explain_on_all(cluster, "picky/good", 3)
    bad = explain_on_all(cluster, "picky/bad", 3)
    assert ("crdt.conflict_rules[2]", "shapes.fullest", "the most members, 2", {"a": 2, "b": 2}) == (
        *(order["rule"], order["strategy"], order["because"]),
        order["value"],
    )
    assert ("picky.first", "node-0") == (good["strategy"], good["value"])
    assert ("first_writer", "bad node-0") == (bad["strategy"], bad["value"])
    assert [
        {
            "rule": "crdt.conflict_rules[0]",
            "strategy": "picky.first",
            "because": "the plugin picky failed: it raised ValueError: no good",
        }
    ] == bad["undecided"]
    for name in cluster.node_ids:
        metrics = cluster.metrics(name)
        assert 'jarvis_plugin_failures_total{plugin="picky"} ' in metrics
        assert 'jarvis_plugin_failures_total{plugin="shapes"} ' not in metrics
        assert 'jarvis_plugins{state="active"} 2.0' in metrics


def test_a_node_without_the_plugin_does_not_start(tmp_path):
    cluster = LoopbackCluster(tmp_path, node_count=1, conflict_rules=_RULES, plugins=[{"name": "shapes"}])

    done = subprocess.run(
        command(*cluster.node_arguments("node-0")), env=environment(), capture_output=True, text=True, check=False
    )

    assert 2 == done.returncode
    assert "a strategy is of the plugin picky, which is not configured" in done.stderr
    assert "remedy: give this node --plugins with picky" in done.stderr
