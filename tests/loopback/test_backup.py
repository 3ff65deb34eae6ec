"""Backups of real processes: taken amid writes, cut off, damaged, kept, and restored into what is left."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time

import msgspec
import pytest

from crdt_service.backup.data import FileMaker
from crdt_service.backup.destination import Folder
from crdt_service.backup.manifest import Manifest, encode_manifest
from crdt_service.kernel.clock import STAMP_MAX
from crdt_service.wire.message import Delta
from loadtests.cluster import LoopbackCluster, command, environment, wait_until


class Backups:
    """The command line, for one cluster and one folder."""

    def __init__(self, cluster, folder, key=None):
        self.cluster = cluster
        self.folder = folder
        self.key = key
        folder.mkdir(exist_ok=True)

    def command(self, action, *options):
        cluster = self.cluster
        given = ["backup", action, "--destination", str(self.folder), "--config", str(cluster.config_file)]
        given += ["--secret-file", str(cluster.secret_file), *options]
        given += [text for name in cluster.node_ids for text in ("--peer", f"127.0.0.1:{cluster.ports[name][0]}")]
        given += ["--encryption-key-file", str(self.key)] if self.key else []
        if cluster.authority is not None:
            given += cluster.authority.issue("operator").arguments()
        return command(*given)

    def run(self, action, *options):
        return subprocess.run(
            self.command(action, *options), env=environment(), capture_output=True, text=True, check=False
        )

    def do(self, action, *options):
        done = self.run(action, *options)
        assert 0 == done.returncode, done.stderr + self.cluster.logs()
        return json.loads(done.stdout) if done.stdout else None

    def ids(self):
        return [each["id"] for each in self.do("list")]


def register(cluster, key, value, node="node-0"):
    cluster.post(f"/v1/keys/{key}?node={node}", {"type": "lww_register", "op": {"assign": value}})


def increment(cluster, key, amount=1, query=""):
    body = {"type": "pn_counter", "op": {"increment": amount}}
    return cluster.post(f"/v1/keys/{key}{query}", body)["value"]


def value_of(cluster, key, node=None):
    return cluster.get(f"/v1/keys/{key}" + (f"?node={node}" if node else ""))["value"]


def metric(cluster, name):
    """The largest of what the nodes show."""
    pattern = re.compile(rf"^{name} (\S+)$", re.MULTILINE)
    return max(float(pattern.search(cluster.metrics(node))[1]) for node in cluster.node_ids)


@contextlib.contextmanager
def writing(cluster):
    """Write on every node meanwhile, those that do not own the key too: they hand over what they took."""
    stopping, acknowledged = threading.Event(), []

    def write():
        number = 0
        while not stopping.is_set():
            node = cluster.node_ids[number % len(cluster.node_ids)]
            register(cluster, f"live-{number}", number, node)
            acknowledged.append(number)
            increment(cluster, "sum", query=f"?node={node}")
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_until(lambda: len(acknowledged) > 20, "some writes", cluster.logs)
        yield acknowledged
    finally:
        stopping.set()
        writer.join()


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_bytes(os.urandom(48))
    return path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Four nodes, three owners for each key, mutual TLS."""
    directory = tmp_path_factory.mktemp("cluster")
    with LoopbackCluster(directory, node_count=4, replication_factor=3, tls=True) as running:
        for number in range(300):
            register(running, f"r{number}", number, running.node_ids[number % 4])
        wait_until(lambda: metric(running, "jarvis_handoff_slots") == 0, "all to be handed over", running.logs)
        yield running


@pytest.fixture
def backups(cluster, tmp_path, key):
    return Backups(cluster, tmp_path / "backups", key)


def test_a_backup_amid_writes_holds_all_that_was_acknowledged_before_and_a_fresh_cluster_gets_it(
    cluster, backups, tmp_path
):
    with writing(cluster) as acknowledged:
        before = list(acknowledged)
        done = backups.run("take", "--verify")
    assert (0, False) == (done.returncode, "trying again" in done.stderr), done.stderr + cluster.logs()
    taken = json.loads(done.stdout)
    assert cluster.node_ids == taken["nodes"]
    assert [] == taken["missed"]
    assert taken == backups.do("verify")
    assert taken["keys"] >= 300 + len(before)
    with LoopbackCluster(tmp_path / "fresh", node_count=2) as fresh:
        restored = Backups(fresh, backups.folder, backups.key)
        restored.do("restore")
        assert list(range(300)) == [value_of(fresh, f"r{number}", "node-0") for number in range(300)]
        assert before == [value_of(fresh, f"live-{number}", "node-1") for number in before]
        total = value_of(fresh, "sum", "node-0")
        assert len(before) - 1 <= total <= value_of(cluster, "sum")
        assert total + 5 == increment(fresh, "sum", 5)
        restored.do("restore")
        assert total + 5 == value_of(fresh, "sum", "node-0")


