"""What was emptied by its own operations reads as empty, and what was deleted as missing."""

import itertools

import msgspec
import pytest

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.dotted import ENTRIES_MAX, PRESENCE, Dotted
from crdt_service.datatypes.origins import ORIGINS_MAX
from crdt_service.datatypes.registry import DATATYPES, find_type
from tests.unit.service.test_law import OPERATIONS

# What fills a key, what empties it by parts, and what it reads as then.
EMPTYING = {
    "aw_set": ([{"add": "x"}, {"add": "y"}], [{"remove": "x"}, {"remove": "y"}], []),
    "ew_flag": ([{"enable": True}], [{"disable": True}, {"disable": True}], False),
    "map": (
        [{"update": {name: {"type": "aw_set", "op": {"add": "x"}}}} for name in "xy"],
        [{"remove": "x"}, {"remove": "y"}],
        {},
    ),
    "graph": (
        [{"add_vertex": "x"}, {"add_vertex": "y"}],
        [{"remove_vertex": "x"}, {"remove_vertex": "y"}],
        {"vertices": [], "edges": []},
    ),
}


def apply(datatype, state, op, replica="a~1", **options):
    """The delta of an operation on a state, as others get it."""
    origin = Origin(replica, itertools.count(1).__next__, **options)
    return datatype.encode(datatype.apply(state, datatype.empty(), msgspec.json.encode(op), origin))


def join(datatype, state, *deltas):
    """A state of its own with deltas joined."""
    joined = datatype.decode(datatype.encode(state))
    for delta in deltas:
        joined = datatype.join(joined, datatype.decode(delta))
    return joined


def run(datatype, *ops, state=None, **options):
    state = datatype.empty() if state is None else state
    for op in ops:
        state = join(datatype, state, apply(datatype, state, op, **options))
    return state


def show(datatype, state):
    """None if it reads as missing."""
    return None if datatype.is_vacant(state) else datatype.value(state)


@pytest.mark.parametrize("name", EMPTYING)
def test_what_was_emptied_in_one_go_or_by_several_at_once_is_there_and_empty_until_it_is_cleared(name):
    datatype, (filling, emptying, empty) = find_type(name), EMPTYING[name]
    filled = run(datatype, *filling)
    assert empty == show(datatype, run(datatype, *emptying, state=filled))

    deltas = [apply(datatype, filled, op, f"{place}~1") for place, op in enumerate(emptying)]
    apart = join(datatype, filled, *deltas)
    assert empty == show(datatype, apart)
    assert datatype.value(run(datatype, *filling)) == show(datatype, run(datatype, *filling, state=apart))
    assert None is show(datatype, run(datatype, {"clear": True}, state=apart))


@pytest.mark.parametrize("name", EMPTYING)
def test_one_entry_says_so_however_often_it_is_emptied(name):
    datatype, (filling, emptying, _) = find_type(name), EMPTYING[name]
    state = datatype.empty()
    for _ in range(3):
        state = run(datatype, *filling, *emptying, state=state)
    assert [PRESENCE] == list(state.owner.values())


@pytest.mark.parametrize("name", [name for name in EMPTYING if name != "ew_flag"])
def test_a_removal_of_what_is_not_there_makes_no_key(name):
    datatype, (_, emptying, _) = find_type(name), EMPTYING[name]
    assert None is show(datatype, run(datatype, *emptying))


def test_a_flag_that_was_disabled_before_all_is_off():
    assert False is show(find_type("ew_flag"), run(find_type("ew_flag"), {"disable": True}))


@pytest.mark.parametrize("name", EMPTYING)
def test_where_the_release_before_must_read_it_nothing_is_noted(name):
    datatype, (filling, emptying, _) = find_type(name), EMPTYING[name]
    state = run(datatype, *filling, *emptying, may_note_presence=False)
    assert ({}, None) == (state.owner, show(datatype, state))


def test_what_was_written_under_too_many_origins_can_still_be_emptied():
    datatype = find_type("aw_set")
    state = datatype.empty()
    for number in range(ORIGINS_MAX):
        state = datatype.join(
            state, datatype.decode(apply(datatype, datatype.empty(), {"add": "x"}, f"n~{number:08x}"))
        )
    assert None is show(datatype, run(datatype, {"remove": "x"}, state=state, replica="other~1"))


def test_a_full_key_can_still_be_emptied():
    datatype = find_type("aw_set")
    state = datatype.empty()
    for number in range(ENTRIES_MAX):
        delta = datatype.apply(state, datatype.empty(), b'{"add": "%d"}' % number, Origin("a~1", lambda: 1))
        state = datatype.join(state, delta)
    state = run(datatype, {"remove": "7"}, state=state)
    assert ENTRIES_MAX - 1 == len(datatype.value(state))


def test_only_types_that_can_be_emptied_without_being_deleted_note_it():
    keeping = {datatype.name for datatype in DATATYPES if isinstance(datatype, Dotted) and datatype.keeps_presence}
    assert EMPTYING.keys() == keeping <= OPERATIONS.keys()
