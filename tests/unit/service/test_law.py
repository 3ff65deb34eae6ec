"""The laws of the contract, over every registered type."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.registry import DATATYPES
from crdt_service.kernel.error import MalformedError, OperationError

REPLICAS = ("a~1", "b~2", "c~3")
OPERATIONS = {
    "pn_counter": st.one_of(
        st.builds(lambda n: {"increment": n}, st.integers(1, 99)),
        st.builds(lambda n: {"decrement": n}, st.integers(1, 99)),
    ),
    "lww_register": st.builds(lambda v: {"assign": v}, st.one_of(st.none(), st.integers(0, 9), st.text(max_size=3))),
    "aw_set": st.one_of(
        st.builds(lambda s: {"add": s}, st.sampled_from("xyz")),
        st.builds(lambda s: {"remove": s}, st.sampled_from("xyz")),
    ),
    "g_counter": st.builds(lambda n: {"increment": n}, st.integers(1, 99)),
    "g_set": st.builds(lambda s: {"add": s}, st.sampled_from("xyz")),
    "mv_register": st.builds(lambda v: {"assign": v}, st.integers(0, 9)),
    "ew_flag": st.sampled_from([{"enable": True}, {"disable": True}]),
}


def map_operations(fields):
    """Each field has its type's name, so that hardly any operation is refused."""
    names = st.sampled_from(sorted(fields))
    return st.one_of(
        names.flatmap(lambda name: fields[name].map(lambda op: {"update": {name: {"type": name, "op": op}}})),
        names.map(lambda name: {"remove": name}),
    )


OPERATIONS["time_series"] = st.builds(
    lambda at, value: {"append": {"at": at, "value": value}}, st.integers(0, 3), st.integers(-1, 1)
)
OPERATIONS["graph"] = st.one_of(
    st.builds(lambda v: {"add_vertex": v}, st.sampled_from("xyz")),
    st.builds(lambda a, b: {"add_edge": [a, b]}, st.sampled_from("xyz"), st.sampled_from("xyz")),
    st.builds(lambda v: {"remove_vertex": v}, st.sampled_from("xyz")),
    st.builds(lambda a, b: {"remove_edge": [a, b]}, st.sampled_from("xyz"), st.sampled_from("xyz")),
)
_CREATE = {"states": ["x", "y", "z"], "initial": "x", "transitions": [["x", "y"], ["x", "z"], ["y", "x"], ["z", "z"]]}
OPERATIONS["workflow"] = st.one_of(
    st.sampled_from([{"create": _CREATE}, {"create": {**_CREATE, "initial": "y"}}]),
    st.builds(lambda to: {"transition": {"to": to}}, st.sampled_from("xyz")),
)
_FIELDS = {name: operations for name, operations in OPERATIONS.items() if name not in {"time_series", "graph"}}
_PATHS = st.lists(st.sampled_from("xy"), min_size=1, max_size=2)
OPERATIONS["document"] = st.one_of(
    st.builds(
        lambda at, s: {"insert": {"text": "t", "at": at, "value": s}}, st.integers(0, 3), st.text("aé𝄞", min_size=1)
    ),
    st.builds(lambda s: {"append": {"text": "t", "value": s}}, st.text("aé𝄞", min_size=1)),
    st.builds(lambda at: {"delete": {"text": "t", "at": at}}, st.integers(0, 3)),
    st.builds(lambda at, v: {"insert": {"list": "l", "at": at, "value": v}}, st.integers(0, 2), st.integers(0, 9)),
    st.builds(lambda at: {"delete": {"list": "l", "at": at}}, st.integers(0, 2)),
    st.builds(
        lambda path, v: {"set": {"path": path, "value": v}},
        _PATHS,
        st.sampled_from([1, {"x": 2}, {"x": {"y": []}}, {}]),
    ),
    st.builds(lambda path: {"remove": {"path": path}}, _PATHS),
    st.just({"clear": True}),
)
OPERATIONS["map"] = map_operations({**_FIELDS, "map": map_operations(_FIELDS)})


