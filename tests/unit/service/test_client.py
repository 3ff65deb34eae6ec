"""The client over a scripted network: what is sent, what is sent again, and what comes back as which error."""

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path

import httpx
import msgspec
import pytest

from crdt_service.api.errors import CODES
from crdt_service.api.feed.event import ChangeView, ResetView
from crdt_service.client import (
    NEVER,
    ApiError,
    AsyncClient,
    Change,
    Client,
    Deletion,
    NotFoundError,
    Reset,
    Retry,
    Write,
    read_token_file,
)
from crdt_service.client.request import path_of
from crdt_service.client.view import Batch, Cluster, ConflictPage, Health, Key, KeyPage, Owners
from tests.unit.service.double import make_all_routes

ROOT = Path(__file__).parents[3]
KEY = {"key": "k", "type": "pn_counter", "node": "node-0", "value": 3}
VIEWS = {
    "read_key": Key,
    "write_key": Key,
    "delete_key": Key,
    "list_keys": KeyPage,
    "write_batch": Batch,
    "read_batch": Batch,
    "list_conflicts": ConflictPage,
    "show_placement": Owners,
    "show_cluster": Cluster,
    "show_health": Health,
}
LOST = httpx.RemoteProtocolError("the server closed the connection")
REFUSED = httpx.ConnectError("connection refused")


def answer(body=KEY, status=200, **headers):
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def error(code, **headers):
    body = {"error": {"code": code, "message": "m", "remedy": "r", "request_id": "service-1"}}
    return answer(body, CODES[code].status, x_request_id="service-1", **headers)


