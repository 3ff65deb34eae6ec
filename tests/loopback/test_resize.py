"""From five nodes to three and back: every node that goes hands over what it holds first."""

import re
import signal

import pytest

from loadtests.cluster import LoopbackCluster, wait_until

KEYS = 60
STAYING = ("node-0", "node-1", "node-2")
GOING = ("node-3", "node-4")


@pytest.fixture
def cluster(tmp_path):
    with LoopbackCluster(tmp_path, node_count=5, replication_factor=2) as running:
        yield running


def gauge(cluster, node, name):
    return float(re.search(rf"^{name} (\S+)$", cluster.metrics(node), re.MULTILINE)[1])


def count_up(cluster):
    """Increment each counter on a node of its own, owner or not."""
    for number in range(KEYS):
        path = f"/v1/keys/count-{number}?node=node-{number % len(cluster.node_ids)}&value=false"
        cluster.post(path, {"type": "pn_counter", "op": {"increment": 1}})


def counts(cluster):
    return {cluster.get(f"/v1/keys/count-{number}?concern=all")["value"] for number in range(KEYS)}


def states(cluster, node):
    return float(re.search(r"listens on \S+ with (\d+) states", (cluster.directory / f"{node}.log").read_text())[1])


def test_each_key_ends_on_its_owners_alone(cluster):
    count_up(cluster)
    wait_until(lambda: not any(gauge(cluster, node, "jarvis_handoff_slots") for node in cluster.node_ids), "hand-offs")
    assert {1} == counts(cluster)


def test_nodes_that_leave_hand_everything_over_and_count_once_when_they_return(cluster):
    count_up(cluster)
    done = cluster.run("resize", "--nodes", "3")
    assert (0, "") == (done.returncode, done.stdout), done.stderr
    assert "5 nodes, 2 to hand over what they hold" in done.stderr
    assert all(f"{node} holds nothing any more" in done.stderr for node in GOING)
    for node in GOING:
        cluster.processes[node].send_signal(signal.SIGTERM)
        assert 0 == cluster.processes[node].wait()
    wait_until(lambda: list(STAYING) == cluster.alive(), "the leave to be known", cluster.logs)
    assert {1} == counts(cluster)
    cluster.post("/v1/keys/count-0?concern=all", {"type": "pn_counter", "op": {"increment": 4}})
    for node in GOING:
        cluster.start_node(node)
        cluster.wait_ready(node)
    wait_until(lambda: cluster.node_ids == cluster.alive(), "all to be back", cluster.logs)
    wait_until(lambda: not any(gauge(cluster, node, "jarvis_handoff_slots") for node in cluster.node_ids), "hand-offs")
    assert (5, {1}) == (cluster.get("/v1/keys/count-0?concern=all")["value"], counts(cluster) - {5})
    assert [0.0, 0.0] == [states(cluster, node) for node in GOING]


def test_a_killed_node_leaves_keys_under_replicated_until_it_returns(cluster):
    count_up(cluster)
    wait_until(lambda: not any(gauge(cluster, node, "jarvis_handoff_slots") for node in cluster.node_ids), "hand-offs")
    cluster.kill("node-4")
    others = [node for node in cluster.node_ids if node != "node-4"]
    wait_until(lambda: sum(gauge(cluster, node, "jarvis_under_replicated_keys") for node in others) > 0, "the lack")
    refused = cluster.client.get(f"{cluster.url}/v1/keys/count-0?concern=all&node=node-0")
    assert refused.status_code in (200, 503)
    assert all(cluster.get(f"/v1/keys/count-{number}")["value"] == 1 for number in range(KEYS))
    cluster.start_node("node-4")
    wait_until(lambda: not any(gauge(cluster, node, "jarvis_under_replicated_keys") for node in others), "all copies")
    assert {1} == counts(cluster)


@pytest.mark.parametrize(("nodes", "said"), [("0", "--nodes 0: a cluster has a node at least"), ("x", "invalid int")])
def test_a_senseless_count_is_refused(cluster, nodes, said):
    done = cluster.run("resize", "--nodes", nodes)
    assert 2 == done.returncode
    assert said in done.stderr


def test_where_no_node_answers_nothing_happens_and_it_says_so(tmp_path):
    done = LoopbackCluster(tmp_path).run("resize", "--nodes", "1")
    assert (0, "no node answers" in done.stderr) == (done.returncode, True)


def test_certificates_that_are_not_there_yet_mean_that_the_cluster_has_no_tls(tmp_path):
    files = [f"--tls-{name}={tmp_path / name}" for name in ("cert", "key", "ca")]
    cluster = LoopbackCluster(tmp_path)

    done = cluster.run("resize", "--nodes", "1", *files)
    assert (0, "no node answers" in done.stderr) == (done.returncode, True)
    (tmp_path / "ca").write_text("half of it")
    assert 2 == cluster.run("resize", "--nodes", "1", *files).returncode
