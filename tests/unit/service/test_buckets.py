"""The arithmetic of limits that several backends share."""

import random

import pytest

from crdt_service.access.buckets import REPORTED_MAX, Buckets, Usage
from crdt_service.access.limit import Limit

LIMIT = Limit(requests_per_minute=60, burst_limit=10)  # One a second.


def exchange(*backends, now=0.0):
    """All report, then all hear of all others."""
    reports = {str(number): each.report(now) for number, each in enumerate(backends)}
    for number, each in enumerate(backends):
        each.merge({name: report for name, report in reports.items() if name != str(number)}, now)


def take(buckets, count, now=0.0, caller="a"):
    """Try so often; return how often it was allowed."""
    return sum(buckets.take(caller, LIMIT, now).is_allowed for _ in range(count))


def test_a_burst_then_the_rate():
    buckets = Buckets()
    assert 10 == take(buckets, 15)
    assert 0 == take(buckets, 1, now=0.9)
    assert 1 == take(buckets, 5, now=1.0)
    assert 10 == take(buckets, 99, now=1000.0)


def test_what_is_left_and_when_more_is_there():
    buckets = Buckets()
    assert (True, 10, 7, 3, 0.0) == buckets.take("a", LIMIT, 0.0, cost=3)
    assert (False, 10, 7, 3, 1.0) == buckets.take("a", LIMIT, 0.0, cost=8)
    assert (False, 10, 7, 3, float("inf")) == buckets.take("a", LIMIT, 0.0, cost=11)
    assert 7 == take(buckets, 9), "a refusal takes nothing"


def test_callers_do_not_share():
    buckets = Buckets()
    assert (10, 10) == (take(buckets, 11), take(buckets, 11, caller="b"))


def test_a_clock_that_stands_or_jumps_gives_no_more_than_a_burst():
    buckets = Buckets()
    assert 10 == take(buckets, 20, now=5.0)
    assert 0 == take(buckets, 20, now=5.0)
    assert 10 == take(buckets, 20, now=1e9)


def test_backends_drain_one_bucket():
    one, two = Buckets(), Buckets()
    assert 6 == take(one, 6)
    exchange(one, two)
    assert 4 == take(two, 9)
    exchange(one, two)
    assert 0 == take(one, 9)


def test_what_both_let_through_at_once_is_waited_for():
    one, two = Buckets(), Buckets()
    assert (10, 10) == (take(one, 10), take(two, 10))
    exchange(one, two)
    assert 0 == take(one, 1, now=10.0) + take(two, 1, now=10.0)
    assert 1 == take(one, 9, now=11.0)


def test_a_lost_report_costs_nothing():
    one, two = Buckets(), Buckets()
    take(one, 1), take(two, 1)
    exchange(one, two)
    take(one, 3)
    one.report(0.0)  # Goes nowhere.
    take(one, 3)
    exchange(one, two)
    assert 2 == take(two, 9)


def test_a_report_that_comes_twice_counts_once():
    one, two = Buckets(), Buckets()
    take(two, 1), take(one, 5)
    for _ in range(3):
        exchange(one, two)
    assert 4 == take(two, 9)


def test_a_backend_that_starts_learns_what_happened_before():
    one, two, late = Buckets(), Buckets(), Buckets()
    take(one, 4), take(two, 4)
    exchange(one, two)
    exchange(one, two, late)
    assert 2 == take(late, 9)


def test_a_caller_who_never_came_here_is_forgiven_with_time():
    one, two = Buckets(), Buckets()
    for second in range(100):
        take(one, 1, now=float(second))
        exchange(one, two, now=float(second))
    assert 10 == take(two, 20, now=200.0)


@pytest.mark.parametrize("backends", [2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_over_time_all_together_let_through_what_one_would(backends, seed):
    randomness = random.Random(seed)
    all_of_them = [Buckets() for _ in range(backends)]
    allowed = 0
    for step in range(6000):  # Ten minutes; a round each second.
        now = step / 10
        allowed += take(randomness.choice(all_of_them), randomness.randrange(4), now=now)
        if step % 10 == 9:
            exchange(*all_of_them, now=now)
    # A round late, each other backend may have let a second's worth through once more, once and not each time.
    assert 600 <= allowed <= 10 + 600 + (backends - 1) * 12


def test_who_is_alone_keeps_to_a_part():
    buckets = Buckets()
    assert 3 == sum(buckets.take("a", LIMIT, 0.0, parts=3).is_allowed for _ in range(9))
    assert 0 == sum(buckets.take("a", LIMIT, 2.0, parts=3).is_allowed for _ in range(9))
    assert 1 == sum(buckets.take("a", LIMIT, 3.0, parts=3).is_allowed for _ in range(9))


def test_absurd_reports_lock_nobody_out_for_longer_than_two_bursts():
    buckets = Buckets()
    take(buckets, 1)
    buckets.merge({"x": {"a": Usage(0, 0.0)}}, 0.0)
    buckets.merge({"x": {"a": Usage(2**53, 2.0**53)}}, 0.0)
    assert 0 == take(buckets, 1, now=1.0)
    assert 1 == take(buckets, 1, now=12.0)


def test_tables_and_reports_are_bounded():
    buckets = Buckets(callers_max=600)
    for number in range(1000):
        take(buckets, 1 + number % 2, caller=str(number))
    assert 600 == len(buckets)
    report = buckets.report(0.0)
    assert REPORTED_MAX == len(report)
    assert 300 == sum(usage.used == 2 for usage in report.values()), "the largest debts are told"


def test_a_full_bucket_is_not_reported():
    buckets = Buckets()
    take(buckets, 3)
    assert {"a": Usage(3, 1.0)} == buckets.report(2.0)
    assert {} == buckets.report(3.0)


@pytest.mark.parametrize(
    ("limit", "taken", "unhurried"),
    [
        (Limit(requests_per_minute=60, burst_limit=80), 0, 8),  # The ninth is more than an eighth of the 71 left.
        (Limit(requests_per_minute=60, burst_limit=80), 78, 0),
        (Limit(requests_per_minute=600, burst_limit=80), 70, 5),  # Ten a second.
    ],
)
def test_others_are_told_at_once_of_who_takes_much_of_what_is_left(limit, taken, unhurried):
    hurried = []
    buckets = Buckets(hurry=lambda: hurried.append(1))
    if taken:
        buckets.take("a", limit, 0.0, cost=taken)
    for _ in range(2):
        buckets.report(0.0)
        hurried.clear()
        for _ in range(unhurried):
            buckets.take("a", limit, 0.0)
        assert [] == hurried
        buckets.take("a", limit, 0.0)
        assert [1] == hurried
        buckets = Buckets(hurry=lambda: hurried.append(1))
        if taken:
            buckets.take("a", limit, 0.0, cost=taken)
