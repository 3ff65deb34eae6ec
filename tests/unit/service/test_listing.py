"""Keys in order: of one node from its index, of several as one listing."""

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.api import router as router_module
from crdt_service.api.router import Router
from crdt_service.api.settling import AT_ONCE_MAX, settle
from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.slot import SLOTS, slot_of
from crdt_service.replication import listing
from crdt_service.replication.listing import Merged, answer_list, merge_keys
from crdt_service.store.index import KeyIndex
from crdt_service.store.store import Address
from crdt_service.wire.message import Concern, ListedKey, ListReply, ListRequest, Tombstone, ValueReply
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
    return "".join(merged.listed.key for merged in keys), after


def test_nodes_make_one_listing_as_far_as_the_shortest_answer_reaches():
    assert ("abcd", None) == merged({"a": reply("ac"), "b": reply("bd")})
    assert ("abc", "c") == merged({"a": reply("ac", "c"), "b": reply("bdf", "f")})
    assert ("ab", "b") == merged({"a": reply("ac", "c"), "b": reply("bdf", "f")}, 2)
    assert ("", "c") == merged({"a": reply("", "c"), "b": reply("d")})
    assert ("", None) == merged({"a": reply("")})


def words(holding, owners, answering="abc"):
    """Who answers for a key and who contradicts, given what each node holds of it."""
    replies = {name: reply("k" if name in holding else "", digest=holding.get(name, b"")) for name in answering}
    [merged], _ = merge_keys(replies, 9, lambda key: owners)
    return merged.node_id, merged.listed.digest, merged.others


def test_of_owners_that_differ_the_first_answers_and_the_others_contradict():
    assert ("b", b"2", ["a"]) == words({"a": b"1", "b": b"2", "c": b"3"}, "ba")
    assert ("a", b"1", ["b"]) == words({"a": b"1"}, "ba")
    assert ("b", b"1", []) == words({"a": b"1", "b": b"1"}, "ba")


def test_who_did_not_answer_and_who_is_no_owner_contradict_nobody():
    assert ("b", b"1", []) == words({"b": b"1", "c": b"2"}, "ba", "bc")
    assert ("a", b"1", []) == words({"a": b"1"}, "z")


def test_what_only_others_hold_is_contradicted_by_owners():
    assert ("a", b"1", ["b", "c"]) == words({"a": b"1"}, "bc")


def test_an_owner_contradicts_nothing_beyond_what_it_listed():
    replies = {"a": reply("k"), "b": reply("", "j")}
    assert ([], "j") == merge_keys(replies, 9, lambda key: "ab")


class Owner:
    """A channel to a node that holds a key; reads join what the nodes in `reached` hold."""

    def __init__(self, node_id, held, reached=(), *, is_stuck=False):
        self.node_id = self.replica = node_id
        self.held = held
        self.reached = (self, *reached)
        self.is_stuck = is_stuck
        self.reads = []

    async def request(self, build):
        request = build(1)
        if isinstance(request, ListRequest):
            return reply("k" if self.held else "", digest=self.held)
        self.reads.append(request.concern)
        if self.is_stuck:
            await asyncio.Event().wait()
        if len(self.reached) < {Concern.MAJORITY: 2, Concern.ALL: 3}[request.concern]:
            raise ServiceError("too_few_owners", "", "")
        newest = max((owner.held for owner in self.reached), key=lambda held: held.strip(b"-"))
        is_deleted = newest.startswith(b"-")
        return ValueReply(1, "" if is_deleted else "t", b"1", digest=b"" if is_deleted else newest)


class Owners:
    """Nodes of which `owning` own all keys."""

    def __init__(self, *nodes, owning=("a", "b", "c")):
        self.channels = {node.node_id: node for node in nodes}
        self.placement = SimpleNamespace(owners=lambda slot: owning)

    def members(self):
        return []

    async def list(self):
        page = await Router(self, self).list_keys("", "", 9)
        return [listed.digest for listed in page.keys], page.unanswered


async def test_a_key_that_owners_hold_alike_is_not_read():
    nodes = [Owner(name, b"1") for name in "abc"]
    assert ([b"1"], []) == await Owners(*nodes).list()
    assert [[], [], []] == [node.reads for node in nodes]


async def test_what_a_single_owner_holds_is_listed_though_others_lag():
    c, b = Owner("c", b"2"), Owner("b", b"1")
    a = Owner("a", b"1", (b, c))
    assert ([b"2"], []) == await Owners(a, b, c).list()
    assert [Concern.ALL] == a.reads


async def test_a_key_that_a_single_owner_knows_to_be_emptied_is_not_listed():
    c, b = Owner("c", b""), Owner("b", b"1")
    a = Owner("a", b"1", (b, Owner("c", b"-2")))
    assert ([], []) == await Owners(a, b, c).list()


async def test_what_a_node_kept_that_is_no_owner_is_read_there_with_the_owners():
    a, b, c = (Owner(name, b"") for name in "abc")
    d = Owner("d", b"1", (Owner("b", b"-2"), Owner("c", b"-2")))
    assert ([], []) == await Owners(a, b, c, d).list()


async def test_owners_whose_words_cannot_be_joined_are_named():
    c, b = Owner("c", b"2"), Owner("b", b"1")
    assert ([b"1"], ["c"]) == await Owners(Owner("a", b"1", (b,)), b, c).list()
    assert ([b"0"], ["b", "c"]) == await Owners(Owner("a", b"0"), b, c).list()


async def test_a_page_waits_for_the_words_of_owners_no_longer_than_for_others(monkeypatch):
    monkeypatch.setattr(router_module, "TRY_SECONDS_MAX", 0.01)
    c, b = Owner("c", b"2"), Owner("b", b"1")
    assert ([b"1"], ["c"]) == await Owners(Owner("a", b"1", is_stuck=True), b, c).list()


@pytest.mark.parametrize("doubts", [0, 3, 100])
async def test_each_doubt_is_read_once_and_only_so_many_at_once(doubts):
    under_way = most = reads = 0

    async def request(build):
        nonlocal under_way, most, reads
        reads, under_way = reads + 1, under_way + 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return ValueReply(1, "t", b"1", digest=build(1).key.encode())

    merged = [Merged(ListedKey(str(number), "t", b""), "a", ["b"]) for number in range(doubts)]
    settled = await settle({"a": SimpleNamespace(request=request)}, merged, 30)
    assert (doubts, min(doubts, AT_ONCE_MAX), set()) == (reads, most, settled.unjoined)
    assert {str(number): str(number).encode() for number in range(doubts)} == {
        key: merged.listed.digest for key, merged in settled.listed.items()
    }


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
