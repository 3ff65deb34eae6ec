"""What probes answer while something is amiss: the rows of docs/operations.md on real processes."""

import subprocess

import pytest

from loadtests.cluster import LoopbackCluster, wait_until
from tests.loopback.test_full_disk import IN_OWN_MOUNTS

INCREMENT = {"type": "pn_counter", "op": {"increment": 1}}


def answers(cluster, name):
    """Statuses of (/live, /ready, /health), what /health says, and which of its checks fail."""
    health = cluster.probe(name, "/health")
    body = health.json()
    failed = [check["name"] for check in body["checks"] if not check["passed"]]
    codes = (cluster.probe(name, "/live").status_code, cluster.probe(name, "/ready").status_code, health.status_code)
    return codes, body["status"], failed


def test_a_node_without_its_peers_stays_ready_and_is_degraded(tmp_path):
    with LoopbackCluster(tmp_path) as cluster:
        wait_until(lambda: ((200, 200, 200), "healthy", []) == answers(cluster, "node-0"), "node-0 to be well")
        cluster.kill("node-1")
        cluster.kill("node-2")
        wait_until(lambda: ((200, 200, 200), "degraded", ["members"]) == answers(cluster, "node-0"), "the loss")
        cluster.post("/v1/keys/k", INCREMENT)
        assert 1 == cluster.get("/v1/keys/k")["value"]
        assert (200, 200) == tuple(cluster.client.get(cluster.url + path).status_code for path in ("/live", "/ready"))
        checks = {check["name"]: check["passed"] for check in cluster.get("/health")["checks"]}
        assert (True, False) == (checks["any_node_reachable"], checks["all_nodes_reachable"])

        cluster.kill("node-0")
        health = wait_until(
            lambda: (answer := cluster.client.get(f"{cluster.url}/health")).status_code == 503 and answer,
            "the backend to be unhealthy",
        )
        assert "unhealthy" == health.json()["status"]
        assert (200, 503) == tuple(cluster.client.get(cluster.url + path).status_code for path in ("/live", "/ready"))


class SmallDisk(LoopbackCluster):
    """Its nodes have a file system of 16 MiB each, which no other process sees."""

    def command_of(self, name, arguments):
        command = super().command_of(name, arguments)
        if name not in self.node_ids:
            return command
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        mount = f"mount -t tmpfs -o size=16m none '{directory}'"
        return [*IN_OWN_MOUNTS, f'{mount} && exec "$0" "$@"', *command]


def test_a_node_with_a_full_disk_serves_reads_and_is_degraded(tmp_path):
    mount = f"mount -t tmpfs none '{tmp_path}'"
    if subprocess.run([*IN_OWN_MOUNTS, mount], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount anything")
    with SmallDisk(tmp_path, node_count=1) as cluster:
        assert ((200, 200, 200), "healthy", []) == answers(cluster, "node-0")
        cluster.post("/v1/keys/k", INCREMENT)

        def fill(number):
            body = {"type": "lww_register", "op": {"assign": "x" * 200_000}}
            answer = cluster.client.post(f"{cluster.url}/v1/keys/filler-{number}?value=false", json=body)
            return answer.status_code, answer.json().get("error", {}).get("code")

        assert (503, "storage_full") == next(answer for number in range(1000) if (answer := fill(number))[0] != 200)
        codes, status, failed = answers(cluster, "node-0")
        assert ((200, 200, 200), "degraded") == (codes, status)
        assert {"disk_writable"} <= set(failed) <= {"disk_writable", "disk_space"}
        assert 1 == cluster.get("/v1/keys/k")["value"]
        assert 200 == cluster.client.get(f"{cluster.url}/ready").status_code
        assert 'jarvis_database_errors_total{kind="storage_full"} 1.0' in cluster.metrics("node-0")

        cluster.post("/v1/keys/k", INCREMENT)  # So little still fits.
        assert "disk_writable" not in answers(cluster, "node-0")[2]
