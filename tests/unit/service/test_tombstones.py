"""What was purged is set aside: nobody sees it, and whatever comes later of its key is joined with it."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.datatypes.registry import get_type
from crdt_service.kernel.error import MalformedError, ServiceError
from crdt_service.membership.ownership import follow_members
from crdt_service.store import tombstones
from crdt_service.store.store import Address
from crdt_service.store.tombstones import Tombstones, tombstone_bytes
from crdt_service.wire.message import Delta, PushRequest, Tombstone, TombstonesReply, TombstonesRequest, VoteRequest
from tests.unit.service.side import Side
from tests.unit.service.test_commit import running
from tests.unit.service.test_garbage import CLEAR, clear, each_clearable
from tests.unit.service.test_handoff import Node
from tests.unit.service.test_law import histories, joined

SET = 3
NUMBER = 5_000
TOGETHER = follow_members({"a": "", "b": ""}, 2)


def tombstone(side, key, number=NUMBER):
    return Tombstone(number, side.store.encode_key(key))


def vacant(key, number=NUMBER):
    side = Side("node-9")
    side.write(key, "aw_set", b'{"add": "x"}')
    side.write(key, "aw_set", CLEAR)
    return tombstone(side, key, number)


def install(store, delta):
    store.install(Address(delta.key, delta.tag), get_type(delta.tag).decode(delta.state))


@each_clearable
@given(data=st.data())
def test_a_purge_changes_nothing_that_is_read_later(datatype, data):
    (x, y, _), deltas = data.draw(histories(datatype))
    left = clear(datatype, x)
    store = Side("node-0").store
    for part in (left,):
        install(store, Delta("k", datatype.tag, datatype.version, part))
    store.bury(Tombstone(NUMBER, store.encode_key("k")))
    assert (0, []) == (len(store), store.encode_key("k"))
    late = data.draw(st.lists(st.sampled_from((x, y, *deltas)), min_size=1))
    for part in late:
        install(store, Delta("k", datatype.tag, datatype.version, part))
    assert [joined(datatype, left, *late)] == [delta.state for delta in store.encode_key("k")]


def test_what_is_set_aside_is_in_no_digest_and_no_count():
    side = Side("node-0")
    side.write("k", "aw_set", b'{"add": "x"}')
    side.write("k", "aw_set", CLEAR)
    side.store.refresh_digests(9)
    side.store.bury(tombstone(side, "k"))
    assert (0, {0}, {}, {}, 1) == (
        len(side.store),
        set(side.store.sums),
        side.dump(),
        side.store.vacant,
        len(side.store.tombstones),
    )


def test_who_returns_loses_what_others_saw_go_and_keeps_what_they_never_saw():
    away, other = Side("node-0"), Side("node-1")
    away.write("k", "aw_set", b'{"add": "seen"}')
    install(other.store, away.store.encode_key("k")[0])
    other.write("k", "aw_set", CLEAR)
    purged = tombstone(other, "k")
    more = Side("node-0").store
    install(more, away.store.encode_key("k")[0])
    away.write("k", "aw_set", b'{"add": "unseen"}')
    for store in (more, away.store):
        store.bury(purged)
    assert ([], [purged]) == (more.encode_key("k"), list(more.tombstones))
    assert (b'["unseen"]', []) == (away.store.read("k").value, list(away.store.tombstones))


def test_the_later_of_two_tombstones_stays_in_any_order():
    side = Side("node-0")
    side.write("k", "aw_set", CLEAR)
    early = tombstone(side, "k", 1)
    side.write("k", "aw_set", b'{"add": "x"}')
    side.write("k", "aw_set", CLEAR)
    late = tombstone(side, "k", 2)
    for order in ((early, late), (late, early), (late, late)):
        store = Side("node-1").store
        for each in order:
            store.bury(each)
        assert (0, [late]) == (len(store), list(store.tombstones))


def test_the_oldest_go_first_and_that_is_known(monkeypatch):
    monkeypatch.setattr(tombstones, "TOMBSTONE_BYTES_MAX", 2 * tombstone_bytes(vacant("k-0")))
    kept = Tombstones()
    for number in range(4):
        kept.put(vacant(f"k-{number}", 10 + number))
    assert (["k-2", "k-3"], 11) == ([each.key for each in kept], kept.forgotten)


def test_a_page_holds_whole_agreements_in_their_order(monkeypatch):
    kept = Tombstones()
    for key, number in (("a", 3), ("b", 1), ("c", 1), ("d", 2)):
        kept.put(vacant(key, number))
    monkeypatch.setattr(tombstones, "PAGE_BYTES_MAX", tombstone_bytes(vacant("a")))
    pages = [kept.page(after) for after in (0, 1, 3)]
    assert [(["b", "c"], 1), (["d", "a"], None), ([], None)] == [([each.key for each in page], n) for page, n in pages]


@pytest.mark.parametrize(
    "states",
    [
        [Delta("k", SET, 3, b"\xff")],
        [Delta("", SET, 3, vacant("k").states[0].state)],
        [Delta("k", 99, 3, b"")],
        [*vacant("k").states, *vacant("other").states],
    ],
)
def test_what_is_no_tombstone_is_refused(states):
    with pytest.raises(MalformedError):
        Side("node-0").store.check_tombstone(Tombstone(1, states))


def test_a_live_state_is_no_tombstone():
    side = Side("node-0")
    side.write("k", "aw_set", b'{"add": "x"}')
    with pytest.raises(MalformedError):
        side.store.check_tombstone(tombstone(side, "k"))


async def test_tombstones_outlive_a_checkpoint_and_a_crash(tmp_path):
    async with running(tmp_path, log_bytes_max=1) as replica:
        assert await replica.committer.catch_up(TombstonesReply(1, NUMBER, 7, [vacant("k")]))
        for number in range(3):
            await replica.committer.write(f"w-{number}", "pn_counter", b'{"increment": 1}')
    async with running(tmp_path) as replica:
        assert ([vacant("k")], 7, NUMBER) == (
            list(replica.store.tombstones),
            replica.store.tombstones.forgotten,
            replica.replica.agreed,
        )


async def test_what_was_sent_before_a_purge_and_waits_behind_it_is_refused(tmp_path):
    async with running(tmp_path) as replica:
        states = vacant("k").states
        pending = [
            asyncio.create_task(replica.committer.purge(list, NUMBER)),
            asyncio.create_task(replica.committer.join(PushRequest(0, "", 0, 0, 0.0, states))),
            asyncio.create_task(replica.committer.join_states(states)),
            asyncio.create_task(replica.committer.join(PushRequest(0, "", 0, 0, 0.0, states, vouched=NUMBER))),
        ]
        done = await asyncio.gather(*pending, return_exceptions=True)
        assert ["behind", "behind"] == [each.code for each in done if isinstance(each, ServiceError)]
        assert [[], 0] == [each for each in done if not isinstance(each, ServiceError)]


@pytest.fixture
async def nodes():
    both = Node("a"), Node("b")
    for node in both:
        node.place(TOGETHER)
        node.journal.may_drop.set()
    tasks = [asyncio.create_task(node.committer.run()) for node in both]
    yield both
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_element_that_came_by_a_repair_alone_does_not_return_with_its_writer(nodes):
    away, other = nodes
    away.replica.synced_at = other.replica.synced_at = 1.0
    await away.committer.write("k", "aw_set", b'{"add": "seen"}')
    await other.committer.join_states(away.store.encode_key("k"))
    await other.committer.write("k", "aw_set", CLEAR)
    await away.committer.write("k", "aw_set", b'{"add": "unseen"}')
    await away.committer.write("own", "aw_set", b'{"add": "x"}')
    number = int(other.collector._clock.now_seconds() * 1000)
    assert ["k"] == await other.committer.purge(lambda: ["k"], number)
    await away.collector.check(other)
    assert (b'["unseen"]', b'["x"]') == (away.store.read("k").value, away.store.read("own").value)
    for delta in away.replica.commits.take(0).deltas:
        await other.committer.join(PushRequest(0, "", 0, 0, 0.0, [delta], vouched=number))
    assert (b'["unseen"]', b'["x"]') == (other.store.read("k").value, other.store.read("own").value)


async def test_who_was_away_while_others_forgot_starts_anew(nodes):
    away, other = nodes
    away.replica.synced_at = 1.0
    await away.committer.write("k", "aw_set", b'{"add": "x"}')
    number = int(other.collector._clock.now_seconds() * 1000)
    await other.committer.catch_up(TombstonesReply(1, number, number, []))
    before = away.replica.origin
    await away.collector.check(other)
    assert (0, number, True) == (len(away.store), away.replica.agreed, before != away.replica.origin)


async def test_a_new_node_keeps_what_it_was_told_before_it_knew_the_others(nodes):
    new, other = nodes
    await new.committer.write("k", "aw_set", b'{"add": "x"}')
    number = int(other.collector._clock.now_seconds() * 1000)
    await other.committer.catch_up(TombstonesReply(1, number, number, []))
    await new.collector.check(other)
    assert (b'["x"]', number) == (new.store.read("k").value, new.replica.agreed)


async def test_tombstones_come_in_pages_until_all_are_there(nodes, monkeypatch):
    new, other = nodes
    for number in (NUMBER, NUMBER + 1, NUMBER + 2):
        await other.committer.catch_up(TombstonesReply(1, number, 0, [vacant(f"k-{number}", number)]))
    monkeypatch.setattr(tombstones, "PAGE_BYTES_MAX", 1)
    assert NUMBER == other.collector.show_tombstones(TombstonesRequest(1, 0)).agreed
    await new.collector.check(other)
    assert (list(other.store.tombstones), NUMBER + 2) == (list(new.store.tombstones), new.replica.agreed)


async def test_who_votes_for_what_it_never_had_holds_its_tombstone_before_anyone_purges(nodes, monkeypatch):
    voter, _ = nodes
    monkeypatch.setattr(voter.collector, "_is_settled", lambda: True)
    ask = VoteRequest(1, 0, NUMBER, [vacant("k")])
    assert (["k"], [vacant("k")]) == ((await voter.collector.vote(ask)).keys, list(voter.store.tombstones))
    assert [] == (await voter.collector.vote(ask)).keys
    again = VoteRequest(1, 0, NUMBER + 1, [vacant("k", NUMBER + 1)])
    assert (["k"], [vacant("k", NUMBER + 1)]) == (
        (await voter.collector.vote(again)).keys,
        list(voter.store.tombstones),
    )


async def test_who_proposes_votes_for_nobody_else(nodes, monkeypatch):
    voter, _ = nodes
    monkeypatch.setattr(voter.collector, "_is_settled", lambda: True)
    voter.collector._is_proposing = True
    assert [] == (await voter.collector.vote(VoteRequest(1, 0, NUMBER, [vacant("k")]))).keys
