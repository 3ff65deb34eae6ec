import math

from crdt_service.telemetry.recent import SPAN_SECONDS, WINDOW_SECONDS, Recent


def test_a_quantile_is_at_least_the_true_one_and_at_most_half_more():
    recent = Recent()
    for number in range(1, 1001):
        recent.add(0.0, number / 1000)

    for share in (0.1, 0.5, 0.99, 1.0):
        assert share <= recent.quantile(0.0, share) <= share * 1.5


def test_nothing_took_no_time_and_what_took_too_long_is_endless():
    recent = Recent()
    assert (0.0, (0, 0)) == (recent.quantile(0.0, 0.99), recent.failures(0.0))

    recent.add(0.0, 60.0)
    assert math.inf == recent.quantile(0.0, 0.99)


def test_what_is_older_than_five_minutes_is_forgotten():
    recent = Recent()
    recent.add(0.0, 8.0, is_failure=True)
    recent.add(WINDOW_SECONDS, 0.001)

    assert (1, 2) == recent.failures(SPAN_SECONDS)
    assert (0, 1) == recent.failures(SPAN_SECONDS + 1)
    assert recent.quantile(SPAN_SECONDS + 1, 0.99) < 0.002
    assert (0, 0) == recent.failures(SPAN_SECONDS + WINDOW_SECONDS + 1)


def test_its_memory_is_bounded():
    recent = Recent()
    for second in range(10_000):
        recent.add(float(second), 0.001)

    failed, count = recent.failures(9_999.0)
    assert 0 == failed
    assert SPAN_SECONDS - WINDOW_SECONDS <= count <= SPAN_SECONDS