@st.composite
def histories(draw, datatype):
    """(replica states, all deltas) after random writes, partial deliveries and lost deltas."""
    states = {replica: datatype.empty() for replica in REPLICAS}
    deltas = []
    written = dict.fromkeys(REPLICAS, 0)
    for _ in range(draw(st.integers(0, 12))):
        replica = draw(st.sampled_from(REPLICAS))
        if deltas and draw(st.booleans()):
            join(datatype, states, replica, draw(st.sampled_from(deltas)))
            continue
        # A replica never draws a stamp twice; two replicas may draw the same.
        written[replica] += draw(st.integers(1, 2))
        op = msgspec.json.encode(draw(OPERATIONS[datatype.name]))
        origin = Origin(replica, lambda stamp=written[replica]: stamp)
        try:
            delta = datatype.apply(states[replica], datatype.empty(), op, origin)
        except OperationError:  # Some operations need others before them.
            continue
        deltas.append(datatype.encode(delta))
        join(datatype, states, replica, deltas[-1])
    return [datatype.encode(state) for state in states.values()], deltas


def join(datatype, states, replica, data):
    states[replica] = datatype.join(states[replica], datatype.decode(data))


def attempt(datatype, state, pending, op, origin):
    try:
        return datatype.encode(datatype.apply(state, pending, op, origin))
    except OperationError as error:
        return error.message


def joined(datatype, *parts):
    state = datatype.empty()
    for part in parts:
        state = datatype.join(state, datatype.decode(part))
    return datatype.encode(state)


each_type = pytest.mark.parametrize("datatype", DATATYPES, ids=lambda datatype: datatype.name)


@each_type
@given(data=st.data())
def test_join_is_commutative_associative_idempotent(datatype, data):
    (x, y, z), _ = data.draw(histories(datatype))
    assert joined(datatype, x, y) == joined(datatype, y, x)
    assert joined(datatype, joined(datatype, x, y), z) == joined(datatype, x, joined(datatype, y, z))
    assert joined(datatype, x, x) == x


@each_type
@given(data=st.data())
def test_deltas_in_any_order_make_the_state_that_states_make(datatype, data):
    states, deltas = data.draw(histories(datatype))
    shuffled = data.draw(st.permutations(deltas))
    repeated = shuffled + data.draw(st.lists(st.sampled_from(deltas))) if deltas else []
    assert joined(datatype, *repeated) == joined(datatype, *states)


@each_type
@given(data=st.data())
def test_encoding_round_trips_and_digest_follows_bytes(datatype, data):
    (x, y, _), _ = data.draw(histories(datatype))
    assert datatype.encode(datatype.decode(x)) == x
    assert (datatype.digest(datatype.decode(x)) == datatype.digest(datatype.decode(y))) == (x == y)


@each_type
@given(data=st.data())
def test_pending_counts_as_state(datatype, data):
    (x, y, _), _ = data.draw(histories(datatype))
    op = msgspec.json.encode(data.draw(OPERATIONS[datatype.name]))
    origin = Origin(REPLICAS[0], lambda: 2**40)
    split = attempt(datatype, datatype.decode(x), datatype.decode(y), op, origin)
    whole = attempt(datatype, datatype.decode(joined(datatype, x, y)), datatype.empty(), op, origin)
    assert split == whole


@each_type
@given(data=st.data())
def test_apply_and_join_leave_their_inputs_alone(datatype, data):
    (x, y, _), _ = data.draw(histories(datatype))
    state, other = datatype.decode(x), datatype.decode(y)
    op = msgspec.json.encode(data.draw(OPERATIONS[datatype.name]))
    attempt(datatype, state, other, op, Origin(REPLICAS[0], lambda: 2**40))
    assert (datatype.encode(state), datatype.encode(other)) == (x, y)
    datatype.join(state, other)
    assert datatype.encode(other) == y


@each_type
@given(data=st.data())
def test_equal_states_read_alike_however_they_came_about(datatype, data):
    _, deltas = data.draw(histories(datatype))
    state = datatype.empty()
    for delta in data.draw(st.permutations(deltas)):
        state = datatype.join(state, datatype.decode(delta))
        shown = msgspec.json.encode(datatype.value(state))
        assert shown == msgspec.json.encode(datatype.value(datatype.decode(datatype.encode(state))))


@each_type
@given(data=st.data())
def test_own_bytes_restore_to_the_same_state(datatype, data):
    states, deltas = data.draw(histories(datatype))
    for encoded in (*states, *deltas):
        assert encoded == datatype.encode(datatype.restore(encoded))


@each_type
@given(data=st.data(), bytes_max=st.integers(1, 200))
def test_parts_in_any_order_and_repeated_make_the_state(datatype, data, bytes_max):
    (x, y, _), _ = data.draw(histories(datatype))
    parts = [datatype.encode(part) for part in datatype.split(datatype.decode(x), bytes_max)]
    some = data.draw(st.lists(st.sampled_from(parts)))
    assert joined(datatype, *some, *data.draw(st.permutations(parts))) == x
    assert joined(datatype, x, *some) == x
    # What some parts make is a state of its own, from which the rest, or another state, leads on.
    assert joined(datatype, joined(datatype, y, *some), x) == joined(datatype, x, y)


