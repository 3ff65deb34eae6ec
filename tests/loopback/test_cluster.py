"""Real processes on loopback: what an operator would try by hand."""

import contextlib
import itertools
import os
import socket
import ssl
import subprocess
import threading

import httpx
import pytest

from loadtests.authority import Authority
from loadtests.cluster import LoopbackCluster, command, environment, wait_until
from tests.loopback.request import code_of


def read_everywhere(cluster, key, value):
    for name in cluster.node_ids:
        wait_until(
            lambda name=name: cluster.get(f"/v1/keys/{key}?node={name}")["value"] == value,
            f"{key} to be {value!r} on {name}",
            cluster.logs,
        )


def error_of(call, *arguments):
    with pytest.raises(httpx.HTTPStatusError) as refused:
        call(*arguments)
    return refused.value.response.status_code, refused.value.response.json()["error"]


@pytest.mark.parametrize(
    ("type_name", "op", "value"),
    [
        ("pn_counter", {"increment": 3}, 3),
        ("lww_register", {"assign": {"b": [1, None], "a": "ü"}}, {"b": [1, None], "a": "ü"}),
        ("aw_set", {"add": "x"}, ["x"]),
    ],
)
def test_a_write_on_one_node_is_read_on_the_others(cluster, type_name, op, value):
    answer = cluster.post(f"/v1/keys/one-{type_name}?node=node-0", {"type": type_name, "op": op})
    assert answer == {"key": f"one-{type_name}", "type": type_name, "value": value, "node": "node-0"}
    read_everywhere(cluster, f"one-{type_name}", value)


def test_concurrent_increments_on_all_nodes_add_up(cluster):
    def write(name):
        for _ in range(50):
            cluster.post(f"/v1/keys/sum?node={name}", {"type": "pn_counter", "op": {"increment": 1}})

    threads = [threading.Thread(target=write, args=(name,)) for name in cluster.node_ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read_everywhere(cluster, "sum", 150)


def test_kill_9_amid_writes_loses_nothing_acknowledged_and_catches_up(cluster):
    acknowledged, refused = [], []

    def write():
        for number in itertools.count():
            body = {"type": "aw_set", "op": {"add": f"e{number}"}}
            try:
                cluster.post("/v1/keys/crash?node=node-1", body)
            except httpx.HTTPError as error:
                refused.append(error)
                return
            acknowledged.append(f"e{number}")

    writer = threading.Thread(target=write)
    writer.start()
    wait_until(lambda: len(acknowledged) >= 30, "some writes")
    cluster.kill("node-1")
    writer.join()
    assert refused
    cluster.post("/v1/keys/meanwhile?node=node-0", {"type": "pn_counter", "op": {"increment": 7}})
    assert cluster.get("/health")["status"] in ("degraded", "healthy")
    cluster.start_node("node-1")
    cluster.wait_ready("node-1")
    wait_until(lambda: cluster.get("/health")["status"] == "healthy", "the cluster to be healthy", cluster.logs)
    read_everywhere(cluster, "meanwhile", 7)
    cluster.post("/v1/keys/crash?node=node-1", {"type": "aw_set", "op": {"add": "after"}})
    for name in cluster.node_ids:
        wait_until(
            lambda name=name: {*acknowledged, "after"} <= set(cluster.get(f"/v1/keys/crash?node={name}")["value"]),
            f"all acknowledged elements on {name}",
            cluster.logs,
        )
    final = cluster.get("/v1/keys/crash?node=node-0")["value"]
    read_everywhere(cluster, "crash", final)
    assert len(final) <= len(acknowledged) + 2  # The one under way at the kill may have made it.


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/keys/bad", {"type": "banana", "op": {}}, 400, "unknown_type"),
        ("/v1/keys/bad", {"type": "pn_counter", "op": {"increment": -1}}, 400, "invalid_operation"),
        ("/v1/keys/bad", {"type": "pn_counter"}, 400, "invalid_body"),
        ("/v1/keys/bad", {"type": "aw_set", "op": {"add": "x", "extra": 1}}, 400, "invalid_operation"),
        ("/v1/keys/" + "k" * 513, {"type": "aw_set", "op": {"add": "x"}}, 400, "invalid_key"),
        ("/v1/keys/%ff", {"type": "aw_set", "op": {"add": "x"}}, 400, "invalid_key"),
        ("/v1/keys/100%", {"type": "aw_set", "op": {"add": "x"}}, 400, "invalid_key"),
        ("/v1/keys/%4", {"type": "aw_set", "op": {"add": "x"}}, 400, "invalid_key"),
        ("/v1/keys/", {"type": "aw_set", "op": {"add": "x"}}, 400, "invalid_key"),
        ("/v1/keys/bad?quorum=1", {"type": "aw_set", "op": {"add": "x"}}, 400, "invalid_query"),
        ("/v1/keys/bad?node=node-9", {"type": "aw_set", "op": {"add": "x"}}, 503, "node_unreachable"),
        ("/v1/keys/bad", {"type": "lww_register", "op": {"assign": "x" * (1 << 20)}}, 413, "body_too_large"),
        ("/health", {}, 405, "method_not_allowed"),
        ("/nowhere", {}, 404, "not_found"),
    ],
)
def test_bad_requests_are_refused_in_one_shape(cluster, path, body, status, code):
    got_status, error = error_of(cluster.post, path, body)
    assert (got_status, error["code"]) == (status, code)
    assert error["message"]
    assert error["remedy"]


