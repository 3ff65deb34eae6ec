import msgspec
import pytest

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.dotted import PRESENCE
from crdt_service.datatypes.registry import find_type
from crdt_service.kernel.error import MalformedError, OperationError

MAP = find_type("map")


def update(field, kind, **op):
    return {"update": {field: {"type": kind, "op": op}}}


def apply(state, op, replica="a~1", stamp=1):
    return MAP.apply(state, MAP.empty(), msgspec.json.encode(op), Origin(replica, lambda: stamp))


def joined(*deltas):
    state = MAP.empty()
    for delta in deltas:
        state = MAP.join(state, delta)
    return state


def run(*ops, state=None):
    state = MAP.empty() if state is None else state
    for number, op in enumerate(ops):
        state = MAP.join(state, apply(state, op, stamp=number + 1))
    return state


def show(state):
    return msgspec.json.decode(msgspec.json.encode(MAP.value(state)))


def test_fields_read_like_their_types():
    state = run(
        update("count", "pn_counter", increment=5),
        update("count", "pn_counter", decrement=7),
        update("hits", "g_counter", increment=2),
        update("hits", "g_counter", increment=2),
        update("name", "lww_register", assign="x"),
        update("name", "lww_register", assign={"y": 1}),
        update("all", "mv_register", assign=1),
        update("tags", "aw_set", add="p"),
        update("tags", "aw_set", add="q"),
        update("tags", "aw_set", remove="p"),
        update("seen", "g_set", add="s"),
        update("on", "ew_flag", enable=True),
    )
    assert show(state) == {
        "all": [1],
        "count": -2,
        "hits": 4,
        "name": {"y": 1},
        "on": True,
        "seen": ["s"],
        "tags": ["q"],
    }
    assert MAP.newest_stamp(state) == 7


def test_a_field_that_an_operation_emptied_is_still_there():
    state = run(update("tags", "aw_set", add="p"), update("tags", "aw_set", remove="p"))
    assert show(state) == {"tags": []}
    state = run(update("on", "ew_flag", disable=True), update("m", "map", remove="none"), state=state)
    assert show(state) == {"m": {}, "on": False, "tags": []}
    assert show(run({"remove": "tags"}, {"remove": "m"}, {"remove": "on"}, state=state)) == {}


def test_an_update_wins_over_a_concurrent_removal():
    first = apply(MAP.empty(), update("tags", "aw_set", add="old"))
    seen = joined(first)
    removal = apply(seen, {"remove": "tags"}, "b~2")
    addition = apply(seen, update("tags", "aw_set", add="new"), "c~3")
    assert show(joined(first, removal, addition)) == show(joined(addition, removal, first)) == {"tags": ["new"]}


def test_removed_values_do_not_resurrect():
    state = run(update("count", "pn_counter", increment=5), {"remove": "count"})
    assert show(state) == {}
    again = run(update("count", "pn_counter", increment=1), state=state)
    assert show(again) == {"count": 1}


def test_removed_values_do_not_come_back_from_a_replica_that_missed_the_removal():
    parts = [apply(MAP.empty(), update("count", "pn_counter", increment=5), "a~1")]
    late = MAP.encode(joined(*parts))
    parts.append(apply(joined(*parts), {"remove": "count"}, "b~2"))
    parts.append(apply(joined(*parts), update("count", "pn_counter", increment=1), "a~1"))
    whole = joined(*parts)
    assert show(MAP.join(MAP.decode(late), whole)) == show(MAP.join(whole, MAP.decode(late))) == {"count": 1}


def test_removals_leave_nothing_but_the_context_and_that_the_map_is_there():
    state = run(*(update(f"f{number}", "aw_set", add="x") for number in range(100)))
    state = run(*({"remove": f"f{number}"} for number in range(100)), state=state)
    assert (list(state.owner.values()), list(state.exact), state.below, state.size_bytes) == ([PRESENCE], [()], {}, 0)
    assert len(MAP.encode(state)) < 24


def test_maps_nest_and_inner_removals_stay_inside():
    state = run(
        update("m", "map", **update("x", "pn_counter", increment=1)),
        update("m", "map", **update("y", "pn_counter", increment=2)),
        update("m", "map", remove="x"),
        update("x", "pn_counter", increment=3),
    )
    assert show(state) == {"m": {"y": 2}, "x": 3}
    assert show(run({"remove": "m"}, state=state)) == {"x": 3}


def nested(depth):
    op = update("x", "aw_set", add="e")
    for _ in range(depth - 1):
        op = update("m", "map", **op)
    return op


def test_nesting_has_a_fixed_limit():
    delta = apply(MAP.empty(), nested(8))
    assert MAP.encode(MAP.decode(MAP.encode(delta))) == MAP.encode(delta)
    assert show(delta) == {"m": {"m": {"m": {"m": {"m": {"m": {"m": {"x": ["e"]}}}}}}}}
    with pytest.raises(OperationError) as caught:
        apply(MAP.empty(), nested(9))
    assert caught.value.code == "limit_exceeded"


def test_a_field_keeps_its_type_until_it_is_removed():
    state = run(update("f", "aw_set", add="x"))
    with pytest.raises(OperationError, match="aw_set"):
        apply(state, update("f", "pn_counter", increment=1))
    assert show(run({"remove": "f"}, update("f", "pn_counter", increment=1), state=state)) == {"f": 1}


def test_of_two_types_written_concurrently_all_show_the_same():
    x = apply(MAP.empty(), update("f", "aw_set", add="x"), "a~1")
    y = apply(MAP.empty(), update("f", "pn_counter", increment=1), "b~2")
    assert show(joined(x, y)) == show(joined(y, x)) == {"f": 1}
    assert show(run({"remove": "f"}, state=joined(x, y))) == {}


@pytest.mark.parametrize(
    "op",
    [
        {},
        {"update": {}},
        {"update": {"f": {"type": "aw_set", "op": {"add": "x"}}}, "remove": "f"},
        {"update": {name: {"type": "aw_set", "op": {"add": "x"}} for name in "fg"}},
        {"update": {"f": {"type": "none", "op": {}}}},
        {"update": {"f": {"type": "aw_set", "op": {"increment": 1}}}},
        {"update": {"\u20ac" * 100: {"type": "aw_set", "op": {"add": "x"}}}},
    ],
)
def test_other_operations_are_refused(op):
    with pytest.raises(OperationError):
        apply(MAP.empty(), op)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ((), b"x"),
        (("\x7ff",), b""),
        (("",), b""),
        (("\x08m",), b"x"),
        (("\x01c",), b"\x92\x00\x00"),
        (("\x03s", "x", "y"), b""),
        (("\x08m",) * 8, b""),
        (("\x08m",) * 8 + ("\x03s",), b""),
    ],
)
def test_entries_that_no_writer_makes_are_refused(path, content):
    with pytest.raises(MalformedError):
        MAP.decode(msgspec.msgpack.encode((["a~1"], [(0, 1, path, content)], [(0, 1)], [])))


def test_a_full_map_takes_no_more_but_still_takes_removals():
    state = MAP.empty()
    big = "x" * (250 << 10)
    with pytest.raises(OperationError) as caught:
        for number in range(20):
            state = run(update(f"f{number}", "lww_register", assign=big), state=state)
    assert caught.value.code == "limit_exceeded"
    run(update("f0", "lww_register", assign=big), {"remove": "f1"}, state=state)
