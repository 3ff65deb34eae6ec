"""Who owns what outlives restarts and lost disks: what an operator sees and does of it."""

import shutil

import pytest

from loadtests.cluster import LoopbackCluster, wait_until

KEYS = 30


@pytest.fixture
def cluster(tmp_path):
    with LoopbackCluster(tmp_path, node_count=3) as running:
        yield running


def write_all(cluster, concern="majority", first=0):
    for number in range(first, first + KEYS):
        cluster.post(f"/v1/keys/count-{number}?concern={concern}", {"type": "pn_counter", "op": {"increment": 1}})


def read_all(cluster, concern="majority", first=0):
    return {cluster.get(f"/v1/keys/count-{number}?concern={concern}")["value"] for number in range(first, first + KEYS)}


def placement(cluster):
    return cluster.get("/v1/cluster")["placement"]


def checks_of(cluster, node):
    return {check["name"]: check for check in cluster.probe(node, "/health").json()["checks"]}


def wait_placed(cluster, node):
    cluster.wait_ready(node)
    wait_until(lambda: checks_of(cluster, node)["placement"]["passed"], f"{node} to be well placed", cluster.logs)


def show(cluster):
    done = cluster.run("placement", "show")
    assert (0, "") == (done.returncode, done.stderr), done.stderr
    return done.stdout


def seat_of(cluster, node):
    """The seat of a node, as an operator reads it from the table."""
    rows = [line.split() for line in show(cluster).splitlines()]
    [seat] = {row[1] for row in rows if row and row[0] == node and row[1] != "none"}
    return seat


def lose_disk(cluster, node):
    cluster.kill(node)
    shutil.rmtree(cluster.directory / node)


def test_a_table_shows_who_owns_what(cluster):
    first, blank, heading, *rows = show(cluster).splitlines()
    assert first.startswith("placement 2 is in force (first by node-")
    assert "3 of 3 nodes have a seat, each slot has 3 owners" in first
    assert ("", ["NODE", "SEAT", "ZONE", "SLOTS", "TO", "COPY", "STATE"]) == (blank, heading.split())
    assert [(name, f"zone-{name[-1]}", "1024", "0", "holds") for name in cluster.node_ids] == [
        (node, zone, slots, lacking, state) for node, _, zone, slots, lacking, state in map(str.split, rows)
    ]


def test_all_nodes_stop_at_once_and_start_in_any_order(cluster):
    write_all(cluster)
    before = show(cluster)
    for node in cluster.node_ids:
        cluster.kill(node)
    # One alone has no majority; two have.
    cluster.start_node("node-2")
    wait_until(lambda: cluster.probe("node-2", "/live").is_success, "node-2 to run")
    wait_until(
        lambda: "too_few_owners" == refusal(cluster, "/v1/keys/count-0?concern=majority"), "a refusal", cluster.logs
    )
    cluster.start_node("node-0")
    cluster.wait_ready("node-0")
    cluster.wait_ready("node-2")
    wait_until(lambda: read_if_answered(cluster) == {1}, "a majority to answer", cluster.logs)
    write_all(cluster, first=KEYS)
    cluster.start_node("node-1")
    cluster.wait_ready("node-1")
    wait_until(lambda: cluster.get("/health")["status"] == "healthy", "all to be back", cluster.logs)
    assert ({1}, {1}) == (read_all(cluster, "all"), read_all(cluster, "all", KEYS))
    assert before == show(cluster)


def refusal(cluster, path):
    answer = cluster.client.get(cluster.url + path)
    return "" if answer.is_success else answer.json()["error"]["code"]


def read_if_answered(cluster):
    path = "/v1/keys/count-0?concern=majority"
    return set() if refusal(cluster, path) else read_all(cluster)


def test_a_lost_disk_is_replaced_by_itself(cluster):
    write_all(cluster)
    before = seat_of(cluster, "node-1")
    lose_disk(cluster, "node-1")
    write_all(cluster, first=KEYS)
    cluster.start_node("node-1")
    wait_placed(cluster, "node-1")
    assert before != seat_of(cluster, "node-1")
    # The new volume holds all of it: with it, another one may be away.
    cluster.kill("node-2")
    wait_until(lambda: read_if_answered(cluster) == {1}, "a majority to answer", cluster.logs)
    assert {1} == read_all(cluster, first=KEYS)
    assert [1, 1] == [cluster.get(f"/v1/keys/count-{number}?node=node-1")["value"] for number in (0, KEYS)]