@each_type
@given(data=st.binary(max_size=64))
def test_hostile_bytes_are_refused_or_canonical(datatype, data):
    try:
        state = datatype.decode(data)
    except MalformedError:
        return
    assert datatype.encode(state) == data


@each_type
@given(data=st.data())
def test_damaged_states_are_refused_or_canonical(datatype, data):
    (x, _, _), _ = data.draw(histories(datatype))
    position = data.draw(st.integers(0, len(x) - 1))
    damaged = x[:position] + bytes([data.draw(st.integers(0, 255))]) + x[position + 1 :]
    try:
        state = datatype.decode(damaged)
    except MalformedError:
        return
    assert datatype.encode(state) == damaged


@each_type
@given(
    op=st.one_of(
        st.binary(max_size=40),
        st.recursive(st.none(), lambda c: st.dictionaries(st.text(), c)).map(msgspec.json.encode),
    )
)
def test_hostile_operations_are_refused(datatype, op):
    try:
        datatype.apply(datatype.empty(), datatype.empty(), op, Origin("a~1", lambda: 1))
    except OperationError as error:
        assert error.code in {"invalid_operation", "limit_exceeded"}


GROWING = {
    "pn_counter": lambda number: {"increment": 1},
    "lww_register": lambda number: {"assign": 1},
    "aw_set": lambda number: {"add": f"e{number:04}"},
    "g_counter": lambda number: {"increment": 1},
    "g_set": lambda number: {"add": f"e{number:04}"},
    "ew_flag": lambda number: {"enable": True},
    "mv_register": lambda number: {"assign": 1},
    "time_series": lambda number: {"append": {"at": number, "value": 1}},
    "graph": lambda number: {"add_vertex": f"v{number:04}"},
    "workflow": lambda number: {"transition": {"to": "xy"[number % 2]}} if number else {"create": _CREATE},
    "document": lambda number: {"insert": {"text": "t", "at": 0, "value": "x"}},
    "map": lambda number: {"update": {f"f{number:04}": {"type": "aw_set", "op": {"add": "x"}}}},
}


@each_type
def test_a_delta_is_as_small_in_a_large_state(datatype):
    sizes = []
    state = datatype.empty()
    for number in range(2000):
        op = msgspec.json.encode(GROWING[datatype.name](number))
        delta = datatype.apply(state, datatype.empty(), op, Origin("a~1", lambda number=number: 2**40 + number))
        sizes.append(len(datatype.encode(delta)))
        state = datatype.join(state, delta)
    # Larger numbers take more bytes each, and a document merges up to one chunk now and then.
    assert max(sizes[1000:]) <= max(sizes[10:1000]) + 16
    assert sorted(sizes)[1000] <= sizes[10] + 8


def test_a_concurrent_add_wins_and_a_seen_one_is_removed():
    datatype = DATATYPES[2]
    add = datatype.apply(datatype.empty(), datatype.empty(), b'{"add": "x"}', Origin("a~1", lambda: 1))
    seen = datatype.join(datatype.empty(), add)
    remove = datatype.apply(seen, datatype.empty(), b'{"remove": "x"}', Origin("b~2", lambda: 1))
    again = datatype.apply(seen, datatype.empty(), b'{"add": "x"}', Origin("a~1", lambda: 1))
    parts = [datatype.encode(part) for part in (add, remove)]
    assert datatype.value(datatype.decode(joined(datatype, *parts))) == []
    assert datatype.value(datatype.decode(joined(datatype, *parts, datatype.encode(again)))) == ["x"]


def test_types_have_their_own_names_and_tags():
    assert (
        len({datatype.name for datatype in DATATYPES})
        == len({datatype.tag for datatype in DATATYPES})
        == len(DATATYPES)
    )


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
)


@given(value=JSON_VALUES)
def test_any_json_that_a_register_takes_every_replica_takes(value):
    datatype = DATATYPES[1]
    delta = datatype.apply(
        datatype.empty(), datatype.empty(), json.dumps({"assign": value}).encode(), Origin("a~1", lambda: 1)
    )
    assert datatype.decode(datatype.encode(delta)) == delta


