from crdt_service.plugins.breaker import BACKOFF_SECONDS_MAX, FAILURES_MAX, PROBATION_SECONDS, Breaker


def fail(breaker: Breaker, times: int, now: float = 0.0) -> str:
    for _ in range(times):
        breaker.fail("broken", now, is_loss=False)
    return breaker.state(now)


def test_failures_in_a_row_disable():
    assert ["active", "failing", "disabled"] == [
        fail(Breaker(), times) for times in (0, FAILURES_MAX - 1, FAILURES_MAX)
    ]


def test_a_success_starts_the_count_anew():
    breaker = Breaker()
    fail(breaker, FAILURES_MAX - 1)
    breaker.succeed()

    assert ("active", "") == (breaker.state(0), breaker.error)
    assert "failing" == fail(breaker, FAILURES_MAX - 1)


def test_after_the_backoff_one_failure_disables_for_longer():
    breaker, now, waits = Breaker(), 100.0, []
    fail(breaker, FAILURES_MAX, now)
    for _ in range(12):
        assert "disabled" == breaker.state(now)
        waits.append(breaker.retry_at - now)
        now = breaker.retry_at
        assert "failing" == breaker.state(now)
        breaker.fail("again", now, is_loss=False)

    assert [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300] == waits
    assert BACKOFF_SECONDS_MAX == waits[-1]


def test_what_fails_while_disabled_does_not_make_it_longer():
    breaker = Breaker()
    fail(breaker, FAILURES_MAX)
    retry_at = breaker.retry_at
    fail(breaker, 10)

    assert retry_at == breaker.retry_at


def test_a_minute_without_failure_is_as_good_as_a_success():
    breaker = Breaker()
    fail(breaker, 1)

    assert "failing" == breaker.state(PROBATION_SECONDS - 1)
    assert "active" == breaker.state(PROBATION_SECONDS)


def test_lost_processes_disable_whatever_succeeds_between_unless_they_are_rare():
    often, rarely = Breaker(), Breaker()
    for number in range(FAILURES_MAX):
        for breaker, apart in (often, PROBATION_SECONDS - 1), (rarely, PROBATION_SECONDS):
            breaker.fail("lost", number * apart, is_loss=True)
            assert breaker is rarely or number == FAILURES_MAX - 1 or "failing" == breaker.state(number * apart)
            breaker.succeed()

    assert "disabled" == often.state((FAILURES_MAX - 1) * (PROBATION_SECONDS - 1))
    assert "failing" == rarely.state((FAILURES_MAX - 1) * PROBATION_SECONDS)