def test_a_missing_key_is_not_found_and_a_key_keeps_its_type(cluster):
    assert error_of(cluster.get, "/v1/keys/missing")[1]["code"] == "not_found"
    cluster.post("/v1/keys/typed", {"type": "pn_counter", "op": {"increment": 1}})
    wait_until(lambda: cluster.get("/v1/keys/typed?node=node-2")["value"] == 1, "the key on node-2")
    status, error = error_of(cluster.post, "/v1/keys/typed?node=node-2", {"type": "aw_set", "op": {"add": "x"}})
    assert (status, error["code"]) == (409, "type_conflict")


def test_members_and_placement_are_listed(cluster):
    def is_complete(answer):
        return {(member["id"], member["state"]) for member in answer["members"]} == {
            (name, "alive") for name in cluster.node_ids
        }

    answer = wait_until(
        lambda: is_complete(answer := cluster.get("/v1/cluster")) and answer, "all members alive", cluster.logs
    )
    assert [
        {"id": name, "address": f"127.0.0.1:{cluster.ports[name][0]}", "zone": f"zone-{name[-1]}", "state": "alive"}
        for name in cluster.node_ids
    ] == [{key: value for key, value in member.items() if key != "incarnation"} for member in answer["members"]]
    assert [(name, "reachable") for name in cluster.node_ids] == [
        (link["id"], link["state"]) for link in answer["links"]
    ]
    placement = answer["placement"]
    assert placement.pop("epoch") in range(2, 100, 2)
    assert {
        "slots": 1024,
        "replication_factor": 3,
        "slots_owned": dict.fromkeys(cluster.node_ids, 1024),
        "node_count": 3,
        "seats": [{"node": name, "zone": f"zone-{name[-1]}"} for name in cluster.node_ids],
        "change": None,
        "lost": [],
    } == placement


def test_metrics_are_listed(cluster):
    settled = ('jarvis_members{state="alive"} 3.0', 'jarvis_links{state="reachable"} 2.0')
    text = wait_until(
        lambda: all(line in (text := cluster.metrics("node-0")) for line in settled) and text, "three members"
    )
    for name in (
        "jarvis_under_replicated_keys 0.0",
        "jarvis_handoff_slots 0.0",
        "jarvis_crdt_sync_latency_seconds_bucket",
        'jarvis_storage_bytes{state="log"}',
        "jarvis_antientropy_bytes_total",
        "jarvis_database_errors_total",
    ):
        assert name in text


def test_a_dead_node_is_found_and_a_restarted_one_is_alive_again(cluster):
    def incarnation_if(state):
        members = {member["id"]: member for member in cluster.get("/v1/cluster")["members"]}
        return members["node-2"]["state"] == state and members["node-2"]["incarnation"]

    before = wait_until(lambda: incarnation_if("alive"), "node-2 to be alive", cluster.logs)
    cluster.kill("node-2")
    assert before == wait_until(lambda: incarnation_if("dead"), "node-2 to be dead", cluster.logs)
    assert 1024 == cluster.get("/v1/cluster")["placement"]["slots_owned"]["node-2"]  # For now: it may come back.
    cluster.start_node("node-2")
    assert before < wait_until(lambda: incarnation_if("alive"), "node-2 to be back", cluster.logs)
    wait_until(lambda: cluster.get("/health")["status"] == "healthy", "the cluster to be healthy", cluster.logs)


def test_nodes_that_know_one_address_find_all(tmp_path):
    with contextlib.ExitStack() as stack:
        cluster = LoopbackCluster(tmp_path)
        cluster.peers = ["node-0"]
        stack.enter_context(cluster)
        for name in cluster.node_ids:
            wait_until(
                lambda name=name: 'jarvis_links{state="reachable"} 2.0' in cluster.metrics(name),
                f"{name} to reach the others",
                cluster.logs,
            )
        wait_until(lambda: 3 == len(cluster.get("/v1/cluster")["links"]), "the backend to reach all", cluster.logs)


