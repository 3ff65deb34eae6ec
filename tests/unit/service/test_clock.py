"""Stamps of clocks that are or were wrong, and offsets between clocks."""

import pytest

from crdt_service.kernel.clock import (
    CLOCK_STAMP_MAX,
    COUNTER_BITS,
    PEER_STAMP_MAX,
    ROUND_TRIP_SECONDS_MAX,
    STAMP_MAX,
    HybridClock,
    is_impossible,
    own_offset,
)
from tests.unit.service.double import FakeClock

NOW = 1_800_000_000.0
TEN_YEARS = 10 * 365.25 * 24 * 3600


def stamp_of(seconds):
    return int(seconds * 1000) << COUNTER_BITS


def test_stamps_follow_the_wall_clock_and_never_repeat():
    clock = FakeClock(NOW)
    hybrid = HybridClock(clock)
    first, second = hybrid.tick(), hybrid.tick()
    clock.seconds += 1
    assert (stamp_of(NOW), stamp_of(NOW) + 1, stamp_of(NOW + 1)) == (first, second, hybrid.tick())


@pytest.mark.parametrize("offset", [61, 600, 7200, TEN_YEARS])
def test_later_stamps_exceed_one_of_a_clock_that_was_ahead_until_wall_time_has_passed_it(offset):
    clock = FakeClock(NOW)
    hybrid = HybridClock(clock)
    ahead = stamp_of(NOW + offset)
    hybrid.observe(ahead)
    assert (ahead + 1, pytest.approx(offset)) == (hybrid.tick(), hybrid.lead_seconds)
    clock.seconds = NOW + offset + 1
    assert (stamp_of(NOW + offset + 1), 0.0) == (hybrid.tick(), hybrid.lead_seconds)


@pytest.mark.parametrize("year_seconds", [0.0, -TEN_YEARS, 2**62 / 2**16 / 1000, 1e14])
def test_no_clock_makes_a_stamp_that_others_refuse_or_that_leaves_no_room(year_seconds):
    hybrid = HybridClock(FakeClock(year_seconds))
    stamps = [hybrid.tick() for _ in range(3)]
    assert stamps == sorted(set(stamps))
    assert 0 < stamps[0] <= stamps[-1] <= CLOCK_STAMP_MAX + 3
    assert not is_impossible(stamps[-1])


def test_a_stamp_is_impossible_only_where_counting_on_from_the_last_clock_does_not_lead():
    assert [False, False, True, True] == [
        is_impossible(stamp) for stamp in (CLOCK_STAMP_MAX, PEER_STAMP_MAX, PEER_STAMP_MAX + 1, STAMP_MAX)
    ]


def test_an_offset_is_what_the_other_clock_said_halfway():
    hybrid = HybridClock(FakeClock(NOW))
    hybrid.hear("ahead", int((NOW + 61) * 1000), 7, 0.5)
    hybrid.hear("behind", int((NOW - 7200) * 1000), 5, 0.0)
    assert {"ahead": 61.25, "behind": -7200.0} == hybrid.offsets
    assert (7, int((NOW + 61.25) * 1000)) == (hybrid.newest, hybrid.latest_milliseconds())
    hybrid.forget("ahead")
    assert (["behind"], int(NOW * 1000)) == (list(hybrid.offsets), hybrid.latest_milliseconds())


def test_what_was_long_under_way_tells_the_stamp_and_no_offset():
    hybrid = HybridClock(FakeClock(NOW))
    hybrid.hear("frozen", int((NOW - 100) * 1000), 9, ROUND_TRIP_SECONDS_MAX + 0.01)
    assert ({}, 9) == (hybrid.offsets, hybrid.newest)


def test_an_impossible_stamp_of_another_node_is_not_followed():
    hybrid = HybridClock(FakeClock(NOW))
    hybrid.hear("hostile", int(NOW * 1000), STAMP_MAX, 0.0)
    assert 0 == hybrid.newest


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [({}, 0.0), ({"a": 0.0}, 0.0), ({"a": -3.0, "b": 61.0}, -61.0), ({"a": -7200.0, "b": -1.0}, 7200.0)],
)
def test_a_clock_is_ahead_of_the_one_from_which_it_differs_most(offsets, expected):
    assert expected == own_offset(offsets)
