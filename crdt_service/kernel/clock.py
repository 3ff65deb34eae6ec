"""Wall clock and hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014)."""

import time
from typing import Protocol

COUNTER_BITS = 16
STAMP_MAX = 2**63 - 1
# Raising it lets a peer with a wrong clock win every register for longer; lowering it refuses peers whose NTP is slow.
DRIFT_SECONDS_MAX = 60.0


class Clock(Protocol):
    """The wall clock as an argument."""

    def now_seconds(self) -> float:
        """Return seconds since the Unix epoch."""
        ...


class SystemClock:
    """The machine's wall clock."""

    def now_seconds(self) -> float:
        """Return seconds since the Unix epoch."""
        return time.time()


def boot_milliseconds() -> int:
    """Return the milliseconds since this machine started: never less than before, suspended time included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class HybridClock:
    """Stamps that follow wall time, never repeat and exceed every stamp observed.

    A stamp is ``milliseconds << 16 | counter``, at most 2**63 - 1.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def tick(self) -> int:
        """Return a new stamp, greater than all before."""
        self._last = max(self._last + 1, self._physical())
        return self._last

    def observe(self, stamp: int) -> None:
        """Let later stamps exceed `stamp`; callers keep absurd ones away."""
        self._last = max(self._last, stamp)

    def is_absurd(self, stamp: int) -> bool:
        """Tell whether `stamp` lies further in the future than clocks may drift."""
        return stamp > self._physical() + (int(DRIFT_SECONDS_MAX * 1000) << COUNTER_BITS)

    def _physical(self) -> int:
        return int(self._clock.now_seconds() * 1000) << COUNTER_BITS