def test_garbage_on_the_peer_port_is_harmless(cluster):
    port = cluster.ports["node-0"][0]
    for garbage in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(4096), b"\x00\x00\x00\x01\xc1", b""):
        with socket.create_connection(("127.0.0.1", port)) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(30)
            assert connection.recv(1) == b""
    cluster.post("/v1/keys/fine?node=node-0", {"type": "pn_counter", "op": {"increment": 1}})


def test_a_second_writer_on_a_data_directory_is_refused(cluster):
    done = subprocess.run(
        command(*cluster.node_arguments("node-0")), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "another process writes there" in done.stderr


def test_a_node_with_another_secret_is_refused_and_told_so(tmp_path, cluster):
    with contextlib.ExitStack() as stack:
        stranger = LoopbackCluster(tmp_path, node_count=1)
        stranger.ports["node-1"] = cluster.ports["node-1"]
        stranger.peers = ["node-0", "node-1"]
        stack.callback(stranger.stop)
        stranger._start("node-0", [*stranger.node_arguments("node-0"), "--cluster-name", cluster.name])
        wait_until(lambda: 'jarvis_links{state="refused"} 1.0' in stranger.metrics("node-0"), "the refusal")
        assert "does not prove the cluster secret" in stranger.all_logs()


def test_sigterm_ends_everything_with_0(tmp_path):
    with LoopbackCluster(tmp_path, node_count=1) as alone:
        alone.post("/v1/keys/k", {"type": "pn_counter", "op": {"increment": 1}})
        assert alone.stop() == {"node-0": 0, "backend": 0}


def test_a_cluster_over_tls_replicates_and_takes_no_plain_peer_and_no_plain_client(tmp_path):
    with LoopbackCluster(tmp_path / "secured", tls=True) as secured, contextlib.ExitStack() as stack:
        secured.post("/v1/keys/k?node=node-0", {"type": "pn_counter", "op": {"increment": 1}})
        read_everywhere(secured, "k", 1)
        seen = secured.client.get(secured.url + "/metrics").text
        for certificate in ("peer", "authority", "api"):
            assert f'jarvis_certificate_expiry_timestamp_seconds{{certificate="{certificate}"}}' in seen
        assert 'jarvis_certificate_expiry_timestamp_seconds{certificate="peer"}' in secured.metrics("node-0")
        refused = httpx.get(secured.url.replace("https", "http") + "/health")
        assert (400, "tls_required") == code_of(refused)
        plain = LoopbackCluster(tmp_path / "plain", node_count=1)
        stack.callback(plain.stop)
        plain.ports["node-1"] = secured.ports["node-1"]
        plain.peers = ["node-0", "node-1"]
        plain.secret_file.write_text(secured.secret_file.read_text())
        plain.start_node("node-0")
        wait_until(lambda: 'jarvis_links{state="refused"} 1.0' in plain.metrics("node-0"), "the refusal", plain.logs)
        assert "it may speak only TLS" in plain.all_logs()
        secured.post("/v1/keys/k?node=node-1", {"type": "pn_counter", "op": {"increment": 1}})
        read_everywhere(secured, "k", 2)


def test_renewed_certificates_are_taken_up_by_running_processes(tmp_path):
    """The authority changes, as it does in a cluster: first both are trusted, then the new one signs."""
    with LoopbackCluster(tmp_path / "cluster", tls=True) as cluster:
        names = [*cluster.node_ids, "jarvis-backend"]
        old = cluster.authority
        new = Authority(tmp_path / "new")
        old.file.write_bytes(new.file.read_bytes() + old.file.read_bytes())
        for name in (*names, "api"):
            renewed = new.issue(*(("localhost", "127.0.0.1") if name == "api" else (name,)))
            renewed.key.replace(cluster.certificates[name].key)
            renewed.certificate.replace(cluster.certificates[name].certificate)
        cluster.kill("node-0")  # What runs takes its connections anew, with what is in the files now.
        cluster.start_node("node-0")
        cluster.wait_ready("node-0")
        cluster.client.close()
        cluster.client = httpx.Client(timeout=15, verify=ssl.create_default_context(cafile=str(new.file)))
        wait_until(lambda: cluster.get("/health")["status"] == "healthy", "the cluster to be healthy", cluster.logs)
        cluster.post("/v1/keys/k?node=node-0", {"type": "pn_counter", "op": {"increment": 1}})
        read_everywhere(cluster, "k", 1)
        assert "new certificates are in use" in cluster.all_logs()
