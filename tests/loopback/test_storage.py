"""Real processes: encryption at rest turned on under a running store, and backups taken from and restored into it."""

import base64
import json
import os
import random
import subprocess
import threading

import pytest

from crdt_service.backup.file import BackupWriter, make_header
from crdt_service.wire.message import Delta
from loadtests.cluster import LoopbackCluster, command, environment, wait_until


def run(*arguments):
    return subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, check=False)


def secret_of(cluster):
    return ("--secret-file", str(cluster.secret_file))


def address_of(cluster, name):
    return f"127.0.0.1:{cluster.ports[name][0]}"


def increment(cluster, key, amount=1, node="node-0"):
    return cluster.post(f"/v1/keys/{key}?node={node}", {"type": "pn_counter", "op": {"increment": amount}})["value"]


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


@pytest.fixture(scope="module")
def backup(tmp_path_factory):
    """A cluster whose node-0 was backed up amid writes; what was acknowledged before; the file and its key."""
    directory = tmp_path_factory.mktemp("backup")
    key = directory / "key"
    key.write_bytes(os.urandom(48))
    file = directory / "jarvis.backup"
    with LoopbackCluster(directory, node_count=3) as cluster:
        for number in range(300):
            cluster.post(f"/v1/keys/r{number}?node=node-0", {"type": "lww_register", "op": {"assign": number}})
            increment(cluster, "sum", node=cluster.node_ids[number % 3])
        wait_until(lambda: value_of(cluster, "sum", "node-0") == 300, "all increments on node-0", cluster.logs)
        stopping = threading.Event()

        def write():
            while not stopping.is_set():
                increment(cluster, "sum")

        writer = threading.Thread(target=write)
        writer.start()
        done = run(
            *("backup", "--from", address_of(cluster, "node-0"), "--out", str(file)),
            *("--encryption-key-file", str(key)),
            *secret_of(cluster),
        )
        stopping.set()
        writer.join()
        assert 0 == done.returncode, done.stderr
        yield cluster, file, key, json.loads(done.stdout)


def test_a_backup_taken_amid_writes_verifies(backup):
    _, file, key, summary = backup
    done = run("backup-verify", str(file), "--encryption-key-file", str(key))
    assert 0 == done.returncode, done.stderr
    assert summary == json.loads(done.stdout)
    assert "node-0" == summary["node_id"]
    assert 301 == summary["states"]


def test_a_cut_backup_is_refused_before_anything_is_sent(backup, tmp_path):
    cluster, file, key, _ = backup
    cut = tmp_path / "cut"
    cut.write_bytes(file.read_bytes()[:-100])
    arguments = ["--encryption-key-file", str(key)]
    verified = run("backup-verify", str(cut), *arguments)
    restored = run("restore", str(cut), "--to", "127.0.0.1:1", *arguments, *secret_of(cluster))
    for done in (verified, restored):
        assert 1 == done.returncode
        assert "cut off or damaged" in done.stderr


def test_restoring_into_the_live_cluster_counts_nothing_twice(backup):
    cluster, file, key, _ = backup
    before = value_of(cluster, "sum", "node-0")
    done = run(
        *("restore", str(file), "--to", address_of(cluster, "node-1"), "--encryption-key-file", str(key)),
        *secret_of(cluster),
    )
    assert 0 == done.returncode, done.stderr
    assert before + 1 == increment(cluster, "sum")
    for node in cluster.node_ids:
        wait_until(lambda node=node: value_of(cluster, "sum", node) == before + 1, f"the sum on {node}", cluster.logs)


def test_a_fresh_cluster_gets_all_that_was_acknowledged_before_and_goes_on(backup, tmp_path):
    cluster, file, key, _ = backup
    cluster.kill("node-0")
    with LoopbackCluster(tmp_path, node_count=2) as fresh:
        done = run(
            *("restore", str(file), "--to", address_of(fresh, "node-0"), "--encryption-key-file", str(key)),
            *secret_of(fresh),
        )
        assert 0 == done.returncode, done.stderr
        assert list(range(300)) == [value_of(fresh, f"r{number}", "node-0") for number in range(300)]
        restored = value_of(fresh, "sum", "node-0")
        assert 300 <= restored <= value_of(cluster, "sum", "node-1")
        assert restored + 5 == increment(fresh, "sum", 5, node="node-1") or wait_until(
            lambda: value_of(fresh, "sum", "node-1") == restored + 5, "the sum on node-1", fresh.logs
        )


def test_states_that_a_node_refuses_are_counted_and_the_others_restored(backup, tmp_path):
    cluster, *_ = backup
    path = tmp_path / "b"
    writer = BackupWriter(path, (), random.Random(1), make_header("other", "other~1", 0.0, 2))
    writer.add([Delta("unknown", 99, 1, b""), Delta("restored", 1, 1, b"\x91\x93\xa7other~1\x05\x00")])
    writer.finish()
    done = run("restore", str(path), "--to", address_of(cluster, "node-1"), *secret_of(cluster))
    assert 1 == done.returncode
    assert "1 states were refused" in done.stderr
    assert 5 == value_of(cluster, "restored", "node-1")


def test_a_node_that_is_not_there_is_named(backup, tmp_path):
    cluster, *_ = backup
    done = run("backup", "--from", "127.0.0.1:1", "--out", str(tmp_path / "b"), *secret_of(cluster))
    assert 1 == done.returncode
    assert "127.0.0.1:1" in done.stderr
    assert [] == list(tmp_path.iterdir())