def test_restoring_into_the_live_cluster_counts_nothing_twice_and_loses_nothing_newer(cluster, backups):
    increment(cluster, "twice", query="?concern=all")
    backups.do("take")
    before = increment(cluster, "twice", query="?concern=all")
    register(cluster, "r0", "newer")
    backups.do("restore")
    assert (before, "newer") == (value_of(cluster, "twice"), value_of(cluster, "r0"))
    assert (2, 3) == (before, increment(cluster, "twice", query="?concern=all"))
    register(cluster, "r0", 0)


def test_a_restore_over_keys_of_another_type_names_them_and_fails(cluster, backups, tmp_path):
    increment(cluster, "sum", 7)
    backups.do("take")
    with LoopbackCluster(tmp_path / "fresh", node_count=2) as fresh:
        fresh.post("/v1/keys/sum?concern=all", {"type": "lww_register", "op": {"assign": "live"}})
        increment(fresh, "mine", 1)
        restored = Backups(fresh, backups.folder, backups.key)
        for _ in range(2):  # So it is as long as they are not settled.
            ran = restored.run("restore")
            assert (1, True) == (ran.returncode, "1 of its keys hold several types" in ran.stderr), ran.stderr
            assert "key 'sum' is shown as pn_counter, and holds lww_register, too" in ran.stderr
        shown = [fresh.get(f"/v1/keys/sum?type=lww_register&node={name}")["value"] for name in fresh.node_ids]
        assert ["live"] * 2 == shown
        fresh.client.delete(f"{fresh.url}/v1/keys/sum?type=lww_register&concern=all").raise_for_status()
        restored.do("restore")


def test_after_all_volumes_are_lost_a_restore_brings_everything_back(cluster, backups):
    backups.do("take", "--verify")
    for name in cluster.node_ids:
        cluster.kill(name)
        shutil.rmtree(cluster.directory / name)
    for name in cluster.node_ids:
        cluster.start_node(name)
    for name in cluster.node_ids:
        cluster.wait_ready(name)
    wait_until(lambda: cluster.get("/health")["status"] == "healthy", "the cluster to be healthy", cluster.logs)
    wait_until(lambda: cluster.node_ids == cluster.alive(), "all members to be known", cluster.logs)
    assert 404 == cluster.client.get(f"{cluster.url}/v1/keys/r7").status_code
    backups.do("restore")
    assert list(range(300)) == [value_of(cluster, f"r{number}") for number in range(300)]


def test_nodes_show_when_a_backup_succeeded_and_when_one_failed(cluster, backups):
    began = time.time()
    taken = backups.do("take")
    wait_until(
        lambda: metric(cluster, "jarvis_backup_last_success_timestamp_seconds") >= began, "the success", cluster.logs
    )
    assert (taken["size_bytes"], taken["keys"]) == (
        metric(cluster, "jarvis_backup_size_bytes"),
        metric(cluster, "jarvis_backup_keys"),
    )
    assert began <= metric(cluster, "jarvis_backup_last_start_timestamp_seconds")
    assert metric(cluster, "jarvis_backup_last_failure_timestamp_seconds") < began
    (backups.folder / "lock").unlink()
    (backups.folder / "lock").mkdir()
    assert 2 == backups.run("take").returncode
    wait_until(
        lambda: metric(cluster, "jarvis_backup_last_failure_timestamp_seconds") >= began, "the failure", cluster.logs
    )
    # Users see none of it.
    assert [] == [each for each in cluster.get("/v1/keys?prefix=_")["keys"] if "backup" in each["key"]]