@pytest.mark.parametrize(("depth", "is_taken"), [(64, True), (65, False), (500, False), (100_000, False)])
def test_nesting_has_a_fixed_limit(depth, is_taken):
    datatype = DATATYPES[1]
    op = b'{"assign": ' + b"[" * depth + b"]" * depth + b"}"
    try:
        delta = datatype.apply(datatype.empty(), datatype.empty(), op, Origin("a~1", lambda: 1))
    except OperationError:
        assert not is_taken
    else:
        assert is_taken
        assert datatype.decode(datatype.encode(delta)) == delta


@pytest.mark.parametrize("text", ['"\\ud800"', "1e999", "NaN", "1" * 400, "01", '"\x00"'])
def test_odd_json_is_refused_or_taken_by_all(text):
    datatype = DATATYPES[1]
    try:
        delta = datatype.apply(
            datatype.empty(), datatype.empty(), b'{"assign": %s}' % text.encode(), Origin("a~1", lambda: 1)
        )
    except OperationError:
        return
    assert datatype.decode(datatype.encode(delta)) == delta


@each_type
@given(data=st.data())
def test_a_blind_operation_does_the_same_whatever_its_writer_holds(datatype, data):
    (x, _, _), _ = data.draw(histories(datatype))
    op = msgspec.json.encode(data.draw(OPERATIONS[datatype.name]))
    if not datatype.is_blind(op):
        return
    origin = Origin("new~4", lambda: 2**40)  # A node that holds nothing writes under an origin that the key lacks.
    try:
        seen = datatype.apply(datatype.decode(x), datatype.empty(), op, origin)
    except OperationError:
        return
    blind = datatype.apply(datatype.empty(), datatype.empty(), op, origin)
    values = [datatype.value(datatype.join(datatype.decode(x), delta)) for delta in (seen, blind)]
    assert msgspec.json.encode(values[0]) == msgspec.json.encode(values[1])


BLIND = {
    "pn_counter": '{"decrement": 1}',
    "lww_register": '{"assign": 1}',
    "aw_set": '{"add": "x"}',
    "g_counter": '{"increment": 1}',
    "g_set": '{"add": "x"}',
    "ew_flag": '{"enable": true}',
    "time_series": '{"append": {"at": 1, "value": 1}}',
    "graph": '{"add_vertex": "x"}',
    "map": '{"update": {"m": {"type": "map", "op": {"update": {"s": {"type": "aw_set", "op": {"add": "x"}}}}}}}',
}
SEEING = {
    "aw_set": ['{"remove": "x"}', '{"\\u0072emove": "x"}', '{"clear": true}'],
    "ew_flag": ['{"disable": true}', '{"clear": true}'],
    "mv_register": ['{"assign": 1}', '{"clear": true}'],
    "graph": ['{"add_edge": ["x", "x"]}', '{"remove_vertex": "x"}', '{"remove_edge": ["x", "x"]}', '{"clear": true}'],
    "workflow": ['{"transition": {"to": "x"}}'],
    "document": ['{"insert": {"text": "t", "at": 0, "value": "x"}}'],
    "map": [
        '{"remove": "f"}',
        '{"clear": true}',
        '{"update": {"f": {"type": "aw_set", "op": {"remove": "x"}}}}',
        '{"update": {"f": {"type": "mv_register", "op": {"assign": 1}}}}',
    ],
}


@each_type
def test_which_operations_are_blind(datatype):
    assert (datatype.name in BLIND) == datatype.is_blind(BLIND.get(datatype.name, "{}").encode())
    assert not any(datatype.is_blind(op.encode()) for op in SEEING.get(datatype.name, []))


@pytest.mark.parametrize("datatype", [each for each in DATATYPES if each.is_repeatable], ids=lambda each: each.name)
@given(data=st.data())
def test_what_may_be_repeated_has_one_effect_wherever_and_whenever_it_is_applied(datatype, data):
    """Somebody may write between the two effects, and see only one of them."""
    (x, y, z), _ = data.draw(histories(datatype))
    op = msgspec.json.encode(data.draw(OPERATIONS[datatype.name]))
    effects = [
        datatype.encode(datatype.apply(datatype.decode(state), datatype.empty(), op, Origin(replica, lambda at=at: at)))
        for at, (state, replica) in enumerate(zip((x, y), REPLICAS[:2], strict=True), 20)
    ]
    once = joined(datatype, x, y, z, effects[0])
    assert once == joined(datatype, x, y, z, effects[1]) == joined(datatype, once, effects[1])
