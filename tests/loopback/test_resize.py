"""From five nodes to three and back by decisions: every node that goes hands over what it holds first."""

import re
import signal
import subprocess

import pytest

from loadtests.cluster import LoopbackCluster, command, environment, wait_until

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


def placement(cluster):
    return cluster.get("/v1/cluster")["placement"]


def check_of(cluster, node, name):
    checks = {check["name"]: check for check in cluster.probe(node, "/health").json()["checks"]}
    return checks[name]["passed"], checks[name]["message"]


def wait_handed_over(cluster, nodes):
    wait_until(
        lambda: not any(gauge(cluster, node, "jarvis_handoff_slots") for node in nodes), "hand-offs", cluster.logs
    )


def wait_seats(cluster, nodes):
    wait_until(
        lambda: placement(cluster)["change"] is None and sorted(placement(cluster)["slots_owned"]) == sorted(nodes),
        f"seats of {nodes}",
        cluster.logs,
    )


def test_each_key_ends_on_its_owners_alone(cluster):
    count_up(cluster)
    wait_handed_over(cluster, cluster.node_ids)
    assert {1} == counts(cluster)


def test_nodes_that_leave_hand_everything_over_and_count_once_when_they_return(cluster):
    count_up(cluster)
    done = cluster.run("resize", "--nodes", "3")
    assert (0, "") == (done.returncode, done.stdout), done.stderr
    assert re.search(r"placement \d+: 3 nodes, 2 of them to go", done.stderr), done.stderr
    assert all(f"{node} holds nothing any more" in done.stderr for node in GOING)
    for node in GOING:
        cluster.processes[node].send_signal(signal.SIGTERM)
        assert 0 == cluster.processes[node].wait()
    wait_until(lambda: list(STAYING) == cluster.alive(), "the leave to be known", cluster.logs)
    assert {1} == counts(cluster)
    cluster.post("/v1/keys/count-0?concern=all", {"type": "pn_counter", "op": {"increment": 4}})

    # They start again while nobody has asked for them: they own nothing, say so, and harm nothing.
    for node in GOING:
        cluster.start_node(node)
        wait_until(lambda node=node: "3 nodes" in check_of(cluster, node, "placement")[1], f"{node} to learn of it")
        assert (503, False) == (cluster.probe(node, "/ready").status_code, check_of(cluster, node, "placement")[0])
        wait_until(
            lambda node=node: any(
                (link["id"], link["state"]) == (node, "reachable") for link in cluster.get("/v1/cluster")["links"]
            ),
            f"{node} to be reached",
        )
        refused = cluster.client.post(
            f"{cluster.url}/v1/keys/count-1?node={node}", json={"type": "pn_counter", "op": {"increment": 1}}
        )
        assert (503, "syncing") == (refused.status_code, refused.json()["error"]["code"])
    assert sorted(STAYING) == sorted(placement(cluster)["slots_owned"])
    assert (5, {1}) == (cluster.get("/v1/keys/count-0?concern=all")["value"], counts(cluster) - {5})

    done = cluster.run("resize", "--nodes", "5")
    assert 0 == done.returncode, done.stderr
    for node in GOING:
        cluster.wait_ready(node)
    wait_seats(cluster, cluster.node_ids)
    wait_handed_over(cluster, cluster.node_ids)
    assert (5, {1}) == (cluster.get("/v1/keys/count-0?concern=all")["value"], counts(cluster) - {5})
    assert [0.0, 0.0] == [states(cluster, node) for node in GOING]


def test_the_same_count_changes_nothing_and_says_so(cluster):
    before = wait_until(lambda: placement(cluster)["epoch"], "the backend to know the placement")
    done = cluster.run("resize", "--nodes", "5")
    assert (0, True) == (done.returncode, "nothing is to be changed" in done.stderr), done.stderr
    assert before == placement(cluster)["epoch"]


