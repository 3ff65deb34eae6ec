"""The one loop that waits for something outside. Owns time; knows nothing of what is waited for."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from harness.failure import Failure

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """The wait is over; carries what was waited for."""

    value: T


@dataclass(frozen=True, slots=True)
class Pending:
    """Not yet; `state` says how far it has come, for the progress line and for the time-out's message."""

    state: str


class WaitTimeoutError(Failure):
    """The deadline passed first.

    Args:
        what: What was waited for.
        waited_seconds: How long.
        state: The last state that the probe saw.
    """

    def __init__(self, what: str, waited_seconds: float, state: str) -> None:
        super().__init__(f"timed out after {waited_seconds:.0f} s waiting for {what}; last seen: {state}")
        self.state = state


def wait_until(
    probe: Callable[[], Done[T] | Pending],
    *,
    what: str = "it",
    deadline_seconds: float,
    interval_seconds: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[str], None] = lambda _state: None,
) -> T:
    """Call `probe` until it is done and return its value.

    The probe is called at least once, and once more at the deadline itself. What it raises passes through:
    that is how a probe says that waiting is hopeless.

    Args:
        probe: Looks once, without waiting.
        what: What is waited for, for the time-out's message.
        deadline_seconds: How long to wait at most.
        interval_seconds: Pause between two looks.
        clock: Seconds that only grow.
        sleep: Pauses for that many seconds.
        progress: Called with each state that differs from the one before.

    Raises:
        WaitTimeoutError: The deadline passed; carries the last state.
    """
    start = clock()
    seen: str | None = None
    while True:
        outcome = probe()
        if isinstance(outcome, Done):
            return outcome.value
        if outcome.state != seen:
            seen = outcome.state
            progress(seen)
        left = start + deadline_seconds - clock()
        if left <= 0:
            raise WaitTimeoutError(what, clock() - start, outcome.state)
        sleep(min(interval_seconds, left))