class Network:
    """Answers in order with what it was given, and keeps what was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []
        self.pauses = []

    def client(self, **options):
        transport = httpx.MockTransport(self)
        return Client("http://jarvis", transport=transport, sleep=self.pauses.append, **options)

    def __call__(self, request):
        self.asked.append(request)
        reply = self.answers.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def write(client):
    return client.write("k", "pn_counter", {"increment": 3})


def test_a_write_is_sent_as_the_api_takes_it():
    network = Network(answer(), answer())
    client = network.client()
    shown = client.write("a b/é", "pn_counter", {"increment": 3}, concern="all", node="node-1", value=False)
    assert ("k", "pn_counter", "node-0", 3) == (shown.key, shown.type, shown.node, shown.value)
    request = network.asked[0]
    assert ("POST", b"/v1/keys/a%20b%2F%C3%A9?concern=all&node=node-1&value=false") == (
        request.method,
        request.url.raw_path,
    )
    assert {"type": "pn_counter", "op": {"increment": 3}} == json.loads(request.content)
    assert "application/json" == request.headers["content-type"]
    write(client)
    ids = [request.headers["x-request-id"] for request in network.asked]
    assert 2 == len(set(ids))


@pytest.mark.parametrize(("key", "path"), [(".", "/v1/keys/%2E"), ("..", "/v1/keys/%2E%2E"), ("a.b", "/v1/keys/a.b")])
def test_a_key_of_dots_is_no_place_in_the_path(key, path):
    network = Network(answer())
    network.client().read(key)
    assert path == path_of("keys", key)
    assert (path + "?concern=one").encode() == network.asked[0].url.raw_path


@pytest.mark.parametrize(
    "failure",
    [REFUSED, *map(error, ("no_node", "node_unreachable", "syncing", "behind", "stopping", "overloaded"))],
    ids=str,
)
def test_a_write_that_did_nothing_is_made_again_under_its_id(failure):
    network = Network(failure, failure, answer())
    assert 3 == write(network.client()).value
    assert 3 == len(network.asked)
    assert 1 == len({request.headers["x-request-id"] for request in network.asked})


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (LOST, "outcome_unknown"),
        (httpx.ReadTimeout("timed out"), "outcome_unknown"),
        (httpx.WriteError("broken pipe"), "outcome_unknown"),
        (answer({"kind": "Status"}, 503), "unexpected_answer"),
        (answer({}, 502), "unexpected_answer"),
        *((error(code), code) for code in ("outcome_unknown", "concern_not_met", "internal", "storage_full")),
        *((error(code), code) for code in ("type_conflict", "invalid_operation", "limit_exceeded")),
    ],
)
def test_a_write_that_may_have_been_applied_or_never_will_is_not_made_again(failure, code):
    network = Network(failure)
    with pytest.raises(ApiError) as raised:
        write(network.client())
    assert (code, 1, []) == (raised.value.code, len(network.asked), network.pauses)


@pytest.mark.parametrize("call", [lambda client: client.delete("k"), write])
def test_every_call_that_changes_something_counts_as_a_write(call):
    network = Network(LOST)
    with pytest.raises(ApiError) as raised:
        call(network.client())
    assert "outcome_unknown" == raised.value.code


@pytest.mark.parametrize(
    "failure",
    [LOST, REFUSED, httpx.ReadTimeout("timed out"), error("concern_not_met"), error("internal"), answer({}, 502)],
)
def test_a_read_is_made_again_whatever_became_of_it(failure):
    network = Network(failure, answer())
    assert 3 == network.client().read("k").value
    assert 2 == len(network.asked)


def test_attempts_are_bounded_and_pauses_grow_up_to_a_bound():
    network = Network(*[REFUSED] * 9)
    client = network.client(retry=Retry(attempts_max=9, first_seconds=1, seconds_max=5), randomness=Highest())
    with pytest.raises(ApiError) as raised:
        client.read("k")
    assert ("unreachable", None) == (raised.value.code, raised.value.status)
    assert [1, 2, 4, 5, 5, 5, 5, 5] == network.pauses
    assert [] == Network(REFUSED).pauses


class Highest(random.Random):
    def uniform(self, a, b):
        return b


def test_pauses_are_drawn():
    plans = {Retry().plan(1, ApiError("overloaded", ""), False, random.Random(seed)) for seed in range(9)}
    assert 9 == len(plans)
    assert all(0 <= pause <= 0.1 for pause in plans)


def test_the_service_says_how_long_to_wait():
    network = Network(error("overloaded", retry_after="2"), answer({}, 429, retry_after="1"), answer())
    write(network.client())
    assert [2, 1] == [int(pause) for pause in network.pauses]


def test_a_longer_wait_than_allowed_is_left_to_the_caller():
    network = Network(error("overloaded", retry_after="60"))
    with pytest.raises(ApiError) as raised:
        network.client().read("k")
    assert (60, []) == (raised.value.retry_after_seconds, network.pauses)


def test_no_call_is_made_again_where_none_shall_be():
    network = Network(REFUSED)
    with pytest.raises(ApiError):
        network.client(retry=NEVER).read("k")
    assert [] == network.pauses


def test_an_error_carries_all_that_the_service_says():
    network = Network(error("type_conflict"))
    with pytest.raises(ApiError) as raised:
        write(network.client())
    found = raised.value
    assert ("type_conflict", "m", "r", 409, "service-1") == (
        found.code,
        found.message,
        found.remedy,
        found.status,
        found.request_id,
    )
    assert "type_conflict: m (r) [status 409, request service-1]" == str(found)


def test_a_missing_key_is_an_error_of_its_own():
    with pytest.raises(NotFoundError):
        Network(error("not_found")).client().read("k")


@pytest.mark.parametrize("reply", [answer({"key": 1}), answer([]), httpx.Response(200, text="<html>")])
def test_an_answer_that_is_none_of_the_service_is_said_to_be(reply):
    with pytest.raises(ApiError) as raised:
        write(Network(reply).client())
    assert "unexpected_answer" == raised.value.code


def test_an_unhealthy_service_is_no_error():
    health = {"status": "unhealthy", "environment": "production", "members": {"seen": 0, "reachable": 0}, "checks": []}
    assert "unhealthy" == Network(answer(health, 503)).client().health().status


def test_the_token_is_read_anew_and_shown_nowhere(tmp_path, caplog):
    file = tmp_path / "token"
    network = Network(answer(), error("internal"))
    client = network.client(token=read_token_file(file), retry=NEVER)
    file.write_text("first-token\n")
    client.read("k")
    file.write_text("second-token\n")
    with caplog.at_level("DEBUG"), pytest.raises(ApiError) as raised:
        client.read("k")
    sent = [request.headers["authorization"] for request in network.asked]
    assert ["Bearer first-token", "Bearer second-token"] == sent
    assert "token" not in f"{raised.value!r} {raised.value} {client!r} {caplog.text}"


def test_conflicts_are_read_page_by_page():
    conflict = {"key": "k", "node": "n", "field": [], "type": "mv_register", "rule": "r", "strategy": "lww"}
    conflict |= {"because": "b", "undecided": [], "sibling_count": 2, "siblings": []}
    pages = [{"conflicts": [conflict] * 2, "cursor": "next", "unanswered": []}, {"conflicts": [], "cursor": None}]
    network = Network(answer(pages[0]), answer({**pages[1], "unanswered": []}))
    assert ["k", "k"] == [found.key for found in network.client().conflicts("k", page_size=2)]
    assert ["limit=2&prefix=k", "cursor=next&limit=2&prefix=k"] == [
        "&".join(sorted(str(request.url.query, "ascii").split("&"))) for request in network.asked
    ]


@pytest.mark.parametrize(
    ("if_match", "header"),
    [("8c0f2d6be21a7c55", ("if-match", '"8c0f2d6be21a7c55"')), ("", ("if-none-match", "*"))],
)
def test_conditions_and_names_are_sent_as_headers(if_match, header):
    network = Network(answer(etag='"0123456789abcdef"', idempotency_replayed="true"), answer())
    client = network.client()
    shown = client.write("k", "pn_counter", {"increment": 3}, if_match=if_match, idempotency_key="agent-7/1")
    assert ("0123456789abcdef", True) == (shown.etag, shown.replayed)
    shown = client.delete("k", if_match=if_match, idempotency_key="agent-7/2")
    assert ("", False) == (shown.etag, shown.replayed)
    assert [header[1]] * 2 == [request.headers[header[0]] for request in network.asked]
    assert ["agent-7/1", "agent-7/2"] == [request.headers["idempotency-key"] for request in network.asked]


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.write("k", "pn_counter", {"increment": 3}, idempotency_key="1"),
        lambda client: client.delete("k", idempotency_key="1"),
        lambda client: client.write_batch([Deletion("k")], idempotency_key="1"),
        lambda client: client.read_batch(["k"]),
    ],
)
def test_a_write_with_a_name_is_made_again_under_it_whatever_became_of_it(call):
    network = Network(LOST, error("outcome_unknown"), answer({**KEY, "results": []}))
    call(network.client())
    assert 3 == len(network.asked)
    assert 1 == len({(request.headers.get("idempotency-key"), request.content) for request in network.asked})


def test_a_batch_is_sent_item_by_item():
    items = [{"status": 200, **KEY, "etag": "0123456789abcdef"}]
    items.append({"status": 404, "key": "gone", "error": {"code": "not_found", "message": "m", "remedy": "r"}})
    network = Network(answer({"results": items}))
    done, refused = network.client().write_batch(
        [Write("k", "pn_counter", {"increment": 3}, if_match=""), Deletion("gone")], value=True
    )
    assert b"/v1/batch/write?concern=one&value=true" == network.asked[0].url.raw_path
    sent = [{"key": "k", "type": "pn_counter", "op": {"increment": 3}, "if_match": ""}, {"key": "gone"}]
    assert {"writes": sent} == json.loads(network.asked[0].content)
    assert (200, 3, None) == (done.status, done.value, done.error)
    assert (404, "not_found", None) == (refused.status, refused.error.code, refused.value)


def test_keys_are_read_page_by_page():
    listed = {"key": "k", "type": "g_set", "etag": "0123456789abcdef"}
    pages = [{"keys": [], "cursor": "next", "unanswered": []}, {"keys": [listed], "cursor": None, "unanswered": []}]
    network = Network(*map(answer, pages))
    assert ["k"] == [found.key for found in network.client().keys("k")]
    assert ["next"] == [request.url.params["cursor"] for request in network.asked[1:]]


OPENING = b"retry: 500\n: live\nid: here\n\n"


def change(key, cursor):
    data = json.dumps({"key": key, "type": "g_set", "etag": "0123456789abcdef", "node": "node-0"})
    return f"id: {cursor}\nevent: change\ndata: {data}\n\n".encode()


def feed(*pieces):
    def send():
        for piece in pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    return httpx.Response(200, content=send(), headers={"content-type": "text/event-stream"})


def test_a_feed_is_read_however_it_is_cut():
    body = OPENING + change("a\u2028b", "1") + b'id: 2\nevent: reset\ndata: {"reason":"fell_behind","node":null}\n\n'
    for size in (1, 7, len(body)):
        cut = [body[start : start + size] for start in range(0, len(body), size)]
        changes = Network(feed(*cut)).client().changes("a")
        assert Reset("opened", None, cursor="here") == next(changes)
        assert Change("a\u2028b", "g_set", "0123456789abcdef", "node-0", cursor="1") == next(changes)
        assert Reset("fell_behind", None, cursor="2") == next(changes)


def test_a_lost_feed_goes_on_where_it_was():
    end = b'retry: 4000\nevent: end\ndata: {"reason":"stopping"}\n\n'
    network = Network(
        feed(OPENING, LOST),
        feed(OPENING, change("a", "1"), change("half", "2")[:20], LOST),
        REFUSED,
        feed(OPENING.replace(b"here", b"1"), change("b", "2"), end),
        error("stopping"),
        feed(OPENING, change("c", "3")),
    )
    changes = network.client(randomness=Highest()).changes("p")
    assert ["here", "1", "2", "3"] == [next(changes).cursor for _ in range(4)]
    asked = [request.url.params.get("cursor") for request in network.asked]
    assert [None, "here", "1", "1", "2", "2"] == asked
    assert [0.1, 0.1, 0.2, 4.0, 0.1] == network.pauses


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([error("invalid_cursor")], "invalid_cursor"),
        ([REFUSED] * 4, "unreachable"),
        ([feed(b"event: change\ndata: {}\n\n")], "unexpected_answer"),
        ([feed(b"x" * (1 << 20), b"x")], "unexpected_answer"),
    ],
)
def test_a_feed_that_cannot_go_on_says_so(answers, code):
    network = Network(*answers)
    with pytest.raises(ApiError) as raised:
        next(network.client().changes())
    assert (code, []) == (raised.value.code, network.answers)


async def test_the_asynchronous_feed_does_the_same():
    async def send():
        for piece in (OPENING, change("a", "1")):
            yield piece

    answers = [httpx.Response(200, content=send()) for _ in range(2)]
    pauses = []

    async def pause(seconds):
        pauses.append(seconds)

    transport = httpx.MockTransport(Network(*answers))
    async with AsyncClient("http://jarvis", transport=transport, sleep=pause) as client:
        changes = client.changes()
        assert ["here", "1", "1"] == [(await anext(changes)).cursor for _ in range(3)]
        await changes.aclose()
    assert [0.5] == pauses


async def test_the_asynchronous_client_does_the_same():
    network = Network(REFUSED, answer(), error("not_found"))

    async def pause(seconds):
        network.pauses.append(seconds)
        await asyncio.sleep(0)

    async with AsyncClient("http://jarvis", transport=httpx.MockTransport(network), sleep=pause) as client:
        assert 3 == (await client.write("k", "pn_counter", {"increment": 3})).value
        with pytest.raises(NotFoundError):
            await client.read("k")
    assert 1 == len(network.pauses)


def test_both_clients_have_the_same_methods():
    public = [{name for name in vars(kind) if not name.startswith("_")} for kind in (Client, AsyncClient)]
    assert public[0] == public[1]


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_has_the_members_that_the_api_shows(name):
    route = next(route for route in make_all_routes() if route.name == name)
    assert members(route.result) == members(VIEWS[name])


def test_events_have_the_members_that_a_feed_tells():
    of_events = {"cursor"}
    for event, view in ((ChangeView, Change), (ResetView, Reset)):
        assert {*event.__struct_fields__} == {*view.__struct_fields__} - of_events


def members(view):
    """Each struct within a view as the names of its members, less what a key has from headers."""
    _, components = msgspec.json.schema_components((view,))
    of_headers = {"Key": {"etag", "replayed"}}
    return sorted(
        sorted(component["properties"].keys() - of_headers.get(name, set())) for name, component in components.items()
    )


def test_the_client_needs_nothing_of_the_service():
    script = "import sys, crdt_service.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert set() == modules & {"uvicorn", "uvloop", "pycrdt", "prometheus_client", "cryptography"}
    rooms = {name.split(".")[1] for name in modules if name.startswith("crdt_service.")}
    assert {"client"} == rooms