def test_a_change_that_waits_for_a_node_is_given_up_by_abort(cluster):
    """With two owners of each slot a node that is down keeps its next owners from copying."""
    count_up(cluster)
    cluster.kill("node-1")
    resizing = start_resize(cluster, "4")
    wait_until(lambda: (placement(cluster)["change"] or {}).get("reason") == "resize", "the change", cluster.logs)
    other = cluster.run("resize", "--nodes", "3")
    assert (1, True) == (other.returncode, "(resize by node-" in other.stderr), other.stderr
    assert "resize --abort" in other.stderr
    done = cluster.run("resize", "--abort")
    assert (0, True) == (done.returncode, "is given up" in done.stderr), done.stderr
    _, told = resizing.communicate(timeout=60)
    assert (1, True) == (resizing.returncode, "(abort by node-" in told), told
    cluster.start_node("node-1")
    cluster.wait_ready("node-1")
    wait_seats(cluster, cluster.node_ids)
    # Others dial a node that was away by and by, and refuse `all` until they reach it.
    wait_until(lambda: {1} == counts(cluster), "all owners to answer", cluster.logs)
    assert (0, True) == ((done := cluster.run("resize", "--abort")).returncode, "no change is under way" in done.stderr)


def test_of_two_operators_at_once_one_is_told_what_the_other_did(cluster):
    runs = [start_resize(cluster, count) for count in ("3", "4")]
    told = [run.communicate(timeout=60)[1] for run in runs]
    codes = [run.returncode for run in runs]
    # Had one begun after the other's end, both would be done: the second one on top of the first.
    assert codes.count(0) >= 1, told
    for code, text in zip(codes, told, strict=True):
        assert code == 0 or re.search(r"placement \d+ is (in force|under way) \(\w+ by node-\d", text), text
    seats = [int(count) for count, code in zip(("3", "4"), codes, strict=True) if code == 0]
    wait_until(lambda: placement(cluster)["change"] is None, "the end")
    assert placement(cluster)["node_count"] in seats


def start_resize(cluster, count):
    return subprocess.Popen(
        command("resize", "--nodes", count, "--secret-file", str(cluster.secret_file), *cluster.peer_arguments()),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_node_leaves_keys_under_replicated_until_it_returns(cluster):
    count_up(cluster)
    wait_handed_over(cluster, cluster.node_ids)
    cluster.kill("node-4")
    others = [node for node in cluster.node_ids if node != "node-4"]
    wait_until(lambda: sum(gauge(cluster, node, "jarvis_under_replicated_keys") for node in others) > 0, "the lack")
    refused = cluster.client.get(f"{cluster.url}/v1/keys/count-0?concern=all&node=node-0")
    assert refused.status_code in (200, 503)
    assert all(cluster.get(f"/v1/keys/count-{number}")["value"] == 1 for number in range(KEYS))
    cluster.start_node("node-4")
    wait_until(lambda: not any(gauge(cluster, node, "jarvis_under_replicated_keys") for node in others), "all copies")
    assert {1} == counts(cluster)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--nodes", "0"), "--nodes 0: a cluster has a node at least"),
        (("--nodes", "x"), "invalid int"),
        (("--nodes", "3", "--abort"), "not allowed with"),
        (("--nodes", "3", "--replication-factor", "101"), "--replication-factor 101"),
        ((), "one of the arguments --nodes --abort is required"),
    ],
)
def test_a_senseless_request_is_refused(tmp_path, arguments, said):
    done = LoopbackCluster(tmp_path).run("resize", *arguments)
    assert 2 == done.returncode
    assert said in done.stderr


@pytest.mark.parametrize("arguments", [("--nodes", "1"), ("--abort",)])
def test_where_no_node_answers_nothing_happens_and_it_says_so(tmp_path, arguments):
    done = LoopbackCluster(tmp_path).run("resize", *arguments)
    assert (0, "no node answers" in done.stderr) == (done.returncode, True)


def test_certificates_that_are_not_there_yet_mean_that_the_cluster_has_no_tls(tmp_path):
    files = [f"--tls-{name}={tmp_path / name}" for name in ("cert", "key", "ca")]
    cluster = LoopbackCluster(tmp_path)

    done = cluster.run("resize", "--nodes", "1", *files)
    assert (0, "no node answers" in done.stderr) == (done.returncode, True)
    (tmp_path / "ca").write_text("half of it")
    assert 2 == cluster.run("resize", "--nodes", "1", *files).returncode
