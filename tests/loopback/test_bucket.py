"""Backups in a bucket: a real server of S3's protocol on loopback, which checks signatures."""

import contextlib
import json
import os
import socket
import subprocess

import pytest

from crdt_service.backup.bucket import Bucket
from crdt_service.backup.manifest import make_id
from harness.cluster.tool import find_tool
from loadtests.cluster import LoopbackCluster, command, environment, free_port, wait_until

ACCESS, SECRET = "access", "secret-of-the-bucket"


class Server:
    """A folder served as buckets; use as a context manager."""

    def __init__(self, directory):
        self.folder = directory / "served"
        (self.folder / "bucket").mkdir(parents=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / "server.log"
        self.credentials = directory / "credentials"
        self.credentials.mkdir()
        (self.credentials / "access-key-id").write_text(ACCESS)
        (self.credentials / "secret-access-key").write_text(SECRET + "\n")

    def __enter__(self):
        given = [str(find_tool("versitygw")), "--port", f"127.0.0.1:{self.port}", "posix", str(self.folder)]
        keys = {"ROOT_ACCESS_KEY_ID": ACCESS, "ROOT_SECRET_ACCESS_KEY": SECRET}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(given, env={**os.environ, **keys}, stdout=log, stderr=log)
        wait_until(self._answers, "the server of the bucket", self.log.read_text)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def _answers(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def bucket(self, prefix="prefix"):
        return Bucket(f"s3://bucket/{prefix}", endpoint=self.url, region="us-east-1", credentials=self.credentials)

    def files(self):
        """Names of all objects."""
        return sorted(
            str(path.relative_to(self.folder / "bucket"))
            for path in (self.folder / "bucket").rglob("*")
            if path.is_file() and not path.relative_to(self.folder / "bucket").parts[0].startswith(".")
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with LoopbackCluster(tmp_path_factory.mktemp("cluster"), node_count=2) as running:
        for number in range(50):
            running.post(f"/v1/keys/r{number}?concern=all", {"type": "lww_register", "op": {"assign": number}})
        yield running


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_bytes(os.urandom(32))
    return path


def run(cluster, server, key, action, *options, prefix="prefix"):
    given = ["backup", action, "--destination", f"s3://bucket/{prefix}", "--s3-endpoint", server.url]
    given += ["--s3-credentials", str(server.credentials), "--encryption-key-file", str(key)]
    given += ["--config", str(cluster.config_file), "--secret-file", str(cluster.secret_file)]
    given += [text for name in cluster.node_ids for text in ("--peer", f"127.0.0.1:{cluster.ports[name][0]}")]
    return subprocess.run(command(*given, *options), env=environment(), capture_output=True, text=True, check=False)


def do(*given, **options):
    done = run(*given, **options)
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout) if done.stdout else None


def test_a_backup_in_a_bucket_restores_into_a_fresh_cluster(cluster, server, key, tmp_path):
    taken = do(cluster, server, key, "take", "--verify")
    names = [f"prefix/{taken['id']}/{name}" for name in ("configuration", "manifest.json", "states-000000")]
    assert names == [name for name in server.files() if name.startswith("prefix/")]
    assert [taken] == do(cluster, server, key, "list")
    assert taken == do(cluster, server, key, "verify")
    with LoopbackCluster(tmp_path, node_count=2) as fresh:
        do(fresh, server, key, "restore")
        assert list(range(50)) == [fresh.get(f"/v1/keys/r{number}")["value"] for number in range(50)]


def test_old_backups_go_and_other_prefixes_stay(cluster, server, key):
    other = do(cluster, server, key, "take", prefix="other")
    first = do(cluster, server, key, "take", prefix="old")
    kept = ("--keep-hourly", "0", "--keep-daily", "0", "--keep-weekly", "0")
    second = run(cluster, server, key, "take", "--verify", *kept, prefix="old")
    if first["id"] not in second.stdout:  # Ids are seconds.
        assert f"removed {first['id']}" in second.stderr
    assert 1 == len(do(cluster, server, key, "list", prefix="old"))
    assert [other] == do(cluster, server, key, "list", prefix="other")


def test_what_lacks_its_manifest_does_not_count_and_goes_once_it_is_old(server):
    bucket = server.bucket("cut")
    bucket.write("20200101T000000Z", "states-000000", b"half")
    bucket.write(make_id(4_000_000_000), "states-000000", b"half")
    bucket.write("notes", "states-000000", b"a stranger's")
    assert [] == bucket.backups()
    with bucket.lock():
        pass
    left = [name for name in server.files() if name.startswith("cut/")]
    assert ["cut/20961002T070640Z/states-000000", "cut/notes/states-000000"] == left


def test_a_removal_takes_the_manifest_first(server, monkeypatch):
    from crdt_service.backup import bucket as room  # noqa: PLC0415

    bucket = server.bucket("removal")
    bucket.write("20260101T000000Z", "states-000000", b"data")
    bucket.publish("20260101T000000Z", b"{}")
    assert ["20260101T000000Z"] == bucket.backups()
    removed = []
    monkeypatch.setattr(room.obstore, "delete", lambda _, name: removed.append(name))
    bucket.remove("20260101T000000Z")
    assert ["20260101T000000Z/manifest.json", "20260101T000000Z/states-000000"] == removed


def test_a_damaged_object_is_told(cluster, server, key):
    taken = do(cluster, server, key, "take", prefix="damaged")
    server.bucket("damaged").write(taken["id"], "states-000000", b"other")
    done = run(cluster, server, key, "verify", prefix="damaged")
    assert (1, True) == (done.returncode, "states-000000 was altered" in done.stderr)
    (server.folder / "bucket" / "damaged" / taken["id"] / "states-000000").unlink()
    done = run(cluster, server, key, "verify", prefix="damaged")
    assert (1, True) == (done.returncode, "states-000000 is missing" in done.stderr)


def test_a_wrong_key_a_missing_bucket_and_no_server_are_told_and_no_secret_is_shown(cluster, server, key, tmp_path):
    (tmp_path / "access-key-id").write_text(ACCESS)
    (tmp_path / "secret-access-key").write_text("another-secret")
    for options, status, says in (
        (("--s3-credentials", str(tmp_path)), 2, "SignatureDoesNotMatch"),
        (("--destination", "s3://missing/prefix"), 2, "NoSuchBucket"),
        (("--s3-endpoint", f"http://127.0.0.1:{free_port()}"), 1, "s3://bucket/prefix"),
        (("--s3-credentials", str(tmp_path / "none")), 2, "access-key-id"),
        (("--destination", "ftp://bucket"), 2, "s3://BUCKET/PREFIX"),
        (("--s3-endpoint", ""), 2, "needs --s3-endpoint"),
    ):
        done = run(cluster, server, key, "list", *options)
        assert (status, True) == (done.returncode, says in done.stderr), (options, done.stderr)
        assert SECRET not in done.stderr
        assert "another-secret" not in done.stderr
