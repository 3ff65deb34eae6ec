"""Conditional and repeated writes, batches and listings over HTTP, on real processes."""

import base64
import uuid

import pytest

from loadtests.cluster import wait_until
from tests.loopback.request import ask, code_of

INCREMENT = {"type": "pn_counter", "op": {"increment": 1}}


def assign(value):
    return {"type": "lww_register", "op": {"assign": value}}


def write(cluster, path, body, **headers):
    return ask(
        cluster, "POST", path, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


@pytest.fixture
def key():
    return f"/v1/keys/{uuid.uuid4()}"


def test_a_write_that_others_have_overtaken_is_refused(cluster, key):
    write(cluster, key + "?concern=all", assign(1))
    seen = ask(cluster, "GET", key).headers["etag"]
    second = write(cluster, key + "?concern=all", assign(2), if_match=seen)
    third = write(cluster, key + "?concern=all", assign(3), if_match=seen)
    assert 200 == second.status_code
    assert (412, "precondition_failed") == code_of(third)
    assert 2 == cluster.get(key)["value"]


def test_a_key_is_made_by_one_of_those_that_want_it_new(cluster, key):
    answers = [write(cluster, key, assign(number), if_none_match="*").status_code for number in range(3)]
    assert [200, 412, 412] == answers
    assert 0 == cluster.get(key)["value"]


def test_a_delete_of_what_is_no_longer_there_is_refused(cluster, key):
    write(cluster, key + "?concern=all", assign(1))
    seen = ask(cluster, "GET", key).headers["etag"]
    write(cluster, key + "?concern=all", assign(2))
    refused = ask(cluster, "DELETE", key, headers={"if-match": seen})
    assert (412, "precondition_failed") == code_of(refused)
    assert (
        200 == ask(cluster, "DELETE", key, headers={"if-match": ask(cluster, "GET", key).headers["etag"]}).status_code
    )


def test_a_reader_that_has_it_already_gets_no_value(cluster, key):
    write(cluster, key + "?concern=all", assign("long"))
    first = ask(cluster, "GET", key)
    again = ask(cluster, "GET", key, headers={"if-none-match": first.headers["etag"]})
    assert (304, b"", first.headers["etag"]) == (again.status_code, again.content, again.headers["etag"])
    write(cluster, key + "?concern=all", assign("new"))
    assert 200 == ask(cluster, "GET", key, headers={"if-none-match": first.headers["etag"]}).status_code


def test_all_nodes_give_the_same_etag(cluster, key):
    write(cluster, key + "?concern=all", INCREMENT)
    tags = [ask(cluster, "GET", f"{key}?node={name}").headers["etag"] for name in cluster.node_ids]
    assert 1 == len(set(tags))


def test_a_write_sent_again_counts_once(cluster, key):
    first, again = (write(cluster, key + "?concern=majority", INCREMENT, idempotency_key="try-1") for _ in range(2))
    assert (200, None) == (first.status_code, first.headers.get("idempotency-replayed"))
    assert (200, "true") == (again.status_code, again.headers.get("idempotency-replayed"))
    other = write(cluster, key, {"type": "pn_counter", "op": {"increment": 2}}, idempotency_key="try-1")
    assert (422, "idempotency_mismatch") == code_of(other)
    write(cluster, key + "?concern=all", INCREMENT, idempotency_key="try-2")
    assert 2 == cluster.get(key + "?concern=all")["value"]


def test_a_write_sent_again_through_each_node_counts_once(cluster, key):
    for name in cluster.node_ids:
        write(cluster, f"{key}?concern=all&node={name}", INCREMENT, idempotency_key="x")
    assert 1 == cluster.get(key + "?concern=all")["value"]


def test_a_batch_tells_of_each_item(cluster):
    prefix = uuid.uuid4()
    writes = [
        {"key": f"{prefix}-counter", **INCREMENT},
        {"key": f"{prefix}-counter", **INCREMENT},
        {"key": f"{prefix}-register", **assign("x")},
        {"key": f"{prefix}-register", **assign("y"), "if_match": "0" * 16},
        {"key": f"{prefix}-new", **assign("z"), "if_match": ""},
        {"key": f"{prefix}-counter", "type": "aw_set", "op": {"add": "x"}},
        {"key": f"{prefix}-register"},
    ]
    answer = cluster.post("/v1/batch/write?concern=all&value=true", {"writes": writes})["results"]
    assert [200, 200, 200, 412, 200, 409, 200] == [result["status"] for result in answer]
    assert "type_conflict" == answer[5]["error"]["code"]
    assert [write["key"] for write in writes] == [result["key"] for result in answer]
    keys = [f"{prefix}-{name}" for name in ("counter", "register", "new", "none")]
    found = cluster.post("/v1/batch/read", {"keys": keys})["results"]
    assert [(200, 2), (404, None), (200, "z"), (404, None)] == [
        (result["status"], result.get("value")) for result in found
    ]


def test_a_batch_sent_again_counts_once(cluster):
    body = {"writes": [{"key": f"again-{number % 3}", **INCREMENT} for number in range(6)]}
    for _ in range(3):
        assert 200 == write(cluster, "/v1/batch/write?concern=all", body, idempotency_key="batch-1").status_code
    found = cluster.post("/v1/batch/read?concern=all", {"keys": [f"again-{number}" for number in range(3)]})
    assert [2, 2, 2] == [result["value"] for result in found["results"]]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("write", {"writes": []}, 400, "invalid_body"),
        ("write", {"writes": [{"key": "k"}] * 257}, 400, "invalid_body"),
        ("write", {"writes": [{"key": "k", "type": "pn_counter"}]}, 400, "invalid_operation"),
        ("write", {"writes": [{"key": "", **INCREMENT}]}, 400, "invalid_key"),
        ("write", {"writes": [{"key": "k", **INCREMENT, "if_match": "abc"}]}, 400, "invalid_body"),
        ("write", {"writes": [{"key": "k", **INCREMENT, "colour": 1}]}, 400, "invalid_body"),
        ("write", {"writes": [{"key": "k", **assign("x" * (5 << 20))}]}, 413, "body_too_large"),
        ("read", {"keys": ["k" * 513]}, 400, "invalid_key"),
        ("read", {"keys": [1]}, 400, "invalid_body"),
    ],
)
def test_a_malformed_batch_does_nothing(cluster, path, body, status, code):
    assert (status, code) == code_of(ask(cluster, "POST", f"/v1/batch/{path}", json=body))


