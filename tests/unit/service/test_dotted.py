import msgspec
import pytest

from crdt_service.datatypes import dotted
from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.registry import DATATYPES, find_type
from crdt_service.kernel.error import MalformedError, OperationError

SET = find_type("aw_set")
DOTTED = [datatype for datatype in DATATYPES if isinstance(datatype, dotted.Dotted)]
ELEMENT = (0, 1, ["x"], b"")


def add(state, element, pending=None):
    op = msgspec.json.encode({"add": element})
    return SET.apply(state, SET.empty() if pending is None else pending, op, Origin("a~1", lambda: 1))


def test_the_good_state_that_the_bad_ones_below_start_from():
    SET.decode(msgspec.msgpack.encode((["a~1"], [ELEMENT], [(0, 1)], [])))


@pytest.mark.parametrize(
    "plain",
    [
        ([], [ELEMENT], [], []),  # No such replica.
        (["a~1"], [(-1, 1, ["x"], b"")], [(0, 1)], []),
        (["a~1"], [(0, 2, ["x"], b"")], [(0, 1)], []),  # Unseen.
        (["a~1"], [(0, 0, ["x"], b"")], [(0, 1)], []),
        (["a~1"], [ELEMENT, (0, 1, ["y"], b"")], [(0, 1)], []),  # One dot, two entries.
        (["a~1"], [ELEMENT], [(0, 1), (0, 1)], []),
        (["a~1"], [ELEMENT], [], [(0, 1)]),  # Not compact.
        (["a~1"], [ELEMENT], [(0, 2**63)], []),
        (["a~1", "b~2"], [ELEMENT], [(0, 1)], []),  # A name without a use.
        (["b~2", "a~1"], [], [(0, 1), (1, 1)], []),
        (["\u20ac"], [], [(0, 1)], []),
        (["a~1"], [(0, 1, ["x"] * 11, b"")], [(0, 1)], []),
    ],
)
def test_states_that_no_writer_makes_are_refused(plain):
    with pytest.raises(MalformedError):
        SET.decode(msgspec.msgpack.encode(plain))


@pytest.mark.parametrize("datatype", DOTTED, ids=lambda datatype: datatype.name)
def test_what_is_gone_leaves_no_bytes_and_no_index(datatype):
    state, gone = datatype.empty(), datatype.empty()
    for replica in ("a~1", "b~2"):
        gone.context.add((replica, 1))
    entry = {"aw_set": (("x",), b""), "graph": (("x", "y"), b"")}.get(datatype.name, (("x", "y", "z"), b"c"))
    for dot in gone.context.vector.items():
        state.context.add(dot)
        state.insert(dot, entry)
    datatype.join(state, gone)
    assert (state.owner, state.exact, state.below, state.size_bytes) == ({}, {}, {}, 0)
    assert datatype.encode(state) == datatype.encode(gone)


def test_a_full_key_still_takes_what_replaces_an_entry(monkeypatch):
    monkeypatch.setattr(dotted, "ENTRIES_MAX", 3)
    state = SET.empty()
    for element in "xyz":
        state = SET.join(state, add(state, element))
    with pytest.raises(OperationError) as caught:
        add(state, "w")
    assert caught.value.code == "limit_exceeded"
    assert add(state, "x").owner


def test_pending_entries_count_towards_the_limit(monkeypatch):
    monkeypatch.setattr(dotted, "ENTRIES_MAX", 2)
    state = SET.join(SET.empty(), add(SET.empty(), "x"))
    pending = SET.join(SET.empty(), add(state, "y"))
    with pytest.raises(OperationError):
        add(state, "z", pending)


def test_an_operation_looks_at_no_more_dots_in_a_large_state(monkeypatch):
    looked_at = []
    seen = dotted.View._seen

    def count(self, ours, theirs):
        for dot in seen(self, ours, theirs):
            looked_at[-1] += 1
            yield dot

    monkeypatch.setattr(dotted.View, "_seen", count)
    kind = find_type("map")
    state = kind.empty()
    for number in range(1000):
        looked_at.append(0)
        op = {"update": {"tags": {"type": "aw_set", "op": {"add": f"e{number}"}}}}
        delta = kind.apply(state, kind.empty(), msgspec.json.encode(op), Origin("a~1", lambda: 1))
        state = kind.join(state, delta)
    assert looked_at[10] == looked_at[-1] <= 2
