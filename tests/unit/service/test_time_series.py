import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.time_series import AT_MAX, TimeSeries
from crdt_service.kernel.error import MalformedError, OperationError

SERIES = TimeSeries(window_milliseconds=10, points_max=4)
NOW = 1_000_000


def append(at, value, replica="a~1", state=None, stamp=NOW << 16):
    op = msgspec.json.encode({"append": {"at": at, "value": value}})
    return SERIES.apply(state or SERIES.empty(), SERIES.empty(), op, Origin(replica, lambda: stamp))


def joined(*deltas):
    state = SERIES.empty()
    for delta in deltas:
        state = SERIES.join(state, delta)
    return state


def test_points_are_ordered_by_time_and_then_replica():
    deltas = append(7, 3), append(5, 1, "b~2"), append(5, 2, "a~1")
    assert SERIES.value(joined(*deltas)) == [[5, 2.0], [5, 1.0], [7, 3.0]]


def test_a_replica_replaces_its_own_point():
    deltas = append(5, 1, stamp=NOW << 16), append(5, 2, stamp=(NOW << 16) + 1)
    assert SERIES.value(joined(*deltas)) == SERIES.value(joined(*reversed(deltas))) == [[5, 2.0]]


def test_the_window_follows_the_newest_point_and_not_arrival():
    deltas = append(20, 1), append(9, 2, "b~2"), append(10, 3, "c~3")
    assert SERIES.value(joined(*deltas)) == SERIES.value(joined(*reversed(deltas))) == [[10, 3.0], [20, 1.0]]


def test_only_the_newest_points_are_kept():
    state = joined(*(append(at, at) for at in range(8)))
    assert SERIES.value(state) == [[at, at] for at in range(4, 8)]
    assert len(state.queue) == len(state.points) == 4


POINTS = st.tuples(st.integers(0, 30), st.sampled_from("abc"), st.integers(1, 3), st.integers(0, 2))


@given(st.lists(st.lists(POINTS, max_size=8), min_size=3, max_size=3))
def test_cut_states_keep_the_laws(parts):
    x, y, z = (
        SERIES.encode(joined(*(append(at, value, replica, stamp=stamp) for at, replica, stamp, value in part)))
        for part in parts
    )

    def join(*states):
        return SERIES.encode(joined(*map(SERIES.decode, states)))

    assert join(x, y) == join(y, x)
    assert join(join(x, y), z) == join(x, join(y, z))
    assert join(x, x) == join(x) == x
    every = [append(at, value, replica, stamp=stamp) for part in parts for at, replica, stamp, value in part]
    assert join(x, y, z) == SERIES.encode(joined(*every)) == SERIES.encode(joined(*reversed(every)))


def test_a_point_older_than_the_window_is_refused():
    with pytest.raises(OperationError, match="older"):
        append(9, 1, state=joined(append(20, 1)))


def test_a_point_in_the_future_is_refused():
    append(NOW + 60_000, 1)
    with pytest.raises(OperationError, match="future"):
        append(NOW + 60_001, 1)


def test_the_wall_clock_tells_what_lies_in_the_future_where_stamps_are_ahead_of_it():
    origin = Origin("a~1", lambda: 2 * NOW << 16, now_milliseconds=lambda: NOW)
    for at, is_taken in ((NOW + 60_000, True), (NOW + 60_001, False)):
        op = msgspec.json.encode({"append": {"at": at, "value": 1}})
        with contextlib.nullcontext() if is_taken else pytest.raises(OperationError, match="future"):
            assert SERIES.apply(SERIES.empty(), SERIES.empty(), op, origin).points


def test_the_newest_stamp_is_that_of_a_write_whatever_time_its_point_is_of():
    state = SERIES.decode(msgspec.msgpack.encode([(AT_MAX - 1, "a~1", 9, 1.0), (AT_MAX, "a~1", 7, 1.0)]))
    assert 9 == SERIES.newest_stamp(state)


@pytest.mark.parametrize("text", [b"1e999", b"NaN", b'"1"', b"null", b"[]"])
def test_a_value_is_a_finite_number(text):
    op = b'{"append": {"at": 1, "value": %s}}' % text
    with pytest.raises(OperationError):
        SERIES.apply(SERIES.empty(), SERIES.empty(), op, Origin("a~1", lambda: 1))


@pytest.mark.parametrize(
    "points",
    [
        [(1, "a~1", 1, float("nan"))],
        [(1, "a~1", 1, -0.0)],
        [(1, "a~1", 1, 1)],
        [(1, "", 1, 1.0)],
        [(1, "a~1", 0, 1.0)],
        [(-1, "a~1", 1, 1.0)],
        [(2, "a~1", 1, 1.0), (1, "a~1", 1, 1.0)],
        [(1, "a~1", 1, 1.0), (1, "a~1", 2, 1.0)],
        [(1, "a~1", 1, 1.0), (12, "a~1", 1, 1.0)],
        [(at, "a~1", 1, 1.0) for at in range(5)],
    ],
)
def test_states_that_no_writer_makes_are_refused(points):
    with pytest.raises(MalformedError):
        SERIES.decode(msgspec.msgpack.encode(points))


def test_both_zeros_are_one():
    assert SERIES.encode(append(1, -0.0)) == SERIES.encode(append(1, 0.0))
