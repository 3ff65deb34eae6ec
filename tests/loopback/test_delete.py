"""Deleting a key over HTTP, on real processes."""

import pytest

from loadtests.cluster import wait_until
from tests.loopback.request import code_of


def delete(cluster, path):
    return cluster.client.delete(cluster.url + path)


def find(cluster, path):
    return cluster.client.get(cluster.url + path)


def count_keys(cluster, name, state):
    label = f'jarvis_keys{{state="{state}"}} '
    return next(float(line.split()[-1]) for line in cluster.metrics(name).splitlines() if line.startswith(label))


@pytest.mark.parametrize(
    ("type_name", "op"),
    [
        ("aw_set", {"add": "x"}),
        ("lww_register", {"assign": None}),
        ("mv_register", {"assign": 1}),
        ("ew_flag", {"enable": True}),
        ("graph", {"add_vertex": "a"}),
        ("map", {"update": {"f": {"type": "pn_counter", "op": {"increment": 1}}}}),
        ("workflow", {"create": {"states": ["a"], "initial": "a", "transitions": []}}),
    ],
)
def test_a_deleted_key_is_missing_everywhere_and_can_be_written_anew(cluster, type_name, op):
    path = f"/v1/keys/delete-{type_name}"
    written = cluster.post(path + "?concern=all", {"type": type_name, "op": op})
    assert 200 == delete(cluster, path + "?concern=all").status_code
    for name in cluster.node_ids:
        wait_until(
            lambda name=name: find(cluster, f"{path}?node={name}").status_code == 404, f"404 on {name}", cluster.logs
        )
    assert 404 == delete(cluster, path).status_code
    assert 1 <= count_keys(cluster, cluster.node_ids[0], "vacant")
    assert written["value"] == cluster.post(path, {"type": type_name, "op": op})["value"]


@pytest.mark.parametrize(
    ("type_name", "op"),
    [
        ("pn_counter", {"increment": 1}),
        ("g_set", {"add": "x"}),
        ("document", {"insert": {"text": "t", "at": 0, "value": "x"}}),
    ],
)
def test_what_cannot_be_deleted_says_so_and_stays(cluster, type_name, op):
    path = f"/v1/keys/stays-{type_name}"
    cluster.post(path, {"type": type_name, "op": op})
    reply = delete(cluster, path)
    assert (409, "not_deletable") == code_of(reply)
    assert type_name == cluster.get(path)["type"]


@pytest.mark.parametrize(
    ("type_name", "fill", "emptying", "empty"),
    [
        ("ew_flag", {"enable": True}, {"disable": True}, False),
        ("aw_set", {"add": "x"}, {"remove": "x"}, []),
        ("map", {"update": {"f": {"type": "aw_set", "op": {"add": "x"}}}}, {"remove": "f"}, {}),
        ("graph", {"add_vertex": "x"}, {"remove_vertex": "x"}, {"vertices": [], "edges": []}),
    ],
)
def test_what_was_emptied_reads_as_empty_on_every_node_until_it_is_deleted(cluster, type_name, fill, emptying, empty):
    path = f"/v1/keys/emptied-{type_name}"
    cluster.post(path, {"type": type_name, "op": fill})
    assert empty == cluster.post(f"{path}?concern=all", {"type": type_name, "op": emptying})["value"]
    assert [empty] * len(cluster.node_ids) == [cluster.get(f"{path}?node={name}")["value"] for name in cluster.node_ids]
    assert [path.rpartition("/")[2]] == [
        each["key"] for each in cluster.get(f"/v1/keys?prefix=emptied-{type_name}")["keys"]
    ]
    assert 200 == delete(cluster, f"{path}?concern=all").status_code
    assert [404] * len(cluster.node_ids) == [
        find(cluster, f"{path}?node={name}").status_code for name in cluster.node_ids
    ]
