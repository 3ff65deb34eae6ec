"""Two real nodes that write without seeing each other, and what everyone reads once they do."""

import contextlib

import pytest

from loadtests.cluster import LoopbackCluster, wait_until
from tests.loopback.partition import heal, start_apart

_RULES = (
    {"prefix": "price/", "strategy": "max"},
    {"prefix": "draft/", "strategy": "keep"},
    {"strategy": "priority", "sources": ["node-0"], "type": "map"},
)


@pytest.fixture
def cluster(tmp_path):
    """Both nodes run, and neither knows the other."""
    with contextlib.ExitStack() as stack:
        cut = LoopbackCluster(tmp_path, node_count=2, conflict_rules=_RULES)
        stack.callback(cut.stop)
        start_apart(cut)
        yield cut


def read_on_both(cluster, key, expected):
    """Wait until both nodes answer alike, the node's own name apart."""

    def read():
        answers = [cluster.get(f"/v1/keys/{key}?node={name}") for name in cluster.node_ids]
        return [(answer["value"], answer.get("conflict")) for answer in answers] == [expected] * 2

    wait_until(read, f"{key} to be {expected}", cluster.logs)


def list_keys(cluster):
    return [item["key"] for item in cluster.get("/v1/conflicts")["conflicts"]]


def count(cluster, name, type_name, strategy):
    label = f'jarvis_crdt_conflicts_total{{strategy="{strategy}",type="{type_name}"}} '
    return next((float(line.split()[-1]) for line in cluster.metrics(name).splitlines() if line.startswith(label)), 0.0)


def test_writes_that_missed_each_other_are_resolved_alike_explained_listed_and_counted(cluster):
    for name, price, text in (("node-0", 30, "one"), ("node-1", 10, "two")):
        for key, value in (("price/x", price), ("draft/x", text), ("note", text)):
            cluster.post(f"/v1/keys/{key}?node={name}", {"type": "mv_register", "op": {"assign": value}})
        update = {"update": {"owner": {"type": "mv_register", "op": {"assign": text}}}}
        cluster.post(f"/v1/keys/agent?node={name}", {"type": "map", "op": update})
    assert [] == list_keys(cluster)

    heal(cluster)

    read_on_both(cluster, "price/x", (30, {"places": 1, "strategies": ["max"]}))
    read_on_both(cluster, "draft/x", (["one", "two"], {"places": 1, "strategies": ["keep"]}))
    read_on_both(cluster, "note", ("two", {"places": 1, "strategies": ["lww"]}))
    read_on_both(cluster, "agent", ({"owner": "one"}, {"places": 1, "strategies": ["priority"]}))
    assert ["agent", "draft/x", "note", "price/x"] == list_keys(cluster)
    for name in cluster.node_ids:
        for strategy in ("max", "keep", "lww", "priority"):
            assert 1.0 == count(cluster, name, "mv_register", strategy), (name, strategy)
    (resolution,) = cluster.get("/v1/keys/price/x?explain=true")["conflict"]["resolutions"]
    assert [("node-0", 30), ("node-1", 10)] == [(item["node"], item["value"]) for item in resolution["siblings"]]
    assert ("crdt.conflict_rules[0]", 30) == (resolution["rule"], resolution["value"])
    assert resolution["because"].startswith("the highest of 2 numbers, by node-0 at 20")

    # Whoever assigns anew has seen the siblings, and settles the conflict.
    cluster.post("/v1/keys/draft/x?node=node-1", {"type": "mv_register", "op": {"assign": "three"}})
    read_on_both(cluster, "draft/x", (["three"], None))
    assert ["agent", "note", "price/x"] == list_keys(cluster)

    # What a restart finds in the log is no news.
    cluster.kill("node-0")
    cluster.start_node("node-0")
    cluster.wait_ready("node-0")
    wait_until(lambda: list_keys(cluster) == ["agent", "note", "price/x"], "the same conflicts", cluster.logs)
    assert 0.0 == count(cluster, "node-0", "mv_register", "max")
