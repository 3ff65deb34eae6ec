"""Real processes: encryption at rest turned on under a running store."""

import base64
import os
import subprocess

from loadtests.cluster import LoopbackCluster, command, environment, wait_until


def run(*arguments):
    return subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, check=False)


def value_of(cluster, key, node):
    return cluster.get(f"/v1/keys/{key}?node={node}")["value"]


def test_turning_encryption_on_rewrites_what_was_plain_and_keeps_it(tmp_path):
    def bytes_on_disk():
        return b"".join(path.read_bytes() for path in (tmp_path / "node-0").iterdir())

    key, next_key = tmp_path / "key", tmp_path / "next-key"
    key.write_bytes(base64.b64encode(os.urandom(32)))
    next_key.write_bytes(os.urandom(32))
    with LoopbackCluster(tmp_path, node_count=1) as cluster:

        def restart(*key_files):
            cluster.kill("node-0")
            cluster.key_files = list(key_files)
            cluster.start_node("node-0")
            cluster.wait_ready("node-0")
            wait_until(lambda: cluster.get("/health")["status"] == "healthy", "the cluster to be healthy", cluster.logs)

        cluster.post("/v1/keys/k", {"type": "lww_register", "op": {"assign": "visible words"}})
        assert b"visible words" in bytes_on_disk()
        restart(key)
        assert b"visible words" not in bytes_on_disk()
        assert "visible words" == value_of(cluster, "k", "node-0")
        cluster.post("/v1/keys/k", {"type": "lww_register", "op": {"assign": "other words"}})
        restart(next_key, key)
        restart(next_key)
        assert "other words" == value_of(cluster, "k", "node-0")
        assert b"other words" not in bytes_on_disk()
        cluster.kill("node-0")
        for files in ([], [key]):
            cluster.key_files = files
            refused = run(*cluster.node_arguments("node-0"))
            assert 2 == refused.returncode
            assert "encrypted with key" in refused.stderr
            assert "--encryption-key-file" in refused.stderr
        assert key.read_text() not in cluster.all_logs() + refused.stderr
