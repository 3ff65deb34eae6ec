"""A node's wall clock: off by a skew, too fast or slow, and set back and forth."""

EPOCH_SECONDS = 1_000_000.0


class SimClock:
    def __init__(self, now, skew_seconds, rate):
        self._now = now
        self._rate = rate
        self.skew_seconds = skew_seconds

    def now_seconds(self):
        return EPOCH_SECONDS + self.skew_seconds + self._now() * self._rate
