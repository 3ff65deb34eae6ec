"""Feeds over a hub that follows scripted nodes: who is told what, and what becomes of those who are slow or away."""

import asyncio
import random

import msgspec
import pytest

from crdt_service.access.room import Room
from crdt_service.api.asgi import send_stream
from crdt_service.api.feed import hub as hub_module
from crdt_service.api.feed.cursor import Place, read_cursor, write_cursor
from crdt_service.api.feed.feed import Feed
from crdt_service.api.feed.hub import Hub
from crdt_service.api.feed.replay import replay
from crdt_service.api.feed.ring import EVENTS_MAX
from crdt_service.kernel.error import OutcomeUnknownError, ServiceError, UnreachableError
from crdt_service.telemetry.context import RequestContext, request
from crdt_service.wire.message import Change, ChangesReply, decode_reply, decode_request, encode_message


class Node:
    """A node's changes, answered as the protocol says."""

    def __init__(self, node_id):
        self.node_id = node_id
        self.requests = 0
        self.is_cut = False
        self.epoch = 0
        self.changed = asyncio.Event()
        self.restart()

    def restart(self):
        """Forget all, and answer nobody who waits."""
        self.epoch += 1
        self.forgotten = self.newest = 0
        self.log = []
        self.changed.set()

    def change(self, key, digest="d"):
        self.newest += 1
        self.log.append(Change(self.newest, key, "pn_counter" if digest else "", digest.encode()))
        self.changed.set()

    def forget(self):
        self.forgotten, self.log = self.newest, []

    async def request(self, build):
        self.requests += 1
        request = decode_request(encode_message(build(1)))
        if self.is_cut:
            raise UnreachableError(self.node_id)
        is_gap = request.epoch != self.epoch or not self.forgotten <= request.after <= self.newest
        if not is_gap and request.after == self.newest and request.wait_ms:
            self.changed.clear()
            await self.changed.wait()
            if request.epoch != self.epoch:
                raise OutcomeUnknownError(self.node_id)
        first = request.after - self.forgotten
        changes = [] if is_gap else self.log[first : first + request.limit]
        upto = changes[-1].number if changes else self.newest
        return decode_reply(encode_message(ChangesReply(1, self.epoch, upto, changes, is_gap)))


class World:
    """Three nodes and a hub; feeds are opened, read and closed."""

    def __init__(self):
        self.nodes = {name: Node(name) for name in ("a", "b", "c")}
        self.owners = ()
        self.hub = Hub(dict(self.nodes), random.Random(1), lambda slot: self.owners)
        self.free = asyncio.Semaphore(8)

    async def open(self, prefix="", cursor=None):
        subscriber = self.hub.enter(prefix)
        await self.hub.wait_ready()
        feed = Feed(self.hub, subscriber, self.free, None if cursor is None else read_cursor(cursor))
        return feed, parse(await anext(feed))[-1]["id"]


@pytest.fixture
async def world():
    world = World()
    yield world
    world.hub.stop()


def parse(piece):
    """Events as dicts of their fields."""
    events = []
    for block in piece.decode().split("\n\n")[:-1]:
        fields = (line.partition(": ") for line in block.split("\n"))
        events.append({name: value for name, _, value in fields if name})
    return events


async def read(feed, count=1):
    """The next `count` events: of a change the key, of a reset (reason, node)."""
    told = []
    while len(told) < count:
        for event in parse(await asyncio.wait_for(anext(feed), 30)):
            data = msgspec.json.decode(event["data"])
            told.append(data["key"] if event["event"] == "change" else (data["reason"], data["node"]))
    return told


async def test_an_event_tells_key_type_etag_and_node(world):
    feed, _ = await world.open()
    world.nodes["b"].change("k", "\x0f")
    event = parse(await anext(feed))[0]
    assert "change" == event["event"]
    assert {"key": "k", "type": "pn_counter", "etag": "0f", "node": "b"} == msgspec.json.decode(event["data"])
    assert Place(1, 1) == read_cursor(event["id"])["b"]


async def test_a_deleted_key_is_told_as_such(world):
    feed, _ = await world.open()
    world.nodes["b"].change("k", "")
    event = parse(await anext(feed))[0]
    assert {"key": "k", "type": "", "etag": "", "node": "b", "deleted": True} == msgspec.json.decode(event["data"])


