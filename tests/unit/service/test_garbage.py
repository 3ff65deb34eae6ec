"""What is deleted reads as missing, is forgotten once all agree, and does not come back."""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.registry import DATATYPES
from crdt_service.kernel.error import OperationError
from crdt_service.replication import garbage
from crdt_service.replication.commits import CommitLog
from crdt_service.replication.garbage import Vacancies, is_stale
from crdt_service.store.store import Store
from crdt_service.store.tombstones import states_bytes
from crdt_service.wire.message import Delta, Tombstone, TombstonesReply
from tests.unit.service.side import Side
from tests.unit.service.test_commit import running
from tests.unit.service.test_law import histories, joined

CLEAR = b'{"clear": true}'
CLEARABLE = [datatype for datatype in DATATYPES if datatype.can_clear]
each_clearable = pytest.mark.parametrize("datatype", CLEARABLE, ids=lambda datatype: datatype.name)
each_type = pytest.mark.parametrize("datatype", DATATYPES, ids=lambda datatype: datatype.name)
HORIZON = 100.0
VACANT = [Delta("k", 3, 3, DATATYPES[2].encode(DATATYPES[2].empty()))]


def clear(datatype, data):
    """Return the bytes of what clearing a state leaves."""
    state = datatype.decode(data)
    return joined(datatype, data, datatype.encode(datatype.apply(state, datatype.empty(), CLEAR, origin(2**40))))


def origin(stamp, floor=0):
    return Origin("a~1", lambda: stamp, floor)


@each_clearable
@given(data=st.data())
def test_a_cleared_state_is_vacant_and_reads_as_if_nothing_was_written(datatype, data):
    (x, y, _), _ = data.draw(histories(datatype))
    cleared = [datatype.decode(clear(datatype, part)) for part in (x, y)]
    assert [True, True] == [datatype.is_vacant(state) for state in cleared]
    empty = msgspec.json.encode(datatype.value(datatype.empty()))
    assert [empty, empty] == [msgspec.json.encode(datatype.value(state)) for state in cleared]


@each_type
@given(data=st.data())
def test_vacant_states_join_to_vacant_ones(datatype, data):
    states, deltas = data.draw(histories(datatype))
    if datatype.can_clear:
        states = [clear(datatype, part) for part in states]
    vacant = [part for part in (*states, *deltas) if datatype.is_vacant(datatype.decode(part))]
    assert datatype.is_vacant(datatype.decode(joined(datatype, *vacant)))


@pytest.mark.parametrize("name", ["g_counter", "pn_counter", "g_set", "time_series"])
def test_what_only_grows_cannot_be_cleared(name):
    datatype = next(datatype for datatype in DATATYPES if datatype.name == name)
    assert not datatype.can_clear
    with pytest.raises(OperationError):
        datatype.apply(datatype.empty(), datatype.empty(), CLEAR, origin(1))


@pytest.mark.parametrize("op", [b'{"clear": false}', b'{"clear": 1}', b'{"clear": true, "add": "x"}', b'"clear"'])
def test_only_true_clears(op):
    datatype = DATATYPES[2]
    with pytest.raises(OperationError):
        datatype.apply(datatype.empty(), datatype.empty(), op, origin(1))


def test_a_concurrent_add_survives_and_later_dots_exceed_the_floor():
    datatype = DATATYPES[2]
    seen = datatype.apply(datatype.empty(), datatype.empty(), b'{"add": "x"}', origin(1))
    cleared = datatype.apply(seen, datatype.empty(), CLEAR, origin(1))
    other = datatype.apply(seen, datatype.empty(), b'{"add": "y"}', Origin("b~2", lambda: 1))
    parts = [datatype.encode(part) for part in (seen, cleared, other)]
    assert ["y"] == datatype.value(datatype.decode(joined(datatype, *parts)))
    again = datatype.apply(datatype.empty(), datatype.empty(), b'{"add": "z"}', origin(1, floor=7))
    assert ({("a~1", 8)}, {"a~1": 8}, {}) == (set(again.owner), again.context.vector, again.context.cloud)


def test_a_vacant_key_reads_as_missing_and_may_become_another_type():
    side = Side("node-0")
    side.write("k", "aw_set", b'{"add": "x"}')
    side.write("k", "aw_set", CLEAR)
    assert (None, None, ["k"]) == (side.store.read("k"), side.store.find("k"), list(side.store.vacant))
    side.write("k", "lww_register", b'{"assign": 1}')
    assert ("lww_register", []) == (side.store.read("k").type, list(side.store.vacant))
    with pytest.raises(OperationError):
        side.write("k", "aw_set", b'{"add": "x"}')


