"""The change feed of real backends over real nodes."""

import pytest

from loadtests.cluster import LoopbackCluster, free_port, wait_until
from tests.loopback.feed import WRITE, Feed, write


@pytest.fixture(scope="module")
def other(cluster):
    """The URL of another backend."""
    port = free_port()
    cluster.start_backend("other", port)
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: cluster.client.get(url + "/health").json()["status"] == "healthy", "it to be healthy")
    return url


def test_a_write_on_any_node_is_told(cluster):
    with Feed(cluster.url, prefix="any.") as feed:
        assert "text/event-stream" == feed.response.headers["content-type"]
        for node in cluster.node_ids:
            write(cluster, f"any.{node}", node)
        told = dict(feed.read_until(*(f"any.{node}" for node in cluster.node_ids)))
    assert {"pn_counter"} == {data["type"] for data in told.values()}
    assert set(cluster.node_ids) >= {data["node"] for data in told.values()}


def test_a_deletion_is_told(cluster):
    cluster.post("/v1/keys/gone", {"type": "aw_set", "op": {"add": "a"}})
    with Feed(cluster.url, prefix="gone") as feed:
        cluster.client.delete(cluster.url + "/v1/keys/gone").raise_for_status()
        [*_, (_, last)] = feed.read_until("gone")
    assert ("gone", "", "", True) == (last["key"], last["type"], last["etag"], last["deleted"])


def test_other_prefixes_are_not_told(cluster):
    with Feed(cluster.url, prefix="mine.") as feed:
        for key in ("yours.1", "mine", "mine.1", "yours.2", "mine.2"):
            write(cluster, key)
        assert {"mine.1", "mine.2"} == {key for key, _ in feed.read_until("mine.1", "mine.2")}


@pytest.mark.parametrize("where", ["header", "query"])
def test_who_comes_back_is_told_what_happened_meanwhile(cluster, where):
    with Feed(cluster.url, prefix=f"back.{where}.") as feed:
        write(cluster, f"back.{where}.1")
        feed.read_until(f"back.{where}.1")
        cursor = feed.cursor
    for number in range(2, 12):
        write(cluster, f"back.{where}.{number}")
    given = {"headers": {"last-event-id": cursor}} if where == "header" else {"cursor": cursor}
    with Feed(cluster.url, prefix=f"back.{where}.", **given) as feed:
        feed.read_until(*(f"back.{where}.{number}" for number in range(2, 12)))


def test_another_backend_goes_on_where_the_first_was(cluster, other):
    """It has followed nobody until then, so it asks the nodes; a third client then finds the same in its ring."""
    with Feed(cluster.url, prefix="both.") as feed:
        write(cluster, "both.1")
        feed.read_until("both.1")
        cursor = feed.cursor
    for number in range(2, 8):
        write(cluster, f"both.{number}", url=cluster.url)
    for url in (other, other, cluster.url):
        with Feed(url, prefix="both.", cursor=cursor) as feed:
            feed.read_until(*(f"both.{number}" for number in range(2, 8)))
            write(cluster, "both.8")
            feed.read_until("both.8")


def test_both_backends_tell_of_a_write(cluster, other):
    with Feed(cluster.url, prefix="two.") as first, Feed(other, prefix="two.") as second:
        write(cluster, "two.1")
        assert first.read_until("two.1")[-1][1]["etag"] == second.read_until("two.1")[-1][1]["etag"]


@pytest.mark.parametrize("cursor", ["", "nonsense", "kgGQ=", "x" * 9000])
def test_what_is_no_cursor_is_refused(cluster, cursor):
    answer = cluster.client.get(cluster.url + "/v1/changes", params={"cursor": cursor})
    assert 400 == answer.status_code
    assert answer.json()["error"]["code"] in {"invalid_cursor", "invalid_query"}


def test_head_of_a_feed_ends(cluster):
    answer = cluster.client.head(cluster.url + "/v1/changes")
    assert (200, "text/event-stream") == (answer.status_code, answer.headers["content-type"])


def test_open_feeds_are_counted_and_their_polls_are_no_slow_queries(cluster):
    with Feed(cluster.url, prefix="counted.") as feed:
        write(cluster, "counted.1")
        feed.read_until("counted.1")

        def scrape():
            text = cluster.client.get(cluster.url + "/metrics").text
            return text if "\njarvis_feeds 1.0\n" in text else None  # Those of other tests go soon.

        metrics = wait_until(scrape, "one feed to be counted", cluster.logs)
    assert 'operation="write"' in metrics
    assert 'operation="changes"' not in metrics


def test_feeds_end_with_a_hint_when_their_backend_stops(cluster):
    port = free_port()
    cluster.start_backend("brief", port)
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: cluster.client.get(url + "/ready").is_success, "it to be ready")
    with Feed(url, prefix="brief.") as feed:
        cluster.processes["brief"].terminate()
        assert ("end", {"reason": "stopping"}) == feed.next()
        with pytest.raises(StopIteration):
            feed.next()
        cursor = feed.cursor
    assert 0 == cluster.processes["brief"].wait()
    write(cluster, "brief.1")
    with Feed(cluster.url, prefix="brief.", cursor=cursor) as feed:
        feed.read_until("brief.1")


def test_a_node_that_was_killed_resets_what_is_its_own_and_nothing_else(tmp_path):
    with LoopbackCluster(tmp_path) as cluster, Feed(cluster.url) as feed:
        cursor = feed.cursor
        cluster.kill("node-1")
        wait_until(lambda: cluster.alive() == ["node-0", "node-2"], "the loss to be known", cluster.logs)
        cluster.post("/v1/keys/meanwhile?node=node-0", WRITE)
        feed.read_until("meanwhile")
        cluster.start_node("node-1")
        events = []
        while not events or events[-1][0] != "reset":
            events.append(feed.next())
        assert {"reason": "node_restarted", "node": "node-1"} == events[-1][1]
        cluster.wait_ready("node-1")
        cluster.post("/v1/keys/after?node=node-1", WRITE)
        feed.read_until("after")
        with Feed(cluster.url, cursor=cursor) as again:
            events = [again.next()]
            while events[-1] != ("change", events[-1][1]) or events[-1][1]["key"] != "after":
                events.append(again.next())
        assert [("node_restarted", "node-1")] == [
            (data["reason"], data["node"]) for name, data in events if name == "reset"
        ]
        assert "meanwhile" in {data["key"] for name, data in events if name == "change"}
