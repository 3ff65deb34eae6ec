import pytest

from harness.poll import Done, Pending, WaitTimeoutError, wait_until
from tests.unit.harness.fake_api import FakeClock


def test_returns_the_value_and_reports_each_state_once() -> None:
    clock = FakeClock()
    outcomes = iter([Pending("0/2"), Pending("0/2"), Pending("1/2"), Done("both")])
    states: list[str] = []

    value = wait_until(
        lambda: next(outcomes), deadline_seconds=10, clock=clock, sleep=clock.sleep, progress=states.append
    )

    assert value == "both"
    assert states == ["0/2", "1/2"]
    assert clock.now == 1003


def test_a_timeout_carries_the_last_state_and_looks_once_more_at_the_deadline() -> None:
    clock = FakeClock()
    looks: list[float] = []

    def probe() -> Pending:
        looks.append(clock.now)
        return Pending(f"look {len(looks)}")

    with pytest.raises(WaitTimeoutError) as caught:
        wait_until(probe, what="the pods", deadline_seconds=5, interval_seconds=2, clock=clock, sleep=clock.sleep)

    assert looks == [1000, 1002, 1004, 1005]
    assert caught.value.message == "timed out after 5 s waiting for the pods; last seen: look 4"


def test_what_the_probe_raises_ends_the_wait() -> None:
    def probe() -> Pending:
        raise LookupError("hopeless")

    with pytest.raises(LookupError, match="hopeless"):
        wait_until(probe, deadline_seconds=5)