def test_a_key_is_ripe_once_it_is_unchanged_for_the_horizon():
    side = Side("node-0")
    side.write("k", "aw_set", CLEAR)
    vacancies = Vacancies(side.store, HORIZON)
    vacancies.observe(["k"], 0.0)
    assert [] == vacancies.ripe(HORIZON - 1)
    digest = side.store.digest("k")
    same = Tombstone(1, side.store.encode_key("k"))
    other = Tombstone(1, [Delta("k", 3, 3, b"other")])
    gone = Tombstone(1, [Delta("gone", 3, 3, b"any")])
    assert ["k"] == vacancies.ripe(HORIZON)
    assert ({"k": digest}, {}, {"gone": 0}) == tuple(vacancies.agree([each], HORIZON) for each in (same, other, gone))
    assert ["k", "gone"] == vacancies.unchanged({"k": digest, "gone": 5})
    side.write("k", "aw_set", b'{"add": "x"}')
    side.write("k", "aw_set", CLEAR)
    assert ([], {}, []) == (
        vacancies.ripe(HORIZON),
        vacancies.agree([same], HORIZON),
        vacancies.unchanged({"k": digest}),
    )
    vacancies.observe(["k"], HORIZON)
    assert ([], 1) == (vacancies.ripe(2 * HORIZON - 1), len(vacancies.ripe(2 * HORIZON)))


def test_one_agreement_is_bounded_in_bytes_and_what_is_larger_alone_stays(monkeypatch):
    side = Side("node-0")
    for key in ("a", "b", "c"):
        side.write(key, "lww_register", b'{"assign": "x"}')
    side.write("large", "lww_register", b'{"assign": "%s"}' % (b"x" * 500))
    one = states_bytes(side.store.encode_key("a"))
    monkeypatch.setattr(garbage, "AGREEMENT_BYTES_MAX", 2 * one)
    parts = list(Vacancies(side.store, HORIZON).propose(["a", "large", "b", "c", "gone"]))
    assert [["a", "b"], ["c"]] == [[states[0].key for states in part] for part in parts]


def test_a_young_process_does_not_vote():
    vacancies = Vacancies(Store(None), HORIZON)
    vacancies.mark(0.0, 5)
    assert None is vacancies.settled(HORIZON - 1)
    vacancies.mark(HORIZON / 2, 8)
    vacancies.mark(HORIZON, 9)
    assert (5, 8) == (
        vacancies.settled(HORIZON),
        (vacancies.mark(1.5 * HORIZON, 9), vacancies.settled(1.5 * HORIZON))[1],
    )


@pytest.mark.parametrize(
    ("synced_at", "forgotten", "expected"),
    [(1000.0, 0, False), (1000.0, 1_074_000, False), (1000.0, 1_076_000, True), (0.0, 1_000_000, True)],
)
def test_only_who_was_away_while_others_forgot_is_stale(synced_at, forgotten, expected):
    assert expected is is_stale(synced_at, forgotten, HORIZON)


def test_no_delta_of_a_purged_key_is_sent_again():
    log = CommitLog()
    log.append(0.0, [Delta("k", 3, 3, b"one"), Delta("other", 3, 3, b"two")])
    log.forget(["k"])
    assert (["other"], 2) == ([delta.key for delta in log.take(0).deltas], log.take(0).upto)


async def test_a_purge_survives_a_crash_and_later_dots_are_new(tmp_path):
    async with running(tmp_path) as replica:
        for op in (b'{"add": "x"}', b'{"add": "y"}', CLEAR):
            await replica.committer.write("s", "aw_set", op)
        assert ["s"] == await replica.committer.purge(lambda: ["s"], 5)
        assert ({}, 2, []) == (replica.dump(), replica.replica.floor, replica.pushed)
        await replica.committer.write("s", "aw_set", b'{"add": "z"}')
        before = replica.dump()
    async with running(tmp_path) as replica:
        assert (before, 5, 2) == (replica.dump(), replica.replica.agreed, replica.replica.floor)
        assert ["s"] == [delta.key for delta in replica.pushed]
        await replica.committer.write("t", "aw_set", b'{"add": "x"}')
        state = DATATYPES[2].decode(replica.store.encode_key("t")[0].state)
        assert [3] == [counter for _, counter in state.owner]


async def test_a_purge_does_not_take_what_was_written_meanwhile(tmp_path):
    async with running(tmp_path) as replica:
        await replica.committer.write("s", "aw_set", CLEAR)
        written = asyncio.create_task(replica.committer.write("s", "aw_set", b'{"add": "x"}'))
        await asyncio.sleep(0)
        await replica.committer.purge(lambda: [key for key in replica.store.vacant if key == "s"], 5)
        await written
        assert b'["x"]' == replica.store.read("s").value


async def test_a_rebuilt_node_keeps_nothing_but_what_others_purged(tmp_path):
    async with running(tmp_path) as replica:
        await replica.committer.write("s", "aw_set", b'{"add": "x"}')
        assert await replica.committer.rebuild("node-0~9", TombstonesReply(1, 7, 5, [Tombstone(6, VACANT)]))
        assert ({}, []) == (replica.dump(), replica.pushed)
    async with running(tmp_path) as replica:
        assert ({}, "node-0~9", 7, [], 5, ["k"]) == (
            replica.dump(),
            replica.replica.origin,
            replica.replica.agreed,
            replica.pushed,
            replica.store.tombstones.forgotten,
            [each.key for each in replica.store.tombstones],
        )