async def test_a_feed_is_told_of_its_prefix_alone(world):
    feeds = {prefix: (await world.open(prefix))[0] for prefix in ("", "a", "a/", "b/", "é")}
    for key in ("a/1", "b/1", "é/1", "a", "a/2"):
        world.nodes["a"].change(key)
    expected = {"": ["a/1", "b/1", "é/1", "a", "a/2"], "a": ["a/1", "a", "a/2"], "a/": ["a/1", "a/2"]}
    expected |= {"b/": ["b/1"], "é": ["é/1"]}
    assert expected == {prefix: await read(feed, len(expected[prefix])) for prefix, feed in feeds.items()}


async def test_nodes_are_not_followed_in_the_name_of_the_first_request(world):
    asked = []
    ask = world.nodes["a"].request
    world.nodes["a"].request = lambda build: (asked.append(request.get()), ask(build))[1]
    request.set(RequestContext("first"))
    await world.open()
    assert {None} == set(asked)


async def test_nodes_are_followed_once_for_all_feeds(world):
    feeds = [(await world.open())[0] for _ in range(50)]
    asked = {name: node.requests for name, node in world.nodes.items()}
    world.nodes["a"].change("k")
    assert [["k"]] * 50 == [await read(feed) for feed in feeds]
    assert all(node.requests <= asked[name] + 2 for name, node in world.nodes.items())


async def test_a_feed_goes_on_after_the_event_it_had_last(world):
    feed, _ = await world.open()
    world.nodes["a"].change("k1")
    [event] = parse(await anext(feed))
    await feed.aclose()
    world.nodes["b"].change("k2")
    again, _ = await world.open(cursor=event["id"])
    assert ["k2"] == await read(again)


async def test_a_feed_goes_on_at_a_backend_that_followed_nobody_until_then(world):
    _, cursor = await world.open()
    for node_id in ("a", "b", "b"):
        world.nodes[node_id].change(f"x/{node_id}{world.nodes[node_id].newest}")
    world.nodes["a"].change("y/1")
    other = World()
    other.hub.channels.update(world.nodes)
    feed, _ = await other.open("x/", cursor)
    assert ["x/a0", "x/b0", "x/b1"] == await read(feed, 3)
    world.nodes["c"].change("x/c")
    assert ["x/c"] == await read(feed)
    other.hub.stop()


async def test_of_what_a_node_forgot_the_client_is_told_and_of_the_others_nothing_is_lost(world):
    _, cursor = await world.open()
    world.nodes["a"].change("lost")
    world.nodes["a"].forget()
    world.nodes["b"].change("kept")
    other = World()
    other.hub.channels.update(world.nodes)
    feed, _ = await other.open(cursor=cursor)
    assert [("changes_lost", "a"), "kept"] == await read(feed, 2)
    other.hub.stop()


async def test_a_node_that_started_again_is_told_to_those_who_listen_and_to_those_who_come_back(world):
    feed, cursor = await world.open()
    world.nodes["a"].change("k")
    assert ["k"] == await read(feed)
    world.nodes["b"].restart()
    assert [("node_restarted", "b")] == await read(feed)
    again, _ = await world.open(cursor=cursor)
    assert ["k", ("node_restarted", "b")] == await read(again, 2)


async def test_a_node_that_joins_is_told(world):
    feed, _ = await world.open()
    world.nodes["d"] = world.hub.channels["d"] = Node("d")
    assert [("node_joined", "d")] == await read(feed)
    world.nodes["d"].change("k")
    assert ["k"] == await read(feed)


async def test_a_node_that_cannot_be_asked_is_told_to_who_comes_back(world):
    _, cursor = await world.open()
    world.nodes["a"].change("k")
    other = World()
    other.hub.channels.update(world.nodes)
    await other.open()
    world.nodes["a"].is_cut = True
    feed, _ = await other.open(cursor=cursor)
    assert [("node_unreachable", "a")] == await read(feed)
    other.hub.stop()


async def test_a_reader_that_falls_behind_is_told_and_goes_on_with_the_newest(world):
    feed, _ = await world.open()
    other, _ = await world.open()
    for number in range(EVENTS_MAX + 10):
        world.nodes["a"].change(f"k{number}")
    while world.hub.ring.next < EVENTS_MAX + 10:
        await anext(other)
    assert [("fell_behind", None)] == await read(feed)
    world.nodes["a"].change("new")
    assert ["new"] == await read(feed)


async def test_a_slow_reader_of_a_quiet_prefix_has_missed_nothing(world):
    feed, _ = await world.open("quiet/")
    busy, _ = await world.open("busy/")
    waiting = asyncio.create_task(read(feed))
    for number in range(EVENTS_MAX + 10):
        world.nodes["a"].change(f"busy/{number}")
    while world.hub.ring.next < EVENTS_MAX + 10:
        await anext(busy)
    world.nodes["a"].change("quiet/1")
    assert ["quiet/1"] == await waiting


