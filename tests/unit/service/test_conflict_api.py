"""Conflicts over HTTP: the real application and router over real stores, without a network between them."""

import base64
import json
from types import SimpleNamespace

import msgspec
import pytest

from crdt_service.api.application import Application
from crdt_service.api.router import Router
from crdt_service.kernel.error import UnreachableError
from crdt_service.loops.answer import Answerer
from crdt_service.membership.placement import Placement
from crdt_service.replication.replica import Replica
from crdt_service.resolution.policy import Policy, Rule
from crdt_service.wire.message import decode_reply, decode_request, encode_message
from tests.unit.service.double import NullObserver, make_all_routes
from tests.unit.service.test_conflicts import NOON, Writer

POLICY = Policy([Rule("crdt.conflict_rules[0]", "max", prefix="n/")])


class StoreChannel:
    unreachable = frozenset()

    def __init__(self, node_id, store):
        self.node_id = self.replica = node_id
        self._answerer = Answerer(
            node_id,
            store,
            committer=None,
            replica=Replica(f"{node_id}~1"),
            exchange=SimpleNamespace(),
            transfer=SimpleNamespace(check_synced=lambda key: None, kept=None),
            placer=SimpleNamespace(check_serving=lambda **_: None),
            collector=SimpleNamespace(vote=None, show_tombstones=None, purge=None),
            epoch=1,
        )
        self.is_cut = False

    async def request(self, build):
        if self.is_cut:
            raise UnreachableError(self.node_id)
        request = decode_request(encode_message(build(1)))
        return decode_reply(encode_message(self._answerer.answer(request)))


class Cluster:
    def __init__(self, node_count=2):
        self.writers = {f"node-{number}": Writer(POLICY) for number in range(node_count)}
        self.channels = {name: StoreChannel(name, writer.store) for name, writer in self.writers.items()}
        directory = SimpleNamespace(channels=self.channels, peers=list)
        members = SimpleNamespace(placement=Placement(dict.fromkeys(self.channels, ""), 3), members=self._members)
        self.observer = NullObserver()
        routes = make_all_routes(Router(directory, members))
        self.application = Application(routes, self.observer)

    def _members(self):
        return [SimpleNamespace(id=name, state="alive") for name in self.channels]

    async def call(self, path, query="", method="GET"):
        sent = []
        scope = {"raw_path": path.encode(), "query_string": query.encode(), "method": method, "headers": []}

        async def receive():
            return {"type": "http.request", "body": b"{}"}

        async def send(message):
            sent.append(message)

        await self.application(scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])

    async def get(self, path, query=""):
        status, body = await self.call(path, query)
        assert status == 200, body
        return body


@pytest.fixture
def cluster():
    made = Cluster()
    for key, name in (("n/1", "node-0"), ("n/3", "node-0"), ("n/2", "node-1"), ("n/3", "node-1")):
        made.writers[name].conflict(key)
    return made


async def test_a_read_tells_a_decided_value_from_a_plain_one(cluster):
    cluster.writers["node-0"].assign("n/plain", 5)

    plain = await cluster.get("/v1/keys/n/plain", "node=node-0")
    decided = await cluster.get("/v1/keys/n/1", "node=node-0")

    assert {"key": "n/plain", "type": "mv_register", "value": 5, "node": "node-0"} == plain
    conflict = {"places": 1, "strategies": ["max"]}
    assert {"key": "n/1", "type": "mv_register", "value": 2, "node": "node-0", "conflict": conflict} == decided


async def test_one_key_is_explained(cluster):
    explained = await cluster.get("/v1/keys/n/1", "node=node-0&explain=true")

    (resolution,) = explained["conflict"]["resolutions"]
    assert (2, 2, "max", "crdt.conflict_rules[0]") == (
        explained["value"],
        *(resolution[name] for name in ("value", "strategy", "rule")),
    )
    assert ["node-0", "node-1"] == [sibling["node"] for sibling in resolution["siblings"]]
    unexplained = await cluster.get("/v1/keys/n/1", "node=node-0&explain=false")
    assert {"places": 1, "strategies": ["max"]} == unexplained["conflict"]


async def test_a_listing_merges_what_all_nodes_hold(cluster):
    listing = await cluster.get("/v1/conflicts", "prefix=n/")

    assert [("n/1", "node-0"), ("n/2", "node-1"), ("n/3", "node-0")] == [
        (item["key"], item["node"]) for item in listing["conflicts"]
    ]
    assert (None, []) == (listing["cursor"], listing["unanswered"])
    first = listing["conflicts"][0]
    assert {
        *("key", "node", "field", "type", "rule", "strategy", "because", "undecided"),
        *("sibling_count", "siblings", "value"),
    } == first.keys()


