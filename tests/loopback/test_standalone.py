"""Clustering is off: nodes know nothing of each other, and every backend sends a key to the same one of them."""

import contextlib
import json

import pytest

from loadtests.cluster import LoopbackCluster, free_port, wait_until

BACKENDS = 3
KEYS = [f"k{number}" for number in range(8)]


@pytest.fixture(scope="module")
def standing_alone(tmp_path_factory):
    """Three nodes and a backend for each zone; yield the cluster and the backends' URLs."""
    with contextlib.ExitStack() as stack:
        cluster = LoopbackCluster(tmp_path_factory.mktemp("standalone"))
        stack.callback(cluster.stop)
        config = json.loads(cluster.config_file.read_text())
        config["crdt"]["cluster_enabled"] = False
        cluster.config_file.write_text(json.dumps(config))
        for name in cluster.node_ids:
            cluster.start_node(name)
        urls = []
        for number in range(BACKENDS):
            port = free_port()
            urls.append(f"http://127.0.0.1:{port}")
            cluster.start_backend(f"backend-{number}", port, zone=f"zone-{number}")
        for url in urls:
            wait_until(lambda url=url: is_healthy(cluster, url), f"{url} to know all nodes", cluster.logs)
        yield cluster, urls


def is_healthy(cluster, url):
    nodes = [member["id"] for member in cluster.client.get(f"{url}/v1/cluster").json()["members"]]
    return sorted(nodes) == cluster.node_ids and cluster.client.get(f"{url}/health").json()["status"] == "healthy"


def test_every_backend_reads_what_every_other_wrote(standing_alone):
    cluster, urls = standing_alone
    for key in KEYS:
        for url in urls:
            body = {"type": "pn_counter", "op": {"increment": 1}}
            cluster.client.post(f"{url}/v1/keys/{key}", json=body).raise_for_status()
    read = {key: [cluster.client.get(f"{url}/v1/keys/{key}").json() for url in urls] for key in KEYS}
    assert {key: [BACKENDS] * BACKENDS for key in KEYS} == {
        key: [answer["value"] for answer in answers] for key, answers in read.items()
    }
    assert dict.fromkeys(KEYS, 1) == {key: len({answer["node"] for answer in answers}) for key, answers in read.items()}
    for url in urls:
        listed = cluster.client.get(f"{url}/v1/keys").json()["keys"]
        assert KEYS == [each["key"] for each in listed]


def test_a_key_of_a_node_that_is_away_is_written_on_no_other(standing_alone):
    cluster, urls = standing_alone
    owners = {key: cluster.client.get(f"{urls[0]}/v1/keys/{key}").json()["node"] for key in KEYS}
    away = owners[KEYS[0]]
    cluster.kill(away)

    def write():
        body = {"type": "pn_counter", "op": {"increment": 1}}
        return [cluster.client.post(f"{url}/v1/keys/{KEYS[0]}", json=body).json() for url in urls]

    answers = wait_until(lambda: [each for each in write() if "error" in each], "the node to be missed", cluster.logs)
    assert {"node_unreachable", "no_node", "outcome_unknown"} >= {each["error"]["code"] for each in answers}
    for name in set(cluster.node_ids) - {away}:
        assert 404 == cluster.client.get(f"{urls[0]}/v1/keys/{KEYS[0]}?node={name}").status_code
    cluster.start_node(away)
    cluster.wait_ready(away)
