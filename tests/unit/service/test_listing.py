"""Keys in order: of one node from its index, of several as one listing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.api.router import Router
from crdt_service.kernel.slot import SLOTS, slot_of
from crdt_service.replication import listing
from crdt_service.replication.listing import answer_list, merge_keys
from crdt_service.store.index import KeyIndex
from crdt_service.store.store import Address
from crdt_service.wire.message import ListedKey, ListReply, ListRequest, Tombstone
from tests.unit.service.side import Side
from tests.unit.service.test_batch import ChannelTo, Node, ask, running

KEYS = st.text("ab\0ü𝄞", min_size=1, max_size=4)


def build(side):
    for slot in side.store.index.missing():
        side.store.index.build(slot, side.store.slots[slot])


def walk(side, limit=1000, prefix=""):
    """All pages."""
    pages, after = [], ""
    while True:
        reply = answer_list(side.store, ListRequest(1, prefix, after, limit))
        pages.append([listed.key for listed in reply.keys])
        if reply.upto is None:
            return pages
        after = reply.upto


@given(
    steps=st.lists(st.tuples(st.sampled_from(("write", "delete", "purge", "drop", "build")), KEYS), max_size=30),
    prefix=st.text("ab", max_size=2),
    limit=st.integers(1, 3),
)
def test_the_index_follows_the_store_whenever_it_was_built(steps, prefix, limit):
    side = Side("a")
    live = set()
    for verb, key in steps:
        if verb == "write":
            side.write(key, "aw_set", b'{"add": "x"}')
            live.add(key)
        elif verb == "delete" and key in live:
            side.write(key, "aw_set", b'{"clear": true}')
            live.discard(key)
        elif verb == "purge" and key in side.store.vacant:
            side.store.bury(Tombstone(1, side.store.encode_key(key)))
        elif verb == "drop":
            side.store.drop(slot_of(key))
            live = {other for other in live if slot_of(other) != slot_of(key)}
        elif verb == "build":
            build(side)
    build(side)
    pages = walk(side, limit, prefix)
    assert sorted(key for key in live if key.startswith(prefix)) == [key for page in pages for key in page]
    assert all(len(page) <= limit for page in pages)


def test_an_index_that_nobody_asked_for_holds_nothing():
    index = KeyIndex()
    index.add(0, "k")
    index.remove(0, "k")
    index.clear(0)
    assert (SLOTS, []) == (len(index.missing()), list(index.walk("", "")))


def test_a_page_passes_over_so_many_deleted_keys_and_no_more(monkeypatch):
    monkeypatch.setattr(listing, "VACANT_KEYS_MAX", 5)
    side = Side("a")
    for number in range(20):
        side.write(f"{number:02}", "aw_set", b'{"add": "x"}')
        if number % 10:
            side.write(f"{number:02}", "aw_set", b'{"clear": true}')
    build(side)
    pages = walk(side)
    assert (["00", "10"], 4) == ([key for page in pages for key in page], len(pages))


def test_a_key_is_listed_with_the_type_and_digest_that_a_read_shows():
    side = Side("a")
    side.write("k", "pn_counter", b'{"increment": 1}')
    build(side)
    [listed] = answer_list(side.store, ListRequest(1, "", "", 10)).keys
    reading = side.store.read("k")
    assert ListedKey("k", reading.type, reading.digest) == listed
    assert Address("k", 1) in side.store


def reply(keys, upto=None, digest=b"1"):
    return ListReply(1, [ListedKey(key, "t", digest) for key in keys], upto)


def merged(replies, limit=10):
    keys, after = merge_keys(replies, limit, lambda key: ("b", "a"))
    return "".join(listed.key for listed in keys), after


def test_nodes_make_one_listing_as_far_as_the_shortest_answer_reaches():
    assert ("abcd", None) == merged({"a": reply("ac"), "b": reply("bd")})
    assert ("abc", "c") == merged({"a": reply("ac", "c"), "b": reply("bdf", "f")})
    assert ("ab", "b") == merged({"a": reply("ac", "c"), "b": reply("bdf", "f")}, 2)
    assert ("", "c") == merged({"a": reply("", "c"), "b": reply("d")})
    assert ("", None) == merged({"a": reply("")})


def test_where_nodes_differ_the_first_owner_answers():
    replies = {name: reply("k", digest=name.encode()) for name in "abc"}
    assert [b"b"] == [listed.digest for listed in merge_keys(replies, 9, lambda key: ("b", "a"))[0]]
    assert [b"a"] == [listed.digest for listed in merge_keys(replies, 9, lambda key: ("z",))[0]]


class Nodes:
    """Real nodes as a router's directory and cluster."""

    def __init__(self, nodes):
        self.channels = {node.node_id: ChannelTo(node, node) for node in nodes}
        self.placement = nodes[0].exchange.ownership

    def peers(self):
        return []

    def members(self):
        return [ListedMember("a"), ListedMember("b"), ListedMember("cut"), ListedMember("gone", "left")]


class ListedMember:
    def __init__(self, node_id, state="alive"):
        self.id, self.state = node_id, state


async def test_a_listing_over_the_router_names_who_did_not_answer():
    a, b = Node("a"), Node("b")
    async with running(a, b):
        nodes = Nodes([a, b])
        router = Router(nodes, nodes)
        for number in range(5):
            await a.committer.write(f"k{number}", "pn_counter", b'{"increment": 1}')
        page = await router.list_keys("k", "", 3)
        assert (["k0", "k1", "k2"], "k2", ["cut"]) == ([each.key for each in page.keys], page.after, page.unanswered)
        assert [a.store.etag(each.key) for each in page.keys] == [each.digest for each in page.keys]
        await a.committer.write("k3a", "pn_counter", b'{"increment": 1}')
        page = await router.list_keys("k", "k2", 10)
        assert (["k3", "k3a", "k4"], None) == ([each.key for each in page.keys], page.after)


@pytest.mark.parametrize("prefix", ["", "k", "zzz"])
async def test_an_empty_node_lists_nothing(prefix):
    a = Node("a")
    async with running(a):
        assert ListReply(1, [], None) == await ask(a, ListRequest, prefix=prefix, after="", limit=1000)