async def test_a_quiet_feed_shows_that_it_is_alive_and_where_it_is(world, monkeypatch):
    monkeypatch.setattr(hub_module, "PULSE_SECONDS", 1)
    feed, cursor = await world.open("quiet/")
    other, _ = await world.open()
    world.nodes["a"].change("k")
    await read(other)
    piece = await asyncio.wait_for(anext(feed), 30)
    assert piece.startswith(b": live\n")
    assert (Place(1, 0), Place(1, 1)) == (read_cursor(cursor)["a"], read_cursor(parse(piece)[0]["id"])["a"])


async def test_feeds_end_when_the_backend_stops(world):
    feed, _ = await world.open()
    last = asyncio.create_task(anext(feed))
    await asyncio.sleep(0)
    world.hub.stop()
    [event] = parse(await asyncio.wait_for(last, 30))
    assert ("end", True) == (event["event"], int(event["retry"]) > 0)
    with pytest.raises(StopAsyncIteration):
        await anext(feed)
    with pytest.raises(ServiceError, match="stopping"):
        world.hub.enter("")


async def test_there_are_only_so_many_feeds(world, monkeypatch):
    monkeypatch.setattr(world.hub, "_room", Room("feeds", 3))
    first, _ = await world.open()
    await world.open()
    with pytest.raises(ServiceError) as refusal:
        world.hub.enter("")
    assert "overloaded" == refusal.value.code
    await first.aclose()
    await world.open()


async def test_without_a_node_there_is_no_feed():
    hub = Hub({}, random.Random(1))
    hub.enter("")
    with pytest.raises(ServiceError) as refusal:
        await hub.wait_ready()
    assert "no_node" == refusal.value.code
    hub.stop()


async def test_nobody_is_followed_when_there_has_been_no_feed_for_some_time(world, monkeypatch):
    monkeypatch.setattr(hub_module, "LINGER_SECONDS", 1)
    feed, _ = await world.open()
    running = world.hub._running
    await feed.aclose()
    await asyncio.wait_for(running, 30)
    assert {} == world.hub.places
    again, _ = await world.open()
    world.nodes["a"].change("k")
    assert ["k"] == await read(again)


async def test_a_client_that_leaves_before_the_first_piece_leaves_the_hub(world):
    feed, _ = await world.open()
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message["type"])

    await send_stream(receive, send, 200, feed, content_type=b"text/event-stream")
    assert (["http.response.start"], 0) == (sent, world.hub.count)


async def test_a_cursor_of_nodes_that_are_gone_is_taken(world):
    _, cursor = await world.open()
    places = {**read_cursor(cursor), "gone": Place(5, 5)}
    world.nodes["a"].change("k")
    feed, _ = await world.open(cursor=write_cursor(places))
    assert ["k"] == await read(feed)


async def test_only_owners_are_heard_and_a_new_one_with_what_it_said_before(world):
    world.owners = ("a", "b")
    feed, _ = await world.open()
    for name, digest in (("a", "1"), ("c", "2"), ("b", "1"), ("a", "3")):
        world.nodes[name].change("k", digest)
        world.nodes[name].change(f"after {digest} of {name}")
    told = []
    while len(told) < 5:
        told += [msgspec.json.decode(event["data"]) for event in parse(await asyncio.wait_for(anext(feed), 30))]
    assert [["31", "33"], []] == [
        [event["etag"] for event in told if event["key"] == "k" and event["node"] == name] for name in ("a", "c")
    ]
    world.owners = ("b", "c")
    told = [msgspec.json.decode(event["data"]) for event in parse(await asyncio.wait_for(anext(feed), 30))]
    assert ("k", "32", "c") in [(event["key"], event["etag"], event["node"]) for event in told]


async def test_a_replay_ends_with_what_the_hub_told_last_and_not_with_what_a_node_that_lags_says(world):
    feed, cursor = await world.open()
    for name in ("b", "c"):
        world.nodes[name].change("k", "old")
    assert ["k"] == await read(feed)
    world.nodes["a"].change("k", "new")
    assert ["k"] == await read(feed)
    merge = world.hub.merge
    target = {name: merge.places[name] for name in ("a", "b", "c")}
    pieces = [piece async for piece in replay(world.nodes, world.free, "", read_cursor(cursor), target, known=merge)]
    told = [msgspec.json.decode(event["data"]) for piece in pieces for event in parse(piece)]
    assert ("k", b"new".hex()) == (told[-1]["key"], told[-1]["etag"])
