"""When a plugin is left alone: after failures in a row, for longer each time."""

# Raising it bears with more; lowering it gives up on a plugin that stumbles over a few requests.
FAILURES_MAX = 5
BACKOFF_SECONDS = 1.0
BACKOFF_SECONDS_MAX = 300.0
# So long without failure, a plugin that nobody calls counts as well again.
PROBATION_SECONDS = 60.0
ACTIVE = "active"
FAILING = "failing"
DISABLED = "disabled"


class Breaker:
    """Counts failures in a row, and lost processes; times are seconds on a monotonic clock.

    A call that succeeds ends a row of failures. It says nothing of lost processes: a leak is many successes and a loss.
    A row of those ends after `PROBATION_SECONDS` without. After `FAILURES_MAX` of either the plugin is disabled; it is
    tried again after a backoff that doubles with each disabling, and from then on a single failure disables it.

    Attributes:
        error: The last failure; empty while there is none.
        retry_at: Until when it is disabled.
    """

    def __init__(self) -> None:
        self.error = ""
        self.retry_at = 0.0
        self._failed_at = 0.0
        self._failures = 0
        self._losses = 0
        self._trips = 0

    def state(self, now: float) -> str:
        """Return active, failing or disabled."""
        if self.error and max(self.retry_at, self._failed_at) + PROBATION_SECONDS <= now:
            self._losses = 0
            self.succeed()
        return DISABLED if now < self.retry_at else FAILING if self.error else ACTIVE

    def succeed(self) -> None:
        """Take in that a call succeeded."""
        self._failures = 0
        if not self._losses:
            self.error = ""
            self._trips = 0

    def fail(self, error: str, now: float, *, is_loss: bool) -> None:
        """Take in a failure; `is_loss` if it cost the process."""
        self.state(now)
        self.error = error
        self._failed_at = now
        self._failures += 1
        self._losses += is_loss
        if max(self._failures, self._losses) >= FAILURES_MAX and self.retry_at <= now:
            self.retry_at = now + min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS * 2.0**self._trips)
            self._trips += 1
