"""A limit of requests: how many at once, and how many a minute."""

import math
from typing import Annotated

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token bucket that holds `burst_limit` and is refilled with `requests_per_minute`."""

    requests_per_minute: Count
    burst_limit: Count

    @property
    def per_second(self) -> float:
        """The refill in a second."""
        return self.requests_per_minute / 60

    @property
    def window_seconds(self) -> int:
        """How long an empty bucket takes to fill, rounded up."""
        return math.ceil(self.burst_limit / self.per_second)