def test_a_count_that_was_lowered_while_nothing_ran_is_told(cluster):
    write_all(cluster)
    for node in cluster.node_ids:
        cluster.kill(node)
    cluster.node_count = 2
    for node in ("node-0", "node-1"):
        cluster.start_node(node)
    for node in ("node-0", "node-1"):
        cluster.wait_ready(node)
        told = wait_until(
            lambda node=node: "told" in (check := checks_of(cluster, node)["placement"])["message"] and check,
            f"{node} to say so",
            cluster.logs,
        )
        assert (False, True) == (told["passed"], "has 3 nodes, this node was told of 2" in told["message"])
        assert "degraded" == cluster.probe(node, "/health").json()["status"]
    wait_until(lambda: read_if_answered(cluster) == {1}, "a majority to answer", cluster.logs)
    done = cluster.run("resize", "--nodes", "2")
    assert (0, True) == (done.returncode, "node-2" not in done.stdout), done.stderr
    for node in ("node-0", "node-1"):
        wait_placed(cluster, node)
    assert {1} == read_all(cluster, "all")


class TestLoss:
    """Two of three disks are lost for ever: nothing is decided any more until an operator says so."""

    @pytest.fixture
    def lost(self, cluster):
        write_all(cluster, "all")
        seats = [seat_of(cluster, node) for node in ("node-1", "node-2")]
        for node in ("node-1", "node-2"):
            lose_disk(cluster, node)
        for node in ("node-1", "node-2"):
            cluster.start_node(node)
            wait_until(
                lambda node=node: "has no seat" in checks_of(cluster, node)["placement"]["message"],
                f"{node} to ask for a seat",
                cluster.logs,
            )
        return seats

    def test_what_is_left_goes_on_once_it_is_accepted_and_confirmed(self, cluster, lost):
        assert "another volume answers" in show(cluster)
        wait_until(lambda: refusal(cluster, "/v1/keys/count-0?concern=majority"), "a refusal", cluster.logs)
        done = cluster.run("placement", "accept-loss", "node-1", "node-2", "--yes", *lost)
        assert 0 == done.returncode, done.stderr
        assert "1024 of 1024 slots lose the majority of their owners, 0 of them all" in done.stderr
        assert f"{KEYS} keys are known in them" in done.stderr
        assert "each of them takes the new placement up by itself" in done.stderr
        for node in cluster.node_ids:
            cluster.wait_ready(node)
        wait_until(
            lambda: (seen := placement(cluster))["lost"] and seen["change"] is None and len(seen["seats"]) == 3,
            "new seats",
            cluster.logs,
        )
        assert ({1}, lost) == (read_all(cluster, "all"), placement(cluster)["lost"])
        assert "the loss of" in checks_of(cluster, "node-0")["placement"]["message"]
        assert "jarvis_placement_lost_seats 2.0" in cluster.metrics("node-0")
        done = cluster.run("placement", "confirm-loss")
        assert (0, True) == (done.returncode, "is confirmed" in done.stdout), done.stderr
        for node in cluster.node_ids:
            wait_placed(cluster, node)
        wait_until(lambda: placement(cluster)["lost"] == [], "the backend to know", cluster.logs)
        again = cluster.run("placement", "confirm-loss")
        assert (0, "no accepted loss is to be confirmed\n") == (again.returncode, again.stdout)

    def test_nothing_happens_unless_the_seats_are_named_twice(self, cluster, lost):
        before = show(cluster)
        for yes, code, said in (
            ((), 2, "nothing was confirmed"),
            (("--yes", lost[0]), 2, "was confirmed, not"),
        ):
            done = cluster.run("placement", "accept-loss", *lost, *yes)
            assert (code, True) == (done.returncode, said in done.stderr), done.stderr
        assert before == show(cluster)

    def test_a_seat_that_is_here_or_that_is_none_is_refused(self, cluster, lost):
        for seats, code, said in (
            (("node-0", *lost), 1, "node-0 answers, so it is not lost"),
            (("node-7",), 2, "no seat of placement"),
        ):
            done = cluster.run("placement", "accept-loss", *seats, "--yes", *seats)
            assert (code, True) == (done.returncode, said in done.stderr), done.stderr


def test_a_minority_that_is_lost_is_given_up_by_a_majority(cluster):
    write_all(cluster)
    seat = seat_of(cluster, "node-2")
    lose_disk(cluster, "node-2")
    done = cluster.run("placement", "accept-loss", seat, "--yes", seat)
    assert (0, True) == (done.returncode, "a majority of them decides" in done.stderr), done.stderr
    wait_until(lambda: len(placement(cluster)["seats"]) == 2, "the end", cluster.logs)
    assert {1} == read_all(cluster)
    cluster.start_node("node-2")
    cluster.wait_ready("node-2")
    wait_until(lambda: len(placement(cluster)["seats"]) == 3, "its new seat", cluster.logs)
    assert {1} == read_all(cluster, "all")


@pytest.mark.parametrize("action", ["show", "confirm-loss"])
def test_a_cluster_that_is_down_is_told(tmp_path, action):
    done = LoopbackCluster(tmp_path).run("placement", action)
    assert (1, True) == (done.returncode, "no node answers" in done.stderr), done.stderr
