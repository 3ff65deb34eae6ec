"""Strangers at the port of peers: another cluster, silent callers, and secrets that change while all runs."""

import contextlib
import secrets
import socket

import pytest

from loadtests.cluster import LoopbackCluster, wait_until


def counted(cluster, name, reason):
    line = f'jarvis_peer_refusals_total{{reason="{reason}"}} '
    return sum(float(each.removeprefix(line)) for each in cluster.metrics(name).splitlines() if each.startswith(line))


def add_everywhere(cluster, member):
    """Write to all owners, once they reach each other."""
    body = {"type": "g_set", "op": {"add": member}}

    def write():
        answer = cluster.client.post(f"{cluster.url}/v1/keys/k?concern=all", json=body)
        return answer.is_success and answer.json()["value"]

    return wait_until(write, "a write to all owners", cluster.logs)


@pytest.mark.parametrize("tls", [False, True])
def test_two_clusters_with_one_secret_and_one_authority_stay_apart(tmp_path, tls):
    first, second = (LoopbackCluster(tmp_path / name, tls=tls) for name in ("production", "staging"))
    second.secret_file.write_text(first.secret_file.read_text())
    if tls:
        second.certificates.update((name, first.certificates[name]) for name in (*first.node_ids, "jarvis-backend"))
    with first, second:
        for cluster, value in ((first, "production"), (second, "staging")):
            cluster.post("/v1/keys/who?concern=all", {"type": "lww_register", "op": {"assign": value}})
        second.post("/v1/keys/only-staging?concern=all", {"type": "pn_counter", "op": {"increment": 1}})
        # It has the address of a node of the other, as when a pod's address is given to another pod.
        first.kill("node-0")
        first._start("node-0", [*first.node_arguments("node-0"), *second.peer_arguments(["node-1"])])
        first.wait_ready("node-0")
        wait_until(lambda: counted(second, "node-1", "other_cluster") > 3, "strangers to be refused", second.logs)
        assert "production" == first.get("/v1/keys/who")["value"]
        assert "staging" == second.get("/v1/keys/who")["value"]
        assert 404 == first.client.get(f"{first.url}/v1/keys/only-staging").status_code
        ports = {f"127.0.0.1:{port}" for port, _ in first.ports.values()}
        assert ports == {member["address"] for member in first.get("/v1/cluster")["members"]}
        for cluster in (first, second):
            wait_until(lambda cluster=cluster: "healthy" == cluster.get("/health")["status"], "health", cluster.logs)
        said = f"node node-0 is of the cluster '{first.name}', this process of '{second.name}'"
        assert 1 == (second.directory / "node-1.log").read_text().count(said)
        assert f"is of the cluster '{second.name}'" in (first.directory / "node-0.log").read_text()


def test_hundreds_of_silent_strangers_keep_no_node_and_no_backend_out(tmp_path):
    with LoopbackCluster(tmp_path) as cluster, contextlib.ExitStack() as stack:
        port = cluster.ports["node-0"][0]
        for _ in range(540):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        cluster.kill("node-1")
        cluster.start_node("node-1")
        cluster.wait_ready("node-1")
        reached = 'jarvis_links{state="reachable"} 2.0'
        wait_until(lambda: reached in cluster.metrics("node-1"), "node-1 to reach both others", cluster.logs)
        assert ["a"] == add_everywhere(cluster, "a")
        assert 540 - 64 <= counted(cluster, "node-0", "crowded_out")
        # Some were thrown out, the others said nothing for too long.
        wait_until(lambda: 540 <= sum(counted(cluster, "node-0", each) for each in ("crowded_out", "silent")), "all")
        assert (cluster.directory / "node-0.log").read_text().count("connection from 127.0.0.1 refused") <= 30


def test_the_cluster_secret_is_rotated_while_all_runs(tmp_path):
    with LoopbackCluster(tmp_path) as cluster:
        old, new = cluster.secret_file.read_text(), secrets.token_hex(32)
        for number, content in enumerate((f"{old}\n{new}\n", f"{new}\n{old}\n", f"{new}\n")):
            cluster.secret_file.write_text(content)
            cluster.kill("node-2")  # It has to prove itself to those that run.
            cluster.start_node("node-2")
            cluster.wait_ready("node-2")
            assert ["a", "b", "c"][: number + 1] == add_everywhere(cluster, "abc"[number])
        assert 0 == cluster.run("placement", "show").returncode
        cluster.secret_file = tmp_path / "kept"
        cluster.secret_file.write_text(old)
        assert 0 != cluster.run("placement", "show").returncode
