"""Token buckets of many callers, each drained by every backend of the cluster.

A bucket is kept as its debt: the tokens that it lacks. Debt shrinks with time, at the rate of the limit, and grows with
every request that is let through, here and, as soon as their reports arrive, in other backends. A report has for each
caller what its backend let through since it started, which only grows, so a lost report costs nothing; and its debt,
from which a backend that has just started learns what happened before. What several backends let through at once,
before they heard of each other, becomes debt as well: it is not forgiven, but waited for.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from crdt_service.access.limit import Limit

# Raising it costs about 500 bytes each; beyond it those who were silent for longest start anew.
CALLERS_MAX = 10_000
# Those with the largest debts; the others are limited by each backend alone.
REPORTED_MAX = 512
_LARGEST = 2**53
# Who took more since the last report than this part of what is left is reported at once, but not for less than what so
# many seconds refill: near an empty bucket others must hear soon, and one that stays empty needs no more rounds for it.
_HURRY_PART = 1 / 8
_HURRY_SECONDS = 0.5


class Usage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a backend says of a caller.

    Attributes:
        used: Tokens taken there since it started.
        debt: Tokens that the bucket lacked as that backend saw it.
    """

    used: Annotated[int, Meta(ge=0, le=_LARGEST)]
    debt: Annotated[float, Meta(ge=0, le=_LARGEST)]


Report = dict[Annotated[str, Meta(max_length=64)], Usage]


class Taken(NamedTuple):
    """What became of a request.

    Attributes:
        is_allowed: Whether the tokens were there; else none were taken.
        burst_limit: What the bucket holds.
        remaining: Tokens left.
        full_seconds: Until the bucket is full.
        retry_seconds: Until the tokens are there; 0 if allowed, infinite if there will never be that many.
    """

    is_allowed: bool
    burst_limit: int
    remaining: int
    full_seconds: int
    retry_seconds: float


class _Bucket:
    """`per_second` is 0 until the caller comes here itself: its limit is not known before."""

    __slots__ = ("at", "debt", "per_second", "reported", "seen", "used")

    def __init__(self, now: float) -> None:
        self.debt = 0.0
        self.at = now
        self.per_second = 0.0
        self.used = 0
        self.reported = 0
        self.seen: dict[str, int] = {}

    def settle(self, now: float) -> None:
        self.debt = max(0.0, self.debt - (now - self.at) * self.per_second)
        self.at = now


class Buckets:
    """The buckets of one backend."""

    def __init__(self, callers_max: int = CALLERS_MAX, hurry: Callable[[], None] = lambda: None) -> None:
        """Start with none; `hurry` is called when a caller takes so much that a report should not wait."""
        self._callers_max = callers_max
        self._hurry = hurry
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, caller: str, limit: Limit, now: float, *, cost: int = 1, parts: int = 1) -> Taken:
        """Take `cost` tokens from a caller's bucket, if it has them; `now` is monotonic.

        Args:
            caller: Whose bucket.
            limit: How large it is.
            now: Seconds.
            cost: At least 1.
            parts: Between how many backends that do not hear of each other the limit is divided.
        """
        bucket = self._find(caller, now)
        bucket.per_second = limit.per_second / parts
        bucket.settle(now)
        burst = max(1, limit.burst_limit // parts)
        # So that nobody waits for longer than twice what an empty bucket takes, whatever was reported.
        bucket.debt = min(bucket.debt, 2.0 * burst)
        missing = bucket.debt + cost - burst
        if missing > 0:
            wait = missing / bucket.per_second if cost <= burst else math.inf
            full = math.ceil(bucket.debt / bucket.per_second)
            return Taken(False, burst, max(0, int(burst - bucket.debt)), full, wait)
        bucket.debt += cost
        bucket.used += cost
        left = burst - bucket.debt
        if bucket.used - bucket.reported > max(left * _HURRY_PART, bucket.per_second * _HURRY_SECONDS):
            self._hurry()
        return Taken(True, burst, int(left), math.ceil(bucket.debt / bucket.per_second), 0.0)

    def report(self, now: float) -> Report:
        """Return what others should hear: the callers that took something here and whose buckets are not full."""
        owing = []
        for caller, bucket in self._buckets.items():
            if bucket.used:
                bucket.settle(now)
                bucket.reported = bucket.used
                if bucket.debt:
                    owing.append((bucket.debt, caller, bucket))
        owing.sort(key=lambda each: each[:2], reverse=True)
        return {caller: Usage(bucket.used, round(debt, 1)) for debt, caller, bucket in owing[:REPORTED_MAX]}

    def merge(self, reports: Mapping[str, Report], now: float) -> None:
        """Add what other backends let through since their reports before; `reports` are all that there are, by name."""
        news: dict[str, list[Usage]] = {}
        for backend, report in reports.items():
            for caller, usage in report.items():
                bucket = self._find(caller, now)
                seen = bucket.seen.get(backend, -1)
                bucket.seen[backend] = usage.used
                if seen == usage.used:
                    continue
                if bucket.per_second and 0 <= seen < usage.used:
                    bucket.debt += usage.used - seen
                else:
                    news.setdefault(caller, []).append(usage)
        for caller, usages in news.items():
            bucket = self._find(caller, now)
            debt = max(usage.debt for usage in usages)
            if bucket.per_second:
                bucket.settle(now)
                debt = max(debt, bucket.debt + _unheard(usages))
            bucket.debt, bucket.at = debt, now

    def forget(self, backend: str) -> None:
        """Forget what was seen of a backend that is gone."""
        for bucket in self._buckets.values():
            bucket.seen.pop(backend, None)

    def _find(self, caller: str, now: float) -> _Bucket:
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = _Bucket(now)
            if len(self._buckets) > self._callers_max:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(caller)
        return bucket


def _unheard(usages: list[Usage]) -> float:
    """Return the debt in first reports of other backends, which know of each other or not.

    Where a backend let through little more than is owed, it started not long ago, and those add up. Of one that let
    through much more, most was waited for, and what is owed is the debt that all old ones share.
    """
    young = sum(min(usage.used, usage.debt) for usage in usages if usage.used <= 2 * usage.debt)
    old = max((usage.debt for usage in usages if usage.used > 2 * usage.debt), default=0.0)
    return max(young, old)
