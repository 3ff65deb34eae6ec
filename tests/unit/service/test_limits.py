"""States that are hostile but well-formed: each limit refuses what lies beyond it, and what is within costs little."""

import msgspec
import pytest

from crdt_service.datatypes import time_series
from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.part import PART_ITEMS_MAX
from crdt_service.datatypes.registry import DATATYPES, find_type
from crdt_service.kernel.error import MalformedError, OperationError

SET = find_type("aw_set")
MAP = find_type("map")
PART_BYTES = 1 << 20


def pack(*fields):
    return msgspec.msgpack.encode(fields)


def names(count):
    return [f"r{number:06}" for number in range(count)]


def is_taken(datatype, data):
    try:
        state = datatype.decode(data)
    except MalformedError:
        return False
    assert datatype.encode(state) == data
    return True


@pytest.mark.parametrize("excess", [0, 1])
def test_gaps_of_a_context(excess):
    spans = [(0, 2 * number + 3, 0) for number in range(PART_ITEMS_MAX + excess)]
    assert is_taken(SET, pack(["a~1"], [], [(0, 1)], spans)) == (not excess)


@pytest.mark.parametrize("excess", [0, 1])
def test_entries(excess):
    count = PART_ITEMS_MAX + excess
    entries = [(0, number + 1, [str(number)], b"") for number in range(count)]
    assert is_taken(SET, pack(["a~1"], entries, [(0, count)], [])) == (not excess)


@pytest.mark.parametrize("excess", [0, 1])
def test_replicas_of_a_context(excess):
    replicas = names(PART_ITEMS_MAX + excess)
    assert is_taken(SET, pack(replicas, [], [(place, 1) for place in range(len(replicas))], [])) == (not excess)


@pytest.mark.parametrize("excess", [0, 1])
def test_replicas_of_counters(excess):
    replicas = names(PART_ITEMS_MAX + excess)
    assert is_taken(find_type("pn_counter"), pack(*((name, 1, 0) for name in replicas))) == (not excess)
    assert is_taken(find_type("g_counter"), pack(*((name, 1) for name in replicas))) == (not excess)


@pytest.mark.parametrize("excess", [0, 1])
def test_elements(excess):
    assert is_taken(find_type("g_set"), pack(*names(PART_ITEMS_MAX + excess))) == (not excess)


@pytest.mark.parametrize("excess", [0, 1])
def test_points(excess):
    points = [(at, "a~1", 1, 0.5) for at in range(time_series.POINTS_MAX + excess)]
    assert is_taken(find_type("time_series"), pack(*points)) == (not excess)


@pytest.mark.parametrize("depth", [9, 10_000])
def test_deep_maps(depth):
    with pytest.raises(MalformedError):
        MAP.decode(pack(["a~1"], [(0, 1, ["\x08m"] * (depth - 1) + ["\x03s", "x"], b"")], [(0, 1)], []))
    op = b'{"update": {"m": {"type": "map", "op": ' * depth + b'{"remove": "x"}' + b"}}}" * depth
    with pytest.raises(OperationError):
        MAP.apply(MAP.empty(), MAP.empty(), op, Origin("a~1", lambda: 1))


def test_deep_json():
    text = b"[" * 10_000 + b"]" * 10_000
    with pytest.raises(MalformedError):
        find_type("lww_register").decode(pack(1, "a~1", text))


@pytest.mark.parametrize("datatype", DATATYPES, ids=lambda datatype: datatype.name)
def test_deep_msgpack(datatype):
    with pytest.raises(MalformedError):
        datatype.decode(b"\x91" * 100_000)


def test_a_context_of_almost_everything_costs_what_is_present():
    state = SET.decode(pack(["a~1", "b~2"], [(0, 1, ["x"], b"")], [(0, 1)], [(1, 2, 2**62)]))
    hostile = SET.decode(pack(["a~1", "b~2"], [], [(0, 2**62)], [(1, 5, 2**62)]))
    assert SET.value(SET.join(state, hostile)) == []
    assert SET.encode(state) == pack(["a~1", "b~2"], [], [(0, 2**62)], [(1, 2, 2**62 + 3)])


def test_interleaved_gaps_join():
    even = [(0, 4 * number + 4, 0) for number in range(PART_ITEMS_MAX)]
    odd = [(0, 4 * number + 6, 0) for number in range(PART_ITEMS_MAX)]
    state = SET.join(SET.decode(pack(["a~1"], [], [], even)), SET.decode(pack(["a~1"], [], [], odd)))
    assert SET.encode(state) == pack(["a~1"], [], [], sorted(even + odd))
    # It is more than one part may hold, so it travels in several.
    parts = [SET.encode(part) for part in SET.split(state, PART_BYTES)]
    assert max(map(len, parts)) <= PART_BYTES
    whole = SET.empty()
    for part in parts:
        whole = SET.join(whole, SET.decode(part))
    assert SET.encode(whole) == SET.encode(state)


def large_states():
    for name, op in (
        ("aw_set", lambda number: {"add": f"{number:0200}"}),
        ("g_set", lambda number: {"add": f"{number:0200}"}),
        ("time_series", lambda number: {"append": {"at": number, "value": number / 3}}),
        ("document", lambda number: {"insert": {"text": "t", "at": 0, "value": f"{number:05000}"}}),
        ("map", lambda number: {"update": {f"{number:0100}": {"type": "pn_counter", "op": {"increment": 1}}}}),
    ):
        datatype = find_type(name)
        state = datatype.empty()
        for number in range(300):
            origin = Origin(f"{'abc'[number % 3]}~1", lambda: 2**40)
            state = datatype.join(
                state, datatype.apply(state, datatype.empty(), msgspec.json.encode(op(number)), origin)
            )
        yield pytest.param(datatype, state, id=name)


@pytest.mark.parametrize(("datatype", "state"), list(large_states()))
def test_parts_keep_to_their_size_and_are_not_many(datatype, state):
    bytes_max = 8192
    parts = [datatype.encode(part) for part in datatype.split(state, bytes_max)]
    assert max(map(len, parts)) <= bytes_max
    assert len(parts) <= 2 + 2 * len(datatype.encode(state)) // bytes_max
