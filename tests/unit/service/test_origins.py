"""A key that was written under as many origins as it may: what it takes, and that whatever it became can be read."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.dotted import Dotted
from crdt_service.datatypes.g_set import GSet
from crdt_service.datatypes.origins import ORIGINS_MAX
from crdt_service.datatypes.part import PART_ITEMS_MAX
from crdt_service.datatypes.registry import DATATYPES, find_type
from crdt_service.kernel.clock import HybridClock, SystemClock
from crdt_service.kernel.error import OperationError
from crdt_service.loops.commit import encode_states
from crdt_service.replication.commits import PUSH_BYTES_MAX, CommitLog
from crdt_service.replication.replica import Replica
from crdt_service.store.batch import Batch
from crdt_service.store.store import Address, Store
from crdt_service.wire.message import Delta, WriteItem

KEY = "visits"
WRITES = {
    "pn_counter": {"increment": 1},
    "lww_register": {"assign": 1},
    "aw_set": {"add": "x"},
    "g_counter": {"increment": 1},
    "g_set": {"add": "x"},
    "ew_flag": {"enable": True},
    "mv_register": {"assign": 1},
    "time_series": {"append": {"at": 1, "value": 1}},
    "graph": {"add_vertex": "x"},
    "workflow": {"create": {"states": ["x"], "initial": "x", "transitions": []}},
    "document": {"insert": {"text": "t", "at": 0, "value": "x"}},
    "map": {"update": {"f": {"type": "pn_counter", "op": {"increment": 1}}}},
}
each_type = pytest.mark.parametrize("datatype", DATATYPES, ids=lambda datatype: datatype.name)
bounded = pytest.mark.parametrize(
    "datatype",
    # A workflow is created once; its transitions meet the door of all dotted types.
    [
        each
        for each in DATATYPES
        if each.name in {"g_counter", "pn_counter"} or (isinstance(each, Dotted) and each.name != "workflow")
    ],
    ids=lambda datatype: datatype.name,
)


def apply(datatype, state, replica):
    op = msgspec.json.encode(WRITES[datatype.name])
    return datatype.apply(state, datatype.empty(), op, Origin(replica, lambda: 2**40))


def full_state(datatype, mark):
    """A state that so many replicas have written, without having seen each other, as its bytes."""
    state = datatype.empty()
    for number in range(ORIGINS_MAX):
        state = datatype.join(state, apply(datatype, datatype.empty(), f"{mark}~{number:08x}"))
    return datatype.encode(state)


@pytest.fixture(scope="module")
def full():
    kept = {}

    def get(datatype, mark):
        if (datatype.name, mark) not in kept:
            kept[datatype.name, mark] = full_state(datatype, mark)
        return kept[datatype.name, mark]

    return get


@bounded
def test_a_full_state_takes_writes_of_its_origins_and_refuses_others(full, datatype):
    state = datatype.restore(full(datatype, "a"))
    delta = apply(datatype, state, "a~00000007")
    datatype.join(state, datatype.decode(datatype.encode(delta)))
    with pytest.raises(OperationError) as refusal:
        apply(datatype, state, "b~00000000")
    assert "too_many_origins" == refusal.value.code


@bounded
def test_pending_writes_count(full, datatype):
    pending = datatype.restore(full(datatype, "a"))
    op = msgspec.json.encode(WRITES[datatype.name])
    with pytest.raises(OperationError) as refusal:
        datatype.apply(datatype.empty(), pending, op, Origin("b~00000000", lambda: 2**40))
    assert "too_many_origins" == refusal.value.code


@each_type
@settings(max_examples=5)
@given(
    marks=st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True), bytes_max=st.integers(4096, 1 << 20)
)
def test_full_states_join_to_one_that_is_read_again(full, datatype, marks, bytes_max):
    state = datatype.empty()
    for mark in marks:
        state = datatype.join(state, datatype.decode(full(datatype, mark)))
    encoded = datatype.encode(state)
    assert encoded == datatype.encode(datatype.decode(encoded))
    assert encoded == datatype.encode(datatype.restore(encoded))
    again = datatype.empty()
    for part in datatype.split(state, bytes_max):
        again = datatype.join(again, datatype.decode(datatype.encode(part)))
    assert encoded == datatype.encode(again)


@each_type
def test_what_joined_beyond_the_bound_is_checkpointed_replayed_pushed_and_taken(full, datatype):
    clock = HybridClock(SystemClock())
    store = Store(clock)
    for mark in "ab":
        batch = Batch(store, clock, "node-0~00000000")
        batch.join(Delta(KEY, datatype.tag, datatype.version, full(datatype, mark)))
        batch.install()
    replayed, taken = Store(clock), Store(clock)
    Replica("node-0~00000000").replay(replayed, clock, encode_states(store))
    batch = Batch(taken, clock, "node-1~00000000")
    for delta in store.split_key(KEY, PUSH_BYTES_MAX):
        batch.join(delta)
    batch.install()
    assert store.etag(KEY) == replayed.etag(KEY) == taken.etag(KEY)


def test_a_refused_write_adds_nothing_and_the_others_of_its_step_are_taken(full):
    clock = HybridClock(SystemClock())
    store = Store(clock)
    counter = find_type("g_counter")
    batch = Batch(store, clock, "node-0~00000000")
    batch.join(Delta(KEY, counter.tag, counter.version, full(counter, "a")))
    batch.install()
    batch = Batch(store, clock, "node-0~00000000")
    with pytest.raises(OperationError, match="origins"):
        batch.perform(WriteItem(KEY, "g_counter", b'{"increment": 1}'))
    batch.perform(WriteItem("other", "g_counter", b'{"increment": 1}'))
    batch.install()
    assert [str(ORIGINS_MAX).encode(), b"1"] == [store.read(key).value for key in (KEY, "other")]


def test_more_short_elements_than_a_part_takes_travel_in_parts():
    datatype = GSet()
    letters = "".join(map(chr, range(0x21, 0x7F)))
    elements = {a + b + c for a in letters[:40] for b in letters[:60] for c in letters[:60]}
    assert PART_ITEMS_MAX < len(elements)
    assert len(datatype.encode(elements)) < PUSH_BYTES_MAX
    clock = HybridClock(SystemClock())
    store, taken = Store(clock), Store(clock)
    store.install(Address(KEY, datatype.tag), elements)
    batch = Batch(taken, clock, "node-0~00000000")
    for delta in store.split_key(KEY, PUSH_BYTES_MAX):
        batch.join(delta)
    batch.install()
    assert store.etag(KEY) == taken.etag(KEY)


def test_own_deltas_beyond_a_part_do_not_hold_up_the_others():
    """A clearing of what many joined to covers more dots than a peer takes at once; a repair brings it instead."""
    datatype = find_type("aw_set")
    wide = datatype.empty()
    for number in range(PART_ITEMS_MAX + 1):
        wide.context.add(("a~1", 2 * number + 2))
    log = CommitLog()
    states = [wide, apply(datatype, datatype.empty(), "b~1")]
    log.append(0.0, [Delta(KEY, datatype.tag, datatype.version, datatype.encode(state)) for state in states])
    push = log.take(0)
    assert (2, 1) == (push.upto, len(push.deltas))