def test_a_job_that_is_killed_leaves_no_backup_and_the_next_one_succeeds(cluster, backups):
    hanging = (
        "import sys, time\n"
        "from crdt_service.backup.destination import Folder\n"
        "write = Folder.write\n"
        "def hang(folder, backup, name, data):\n"
        "    write(folder, backup, name, data)\n"
        "    time.sleep(3600 if name.startswith('states') else 0)\n"
        "Folder.write = hang\n"
        "from crdt_service.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    python, _, _, *arguments = backups.command("take")
    job = subprocess.Popen([python, "-c", hanging, *arguments], env=environment())
    wait_until(lambda: list(backups.folder.glob(".*.part/states-*")), "files of the backup", cluster.logs)
    refused = backups.run("take")
    assert (1, True) == (refused.returncode, "another backup is being written" in refused.stderr)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert [] == backups.ids()
    assert 1 == len(list(backups.folder.glob(".*.part")))
    taken = backups.do("take", "--verify")
    assert [taken["id"]] == backups.ids()
    assert ["lock", taken["id"]] == sorted((path.name for path in backups.folder.iterdir()), reverse=True)


def test_with_a_node_down_its_slots_are_read_from_their_other_owners(cluster, backups):
    cluster.kill("node-3")
    try:
        taken = backups.do("take", "--verify")
        assert (cluster.node_ids[:3], ["node-3"]) == (taken["nodes"], taken["missed"])
        assert 300 <= taken["keys"]
        cluster.kill("node-2")
        cluster.kill("node-1")
        refused = backups.run("take")
        assert (1, True) == (refused.returncode, "slots have no owner that answers" in refused.stderr)
        assert "node-1, node-2, node-3" in refused.stderr
        restored = backups.run("restore")
        assert (1, True) == (restored.returncode, "slots have no owner that answers" in restored.stderr)
        assert [taken["id"]] == backups.ids()
    finally:
        away = [name for name in cluster.node_ids[1:] if cluster.processes[name].poll() is not None]
        for name in away:
            cluster.start_node(name)
        for name in away:  # No node is ready before a majority is there.
            cluster.wait_ready(name)
        wait_until(lambda: cluster.node_ids == cluster.alive(), "all members to be known", cluster.logs)
        for name in cluster.node_ids:
            wait_until(lambda name=name: cluster.is_synced(name), f"{name} to be synced", cluster.logs)


def test_configuration_is_kept_and_written_out(cluster, backups, tmp_path):
    included, out = tmp_path / "included", tmp_path / "out"
    included.mkdir()
    out.mkdir()
    (included / "config.json").write_bytes(cluster.config_file.read_bytes())
    (included / "values.yaml").write_text("crdt: {}\n")
    (included / "..data").mkdir()
    assert ["config.json", "values.yaml"] == backups.do("take", "--include", str(included))["configuration"]
    assert {"config.json", "values.yaml"} == backups.do("configuration").keys()
    backups.do("configuration", "--out", str(out))
    assert cluster.config_file.read_bytes() == (out / "config.json").read_bytes()
    assert "crdt: {}\n" == (out / "values.yaml").read_text()


def test_old_backups_go_and_the_newest_stay(cluster, backups):
    kept = []
    for _ in range(3):
        kept.append(backups.do("take", "--verify", "--keep-hourly", "0", "--keep-daily", "0", "--keep-weekly", "0"))
        assert [kept[-1]["id"]] == backups.ids()
        time.sleep(1.1)  # Ids are seconds.
    assert 2 == backups.run("prune").returncode


def test_a_damaged_backup_is_refused_before_anything_is_sent(cluster, backups):
    taken = backups.do("take")
    path = backups.folder / taken["id"] / "states-000000"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for action in ("verify", "restore"):
        done = backups.run(action)
        assert (1, True) == (done.returncode, "states-000000 was altered" in done.stderr)


def test_a_wrong_key_is_named_and_no_key_is_shown(cluster, backups, tmp_path):
    taken = backups.do("take")
    other = tmp_path / "other-key"
    other.write_bytes(os.urandom(32))
    for key in (None, other):
        for action in ("verify", "restore"):
            done = Backups(cluster, backups.folder, key).run(action)
            assert (2, True) == (done.returncode, taken["key_id"] in done.stderr)


def test_verify_may_find_nothing_yet(cluster, backups):
    done = backups.run("verify", "--none-is-fine")
    assert (0, "no backup was taken yet: nothing to verify\n") == (done.returncode, done.stderr)
    assert 2 == backups.run("verify").returncode


def test_states_that_a_node_refuses_are_counted_and_the_others_restored(cluster, tmp_path):
    backup, folder = "20261128T010203Z", tmp_path / "backups"
    backups = Backups(cluster, folder)
    maker = FileMaker(backup, "states-000000", None, None)
    # A stamp of the year 2500 is taken, one that no clock can have made is not.
    far = msgspec.msgpack.encode((16_725_225_600_000 << 16, "other~1", b"1"))
    impossible = msgspec.msgpack.encode((STAMP_MAX, "other~1", b"1"))
    maker.add_states(
        [
            Delta("far", 2, 1, far),
            Delta("impossible", 2, 1, impossible),
            Delta("restored", 1, 1, b"\x91\x93\xa7other~1\x05\x00"),
        ]
    )
    file, data = maker.finish()
    destination = Folder(folder)
    destination.write(backup, file.name, data)
    manifest = Manifest(1, backup, "", "", "", "", "", [], [], 3, 3, [], [file])
    destination.publish(backup, encode_manifest(manifest, ()))
    done = backups.run("restore")
    assert 1 == done.returncode, done.stderr
    assert "1 states were refused" in done.stderr
    assert (1, 5) == (value_of(cluster, "far"), value_of(cluster, "restored"))


def test_what_is_missing_is_named(cluster, backups, tmp_path):
    for option in ("--secret-file", "--config", "--peer"):
        given = backups.command("take")
        while option in given:
            place = given.index(option)
            del given[place : place + 2]
        done = subprocess.run(given, env=environment(), capture_output=True, text=True, check=False)
        assert (2, True) == (done.returncode, f"needs {option}" in done.stderr)
    done = Backups(cluster, backups.folder / "a", backups.key).run("take", "--destination", str(tmp_path / "missing"))
    assert (2, True) == (done.returncode, "missing" in done.stderr)


def test_a_full_destination_fails_and_keeps_what_is_there(cluster, backups):
    first = backups.do("take")
    time.sleep(1.1)  # Ids are seconds.
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 1; trap "" XFSZ; exec "$@"', "-", *backups.command("take")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert 1 == limited.returncode, limited.stderr
    assert "check the disk" in limited.stderr
    assert [first["id"]] == backups.ids()
    assert [] == list(backups.folder.glob(".*.part"))
