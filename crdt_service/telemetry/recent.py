"""How something went of late: times and failures, in bounded memory."""

import bisect
from collections import deque
from dataclasses import dataclass, field

WINDOW_SECONDS = 10.0
# Raising it remembers for longer.
WINDOWS = 30
SPAN_SECONDS = WINDOW_SECONDS * WINDOWS
_BOUNDS = tuple(0.0001 * 1.5**step for step in range(30))


@dataclass(slots=True)
class _Window:
    start: float
    failed: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS) + 1))


class Recent:
    """The last five minutes; quantiles are too high by at most a half."""

    def __init__(self) -> None:
        self._windows: deque[_Window] = deque(maxlen=WINDOWS)

    def add(self, now: float, seconds: float, *, is_failure: bool = False) -> None:
        """Count something that took so long; `now` is of a clock in seconds that never goes back."""
        if not self._windows or now >= self._windows[-1].start + WINDOW_SECONDS:
            self._windows.append(_Window(now))
        window = self._windows[-1]
        window.counts[bisect.bisect_left(_BOUNDS, seconds)] += 1
        window.failed += is_failure

    def quantile(self, now: float, share: float) -> float:
        """Return a time in seconds that so large a share stayed within; 0 if there was nothing.

        What took longer than 12 s counts as endless.
        """
        columns = zip(*(window.counts for window in self._live(now)), strict=True)
        counts = [sum(column) for column in columns]
        wanted = share * sum(counts)
        if not wanted:
            return 0.0
        seen = 0
        for bound, count in zip(_BOUNDS, counts, strict=False):
            seen += count
            if seen >= wanted:
                return bound
        return float("inf")

    def failures(self, now: float) -> tuple[int, int]:
        """Return how many failed, and how many there were."""
        live = self._live(now)
        return sum(window.failed for window in live), sum(sum(window.counts) for window in live)

    def _live(self, now: float) -> list[_Window]:
        return [window for window in self._windows if window.start >= now - SPAN_SECONDS]