async def test_pages_follow_one_another_by_cursor(cluster):
    seen, cursor = [], ""
    while cursor is not None:
        page = await cluster.get("/v1/conflicts", "limit=1" + (f"&cursor={cursor}" if cursor else ""))
        seen += [item["key"] for item in page["conflicts"]]
        assert len(page["conflicts"]) == 1
        cursor = page["cursor"]
    assert ["n/1", "n/2", "n/3"] == seen


async def test_a_node_that_does_not_answer_is_named(cluster):
    cluster.channels["node-1"].is_cut = True
    listing = await cluster.get("/v1/conflicts")
    assert (["n/1", "n/3"], ["node-1"]) == ([item["key"] for item in listing["conflicts"]], listing["unanswered"])

    cluster.channels["node-0"].is_cut = True
    status, body = await cluster.call("/v1/conflicts")
    assert (503, "no_node") == (status, body["error"]["code"])


async def test_a_new_assignment_by_one_who_saw_the_siblings_ends_the_conflict(cluster):
    writer = cluster.writers["node-0"]
    writer.assign("n/1", 7, "node-0~1", NOON + 1, seen=True)

    assert "conflict" not in await cluster.get("/v1/keys/n/1", "node=node-0")
    assert ["n/2", "n/3"] == [item["key"] for item in (await cluster.get("/v1/conflicts"))["conflicts"]]


def cursor(value):
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(value)).decode()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("limit=0", "limit: '0'"),
        ("limit=1001", "limit: '1001'"),
        ("limit=-1", "limit: '-1'"),
        ("limit=ten", "limit: 'ten'"),
        ("limit=1e3", "limit: '1e3'"),
        ("limit=", "limit: ''"),
        ("limit=%D9%A1", "limit: '\u0661'"),
        ("limit=" + "9" * 5000, "limit: '9999999999"),
        ("limit=1&limit=2", "give it once"),
        ("colour=blue", "use prefix, limit, cursor"),
        ("node=node-0", "use prefix, limit, cursor"),
        ("prefix=%ff", "percent-encode"),
        ("prefix=" + "k" * 513, "give at most 512 bytes"),
        ("prefix=" + "%C3%A9" * 257, "give at most 512 bytes"),
        ("prefix=" + "k" * 10**6, "give at most 512 bytes"),
        ("&".join(["prefix=a"] * 17), "not understood"),
        ("cursor=", "cursor: it is none"),
        ("cursor=%21%21", "cursor: it is none"),
        ("cursor=abc", "cursor: it is none"),
        ("cursor=" + "A" * 4097, "give at most 4096 bytes"),
        ("cursor=" + cursor(7), "cursor: it is none"),
        ("cursor=" + cursor(["k", [], 128]), "cursor: it is none"),
        ("cursor=" + cursor(["k", [""] * 9, 8]), "cursor: it is none"),
        ("cursor=" + cursor(["", [], 7]), "cursor: it is none"),
        ("cursor=" + cursor(["k" * 513, [], 7]), "cursor: it is none"),
        ("cursor=" + cursor(["k", [], 7]) + "x", "cursor: it is none"),
        ("cursor=" + base64.b64encode(b"\x91" * 3000).decode(), "cursor: it is none"),
    ],
)
async def test_a_bad_query_is_refused_with_its_reason(cluster, query, says):
    status, body = await cluster.call("/v1/conflicts", query)

    assert (400, body["error"]["code"]) in {(status, "invalid_query"), (status, "invalid_cursor")}
    assert says in f"{body['error']['message']} ({body['error']['remedy']})"


@pytest.mark.parametrize("query", ["explain=yes", "explain=", "explain=true&explain=true", "explain=TRUE"])
async def test_explain_is_true_or_false(cluster, query):
    status, body = await cluster.call("/v1/keys/n/1", query)

    assert (400, "invalid_query") == (status, body["error"]["code"])


@pytest.mark.parametrize(
    ("path", "query", "method", "status", "code"),
    [
        ("/v1/conflicts", "", "POST", 405, "method_not_allowed"),
        ("/v1/conflicts/", "", "GET", 404, "not_found"),
        ("/v1/keys/k", "explain=true", "POST", 400, "invalid_query"),
        ("/v1/keys/none", "explain=true", "GET", 404, "not_found"),
    ],
)
async def test_what_is_not_there_is_refused(cluster, path, query, method, status, code):
    got, body = await cluster.call(path, query, method)

    assert (status, code) == (got, body["error"]["code"])


async def test_requests_are_reported_by_route(cluster):
    await cluster.call("/v1/conflicts")
    await cluster.call("/v1/conflicts", "limit=0")

    assert [("/v1/conflicts", 200), ("/v1/conflicts", 400)] == [call[1:3] for call in cluster.observer.calls]
