"""The last event of a key is its last state, though nodes that do not own it take writes of it."""

from concurrent.futures import ThreadPoolExecutor

from loadtests.cluster import LoopbackCluster, wait_until
from tests.loopback.feed import Feed, write

KEYS = [f"last.{number:03}" for number in range(120)]


def test_the_last_event_of_a_key_that_two_nodes_write_at_once_is_its_last_state(tmp_path):
    with (
        LoopbackCluster(tmp_path, node_count=5, replication_factor=3) as cluster,
        ThreadPoolExecutor(2) as pool,
        Feed(cluster.url) as feed,
    ):
        writers = cluster.node_ids[:2]

        def values():
            return [cluster.client.get(f"{cluster.url}/v1/keys/{key}?concern=all").json()["value"] for key in KEYS]

        for key in KEYS:
            list(pool.map(lambda node, key=key: write(cluster, key, node), writers))
        wait_until(lambda: set(values()) == {2}, "both writes of each key on all of its owners")
        for number in range(20):
            write(cluster, f"end.{number}")
        told = {key: data["etag"] for key, data in feed.read_until(*KEYS, *(f"end.{number}" for number in range(20)))}
        held = {key: cluster.client.get(f"{cluster.url}/v1/keys/{key}").headers["etag"].strip('"') for key in KEYS}
        assert held == {key: told[key] for key in KEYS}