@pytest.mark.parametrize(
    "headers",
    [
        {"if-match": "abc"},
        {"if-match": '"abc"'},
        {"if-match": "*"},
        {"if-none-match": '"0123456789abcdef"'},
        {"if-match": '"0123456789abcdef"', "if-none-match": "*"},
        {"idempotency-key": "k" * 129},
        {"idempotency-key": "two words"},
        {"idempotency-key": ""},
    ],
)
def test_a_header_that_is_not_understood_refuses_the_write(cluster, key, headers):
    assert (400, "invalid_header") == code_of(ask(cluster, "POST", key, json=INCREMENT, headers=headers))
    assert 404 == ask(cluster, "GET", key).status_code


def test_keys_are_listed_in_pages_without_gap_or_repetition(cluster):
    prefix = f"list-{uuid.uuid4()}/"
    names = sorted(f"{prefix}{number}" for number in range(25))
    writes = [{"key": name, **INCREMENT} for name in names]
    cluster.post("/v1/batch/write?concern=all", {"writes": writes})
    ask(cluster, "DELETE", f"/v1/keys/{prefix.replace('/', '%2F')}7")
    listed, cursor = [], ""
    while cursor is not None:
        page = cluster.get(f"/v1/keys?limit=4&prefix={prefix}" + (f"&cursor={cursor}" if cursor else ""))
        assert len(page["keys"]) <= 4
        assert [] == page["unanswered"]
        listed += [entry["key"] for entry in page["keys"]]
        cursor = page["cursor"]
    # A counter cannot be deleted.
    assert names == listed


def test_a_deleted_key_is_not_listed(cluster):
    prefix = f"gone-{uuid.uuid4()}-"
    for name in ("a", "b"):
        write(cluster, f"/v1/keys/{prefix}{name}?concern=all", assign(name))
    ask(cluster, "DELETE", f"/v1/keys/{prefix}a?concern=all")
    wait_until(
        lambda: [f"{prefix}b"] == [entry["key"] for entry in cluster.get(f"/v1/keys?prefix={prefix}")["keys"]],
        "the deleted key to be gone",
        cluster.logs,
    )


@pytest.mark.parametrize(
    "cursor", ["!", "Y", base64.b64encode(b"\xff").decode(), base64.b64encode(b"k" * 513).decode()]
)
def test_a_cursor_that_is_none_is_refused(cluster, cursor):
    assert (400, "invalid_cursor") == code_of(ask(cluster, "GET", "/v1/keys", params={"cursor": cursor}))
