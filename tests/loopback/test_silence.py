"""A process that stands still: what its clients are told, and that a short pause changes nothing but their answers."""

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from loadtests.cluster import ROOT, LoopbackCluster, command, wait_until
from tests.loopback.request import ask

INCREMENT = {"type": "pn_counter", "op": {"increment": 1}}
KEYS = [f"k{number}" for number in range(12)]
# After these a write may be there.
UNKNOWN = {"outcome_unknown", "concern_not_met"}
_ESTABLISHED = "01"


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A cluster whose membership suspects nobody before three seconds, as the chart has it."""
    with LoopbackCluster(tmp_path_factory.mktemp("calm"), gossip_interval_seconds=10) as running:
        for key in KEYS:
            running.post(f"/v1/keys/{key}?concern=all", INCREMENT)
        yield running


@contextlib.contextmanager
def stopped(cluster, *names):
    processes = [cluster.processes[name] for name in names]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def connections(cluster):
    """The open connections to all nodes, by both their ends."""
    ports = {f"{port:04X}" for port, _ in cluster.ports.values()}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {(row[1], row[2]) for row in rows if row[3] == _ESTABLISHED and row[1].partition(":")[2] in ports}


def members(cluster):
    return {(member["id"], member["state"], member["incarnation"]) for member in cluster.get("/v1/cluster")["members"]}


def wait_healthy(cluster):
    wait_until(lambda: cluster.get("/health")["status"] == "healthy", "the cluster to be healthy", cluster.logs)
    wait_until(
        lambda: all(cluster.probe(name, "/health").json()["status"] == "healthy" for name in cluster.node_ids),
        "every node to be healthy",
        cluster.logs,
    )
    count = len(cluster.node_ids) ** 2  # To the other nodes, and from the backend.
    wait_until(lambda: len(connections(cluster)) == count, f"{count} connections", cluster.logs)


def outcome(answer):
    return 200 if answer.status_code == 200 else answer.json()["error"]["code"]


class Load(threading.Thread):
    """Asks one thing of each key in turn until told to end, and counts outcomes and applied increments."""

    def __init__(self, cluster, method, query):
        super().__init__()
        self.outcomes = Counter()
        self.applied, self.maybe = Counter(), Counter()
        self._cluster, self._method, self._query = cluster, method, query
        self._ending = threading.Event()

    def run(self):
        body = {"json": INCREMENT} if self._method == "POST" else {}
        while not self._ending.is_set():
            for key in KEYS:
                result = outcome(ask(self._cluster, self._method, f"/v1/keys/{key}{self._query}", **body))
                self.outcomes[result] += 1
                self.applied[key] += result == 200
                self.maybe[key] += result in UNKNOWN
                time.sleep(0.005)

    def end(self):
        self._ending.set()
        self.join()


@contextlib.contextmanager
def loads(cluster):
    every = {
        (method, query): Load(cluster, method, query)
        for method in ("GET", "POST")
        for query in ("", "?concern=majority")
    }
    for load in every.values():
        load.start()
    try:
        yield every
    finally:
        for load in every.values():
            load.end()


@pytest.mark.parametrize("seconds", [0.6, 2.0])
def test_a_pause_changes_neither_members_nor_connections(calm, seconds):
    wait_healthy(calm)
    before = members(calm), connections(calm)
    with loads(calm) as every:
        time.sleep(0.5)
        with stopped(calm, "node-1"):
            time.sleep(seconds)
        wait_healthy(calm)
    assert before == (members(calm), connections(calm))
    for (method, _), load in every.items():
        allowed = {200, "outcome_unknown"} if method == "POST" else {200}
        assert (True, set()) == (load.outcomes[200] > 0, load.outcomes.keys() - allowed)


def test_who_stands_still_for_long_is_left_out_and_nothing_is_lost_or_doubled(calm):
    wait_healthy(calm)
    start = {key: calm.get(f"/v1/keys/{key}?concern=all")["value"] for key in KEYS}
    with loads(calm) as every, stopped(calm, "node-1"):
        time.sleep(3)
        counts = {name: Counter(load.outcomes) for name, load in every.items()}
        links = {link["id"]: link["state"] for link in calm.get("/v1/cluster")["links"]}
        assert ("unreachable", "reachable") == (links["node-1"], links["node-0"])
        time.sleep(2)
        # By now everybody knows, so nothing fails any more.
        later = {name: every[name].outcomes - counts[name] for name in every}
    assert {name: {200} for name in every} == {name: set(outcomes) for name, outcomes in later.items()}
    wait_healthy(calm)
    for key in KEYS:
        applied = sum(load.applied[key] for load in every.values() if load.outcomes and load._method == "POST")
        maybe = sum(load.maybe[key] for load in every.values())
        value = calm.get(f"/v1/keys/{key}?concern=all")["value"] - start[key]
        assert applied <= value <= applied + maybe


def test_without_nodes_every_request_is_answered_while_they_stand_still(calm):
    wait_healthy(calm)
    before = members(calm), connections(calm)
    requests = [
        ("GET", "/v1/keys/k0", None),
        ("GET", "/v1/keys/k1?concern=majority", None),
        ("POST", "/v1/keys/k2", INCREMENT),
        ("POST", "/v1/keys/k3?concern=majority", INCREMENT),
        ("DELETE", "/v1/keys/none", None),
        ("GET", "/v1/keys", None),
        ("GET", "/v1/conflicts", None),
        ("POST", "/v1/batch/read", {"keys": KEYS}),
        ("POST", "/v1/batch/write", {"writes": [{"key": key, **INCREMENT} for key in KEYS]}),
    ]
    told = {}

    def tell(method, path, body):
        answer = ask(calm, method, path, json=body) if body else ask(calm, method, path)
        results = answer.json().get("results")
        told[method, path] = {result["error"]["code"] for result in results} if results else {outcome(answer)}

    with stopped(calm, *calm.node_ids):
        for _ in range(2):  # The first time nothing is known yet.
            threads = [threading.Thread(target=tell, args=request) for request in requests]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            codes = set().union(*told.values())
            assert (len(requests), set()) == (len(told), codes - {"outcome_unknown", "node_unreachable", "no_node"})
        assert {"no_node"} == codes
        assert 503 == ask(calm, "GET", "/ready").status_code
        assert 503 == ask(calm, "GET", "/health").status_code
        assert {"unreachable"} == {link["state"] for link in calm.get("/v1/cluster")["links"]}
    wait_healthy(calm)
    assert before[0] == members(calm)


def test_a_disk_that_takes_seconds_is_slow_and_not_silent(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    slow = site / "slow"
    (site / "sitecustomize.py").write_text(
        "import os, time\n"
        "sync = os.fdatasync\n"
        "def fdatasync(descriptor):\n"
        f"    time.sleep(3 if os.path.exists({str(slow)!r}) else 0)\n"
        "    return sync(descriptor)\n"
        "os.fdatasync = fdatasync\n"
    )

    class SlowCluster(LoopbackCluster):
        def command_of(self, name, arguments):
            path = f"PYTHONPATH={site}{os.pathsep}{ROOT}"
            return (["env", path] if name == "node-1" else []) + command(*arguments)

    with SlowCluster(tmp_path / "cluster", gossip_interval_seconds=10) as cluster:
        wait_healthy(cluster)
        before = members(cluster), connections(cluster)
        slow.touch()
        answer = ask(cluster, "POST", "/v1/keys/k?node=node-1", json=INCREMENT)
        assert (200, 1) == (answer.status_code, answer.json()["value"])
        for number in range(6):
            for method, body in (("POST", INCREMENT), ("GET", None)):
                more = {"json": body} if body else {}
                answer = ask(cluster, method, f"/v1/keys/k?concern=majority&node=node-{2 * (number % 2)}", **more)
                assert 200 == answer.status_code
        slow.unlink()
        assert before == (members(cluster), connections(cluster))
