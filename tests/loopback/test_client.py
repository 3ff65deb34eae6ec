"""The client against real processes, and the example of the document."""

import re
from pathlib import Path

import pytest

from crdt_service.client import ApiError, AsyncClient, Client, Deletion, NotFoundError, Reset, Write

API = (Path(__file__).parents[2] / "docs/api.md").read_text()


@pytest.fixture
def client(cluster):
    with Client(cluster.url) as opened:
        yield opened


@pytest.mark.parametrize("key", [".", "..", "a/../b", "%2e", "ä b?c#d&e", "\0\n", "x" * 512])
def test_every_key_is_written_read_and_deleted(client, key):
    written = client.write(key, "lww_register", {"assign": [key]}, concern="all")
    assert (key, "lww_register", [key]) == (written.key, written.type, written.value)
    assert [key] == client.read(key, concern="majority").value
    assert (key, None) == ((deleted := client.delete(key, concern="all")).key, deleted.value)
    with pytest.raises(NotFoundError):
        client.read(key)


def test_a_write_without_its_value_is_there_all_the_same(client):
    assert client.write("silent", "g_set", {"add": "x"}, concern="all", value=False).value is None
    assert ["x"] == client.read("silent").value


def test_a_conflict_is_explained_and_listed(client, cluster):
    client.write("price", "mv_register", {"assign": 1}, node="node-0")
    explained = client.explain("price", node="node-0")
    assert (1, 0, []) == (explained.value, explained.conflict.places, explained.conflict.resolutions)
    assert [] == list(client.conflicts("price", page_size=1))


def test_an_error_says_what_the_service_says(client):
    client.write("typed", "pn_counter", {"increment": 1}, concern="all")
    with pytest.raises(ApiError) as raised:
        client.write("typed", "g_set", {"add": "x"})
    assert ("type_conflict", 409) == (raised.value.code, raised.value.status)
    assert re.fullmatch("[0-9a-f]{32}", raised.value.request_id)


def test_a_node_that_is_not_there_is_asked_a_bounded_number_of_times(cluster):
    pauses = []
    with Client(cluster.url, sleep=pauses.append) as client, pytest.raises(ApiError) as raised:
        client.write("nowhere", "g_set", {"add": "x"}, node="node-9")
    assert ("node_unreachable", 3) == (raised.value.code, len(pauses))


def test_a_write_on_a_condition_is_done_only_while_it_holds(client):
    first = client.write("leader", "lww_register", {"assign": "a"}, concern="all", if_match="")
    assert re.fullmatch("[0-9a-f]{16}", first.etag)
    assert first.etag == client.read("leader").etag
    second = client.write("leader", "lww_register", {"assign": "b"}, concern="all", if_match=first.etag)
    for stale in (first.etag, ""):
        with pytest.raises(ApiError) as raised:
            client.write("leader", "lww_register", {"assign": "c"}, if_match=stale)
        assert ("precondition_failed", 412) == (raised.value.code, raised.value.status)
    assert (second.etag, "b") == ((shown := client.read("leader", concern="all")).etag, shown.value)


def test_a_write_that_has_a_name_counts_once(client):
    writes = [
        client.write("once", "pn_counter", {"increment": 1}, concern="all", idempotency_key="agent-7/1")
        for _ in range(2)
    ]
    assert [False, True] == [written.replayed for written in writes]
    assert 1 == client.read("once", concern="all").value


def test_a_batch_writes_reads_and_deletes(client):
    writes = [Write(f"batch/{number}", "g_set", {"add": "x"}) for number in range(3)]
    done = client.write_batch([*writes, Write("batch/reg", "lww_register", {"assign": 1})], concern="all")
    assert [200] * 4 == [item.status for item in done]
    done = client.write_batch([Deletion("batch/reg"), Write("batch/0", "aw_set", {"add": "y"})], concern="all")
    assert [None, "type_conflict"] == [item.error and item.error.code for item in done]
    found = client.read_batch(["batch/1", "batch/reg"], concern="all")
    assert [(200, ["x"]), (404, None)] == [(item.status, item.value) for item in found]
    assert ["batch/0", "batch/1", "batch/2"] == [listed.key for listed in client.keys("batch/", page_size=2)]


def test_the_cluster_is_shown(client, cluster):
    shown = client.cluster()
    assert cluster.node_ids == [member.id for member in shown.members]
    assert 1024 == shown.placement.slots
    assert sorted(cluster.node_ids) == sorted(client.owners("any/key").owners)
    assert {"seen": 3, "reachable": 3} == client.health().members


async def test_tasks_share_a_client(cluster):
    async with AsyncClient(cluster.url) as client:
        await client.write("shared", "pn_counter", {"increment": 2}, concern="all")
        assert 2 == (await client.read("shared")).value
        assert [] == [conflict async for conflict in client.conflicts()]


async def test_changes_are_followed_and_gone_on_with(cluster):
    async with AsyncClient(cluster.url) as client:
        changes = client.changes("feed/")
        opened = await anext(changes)
        assert isinstance(opened, Reset)
        await client.write("feed/a", "g_counter", {"increment": 1}, concern="all")
        change = await anext(changes)
        assert ("feed/a", "g_counter", False) == (change.key, change.type, change.deleted)
        await changes.aclose()
        etag = (await client.write("feed/b", "g_set", {"add": "x"}, concern="all")).etag
        await client.write("other", "g_set", {"add": "x"}, concern="all")
        seen = {}
        async for told in client.changes("feed/", cursor=opened.cursor):
            seen[told.key] = told.etag
            if told.key == "feed/b":
                break
        assert etag == seen["feed/b"]
        assert {"feed/a", "feed/b"} == seen.keys()


def test_a_blocking_client_follows_changes(client):
    changes = client.changes("blocking/")
    assert isinstance(next(changes), Reset)
    client.write("blocking/a", "lww_register", {"assign": 1}, concern="all")
    assert "blocking/a" == next(changes).key


def test_the_example_of_the_document_runs(cluster, capsys):
    example = re.search(r"```python\n(.*?)```", API, re.DOTALL)[1]
    exec(example.replace("http://localhost:8000", cluster.url), {})  # noqa: S102
    assert "3\nnot_found\n" == capsys.readouterr().out
