"""What every answer of the API has in common, on real processes."""

import http.client
import json

import pytest

from tests.loopback.request import ask, code_of

WRITE = {"type": "pn_counter", "op": {"increment": 1}}


def test_an_answer_carries_the_requests_id_or_a_new_one(cluster):
    given = ask(cluster, "GET", "/v1/cluster", headers={"x-request-id": "agent-7/1"})
    first, second = (ask(cluster, "GET", "/nowhere") for _ in range(2))
    assert "agent-7/1" == given.headers["x-request-id"]
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.headers["x-request-id"] == first.json()["error"]["request_id"]


@pytest.mark.parametrize("bad", ["has space", "x" * 129, "é"])
def test_an_id_that_no_log_should_hold_is_replaced(cluster, bad):
    answer = ask(cluster, "GET", "/v1/cluster", headers={"x-request-id": bad.encode()})
    assert 200 == answer.status_code
    assert bad != answer.headers["x-request-id"]


def test_a_wrong_method_names_the_right_ones(cluster):
    answer = ask(cluster, "PUT", "/v1/keys/k", json=WRITE)
    assert (405, "DELETE, GET, HEAD, POST") == (answer.status_code, answer.headers["allow"])


def test_head_answers_like_get_without_the_body(cluster):
    cluster.post("/v1/keys/head?concern=all", WRITE)
    head, get = (ask(cluster, method, "/v1/keys/head") for method in ("HEAD", "GET"))
    assert (200, b"") == (head.status_code, head.content)
    assert get.headers["content-type"] == head.headers["content-type"]


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip", "identity, gzip"])
def test_a_compressed_body_is_refused_unread(cluster, coding):
    answer = ask(cluster, "POST", "/v1/keys/bomb", content=b"\x1f\x8b" * 1000, headers={"content-encoding": coding})
    assert (415, "unsupported_encoding") == code_of(answer)
    assert 404 == ask(cluster, "GET", "/v1/keys/bomb").status_code


@pytest.mark.parametrize("coding", [("transfer-encoding", "gzip, chunked"), ("content-encoding", "gzip")])
def test_a_coding_that_is_not_read_is_refused_wherever_it_is_named(cluster, coding):
    connection = http.client.HTTPConnection("127.0.0.1", cluster.api_port)
    connection.putrequest("POST", "/v1/keys/coded")
    connection.putheader("content-encoding", "identity")
    connection.putheader(*coding)
    body = json.dumps(WRITE).encode()
    if coding[0] == "transfer-encoding":
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    else:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    assert (415, "unsupported_encoding") == (answer.status, json.loads(answer.read())["error"]["code"])
    connection.close()
    assert 404 == ask(cluster, "GET", "/v1/keys/coded").status_code


def test_a_keys_owners_are_shown_whether_or_not_it_exists(cluster):
    shown = cluster.get("/v1/placement/no%2Fsuch%20key")
    assert "no/such key" == shown["key"]
    assert sorted(cluster.node_ids) == sorted(shown["owners"])
    assert 0 <= shown["slot"] < 1024
