"""One key that real nodes created with different types while they did not see each other."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from crdt_service.client import NEVER, ApiError, Change, Client, Deletion, Write
from loadtests.cluster import LoopbackCluster, wait_until
from tests.loopback.partition import heal, start_apart
from tests.loopback.test_conflict import count


@pytest.fixture
def cluster(tmp_path):
    """Both nodes run, and neither knows the other."""
    with contextlib.ExitStack() as stack:
        cut = LoopbackCluster(tmp_path, node_count=2)
        stack.callback(cut.stop)
        start_apart(cut)
        yield cut


def read(client, cluster, key, type_name=None):
    """What each node shows of a key: type, value and further types."""
    answers = [client.read(key, node=name, type_name=type_name) for name in cluster.node_ids]
    return [(each.type, each.value, each.conflict and each.conflict.other_types) for each in answers]


def code(call, *arguments, **options):
    with pytest.raises(ApiError) as failed:
        call(*arguments, **options)
    return failed.value.code


def test_both_types_are_seen_listed_counted_written_and_settled(cluster):
    with Client(cluster.url) as client:
        for key in ("k", "l"):
            client.write(key, "lww_register", {"assign": "mine"}, node="node-0")
            client.write(key, "aw_set", {"add": "yours"}, node="node-1")
        heal(cluster)
        wait_until(
            lambda: read(client, cluster, "k") == [("lww_register", "mine", ["aw_set"])] * 2,
            "both nodes to show the register, and to name the set",
            cluster.logs,
        )
        assert [("aw_set", ["yours"], ["lww_register"])] * 2 == read(client, cluster, "k", "aw_set")
        assert [("k", "lww_register", ["aw_set"]), ("l", "lww_register", ["aw_set"])] == [
            (each.key, each.type, each.other_types)
            for each in client.keys()  # noqa: SIM118 - those of the store.
        ]
        assert [("k", "lww_register", "type_order", ["aw_set"]), ("l", "lww_register", "type_order", ["aw_set"])] == [
            (each.key, each.type, each.strategy, each.other_types) for each in client.conflicts(page_size=1)
        ]
        assert [2.0, 2.0] == [count(cluster, name, "lww_register", "type_order") for name in cluster.node_ids]
        [resolution] = client.explain("k", type_name="aw_set").conflict.resolutions
        assert "lww_register comes before aw_set in the order of types" == resolution.because

        # Who does not know of the set cannot write to it by accident, nor hide the register.
        assert "type_conflict" == code(client.write, "k", "aw_set", {"add": "z"})
        since = next(client.changes()).cursor
        written = client.write("k", "aw_set", {"add": "z"}, is_named=True, concern="all", value=False)
        assert ("aw_set", None, ["lww_register"]) == (written.type, written.value, written.conflict.other_types)
        # The feed tells of it as of any change: the ETag is that of all that the key holds.
        told = next(change for change in client.changes(cursor=since) if isinstance(change, Change))
        assert ("k", "lww_register", client.read("k").etag) == (told.key, told.type, told.etag)
        [item] = client.write_batch([Write("l", "aw_set", {"add": "z"})])
        assert "type_conflict" == item.error.code
        [item] = client.write_batch([Write("l", "aw_set", {"add": "z"})], type_name="aw_set", concern="all", value=True)
        assert (["yours", "z"], ["lww_register"]) == (item.value, item.conflict.other_types)
        assert [["yours", "z"], ["yours", "z"]] == [
            item.value for item in client.read_batch(["k", "l"], type_name="aw_set", concern="all")
        ]
        assert ["mine", "mine"] == [item.value for item in client.read_batch(["k", "l"])]

        # Either side goes alone.
        client.delete("k", type_name="lww_register", concern="all")
        assert [("aw_set", ["yours", "z"], None)] * 2 == read(client, cluster, "k")
        assert "not_found" == code(client.read, "k", type_name="lww_register")
        [item] = client.write_batch([Deletion("l")], type_name="aw_set", concern="all")
        assert ("aw_set", None) == (item.type, item.error)
        assert [("lww_register", "mine", None)] * 2 == read(client, cluster, "l")
        assert [] == list(client.conflicts())


def test_the_type_that_is_named_is_that_of_the_write(cluster):
    answer = cluster.client.post(f"{cluster.url}/v1/keys/n?type=aw_set", json={"type": "g_set", "op": {"add": "x"}})
    assert (400, "invalid_query") == (answer.status_code, answer.json()["error"]["code"])
    answer = cluster.client.get(f"{cluster.url}/v1/keys/n?type=set")
    assert (400, "invalid_query") == (answer.status_code, answer.json()["error"]["code"])


def test_of_two_creators_at_once_none_is_forgotten_and_one_is_told_at_once(tmp_path):
    with (
        LoopbackCluster(tmp_path) as cluster,
        Client(cluster.url, retry=NEVER) as client,
        ThreadPoolExecutor(2) as threads,
    ):

        def create(key, type_name, op, node):
            try:
                return client.write(key, type_name, op, node=node, concern="all")
            except ApiError as error:
                assert "type_conflict" == error.code
                return None

        both = []
        for number in range(30):
            sides = (("lww_register", {"assign": 1}, "node-0"), ("aw_set", {"add": "x"}, "node-1"))
            made = list(threads.map(partial(create, f"k{number}"), *zip(*sides, strict=True)))
            written = [each.type for each in made if each is not None]
            assert written, made
            for name in cluster.node_ids:
                shown = client.read(f"k{number}", node=name)
                others = shown.conflict.other_types if shown.conflict else []
                assert (set(written), written) == (
                    {shown.type, *others},
                    [client.read(f"k{number}", node=name, type_name=each).type for each in written],
                )
            if len(written) == 2:
                both.append(number)
                assert any(each.conflict and each.conflict.other_types for each in made), made
        assert len(both) == len(list(client.conflicts()))
        assert both, "no two of thirty were at once"
