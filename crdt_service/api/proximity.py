"""Which node to ask first, and when it is late: from zones and from how long each took so far. Pure."""

from collections.abc import Mapping, Sequence
from typing import Literal

# As for TCP's retransmission timeout (RFC 6298): smoothed mean and deviation, four of which are the bound.
_MEAN_GAIN = 1 / 8
_DEVIATION_GAIN = 1 / 4
_DEVIATIONS = 4
LATE_SECONDS_MIN = 0.005
LATE_SECONDS_MAX = 0.5
# A node is passed over while it takes so many times as long as the quickest owner, and at least so long.
SLOW_FACTOR = 8
SLOW_SECONDS_MIN = 0.05
# What a node took is forgotten bit by bit while it is not asked, so that a slow one is tried again.
RECOVERY_SECONDS = 10.0

# They take different times: a write is synced, and a quorum asks other nodes.
Kind = Literal["read", "quorum", "write"]


class _Estimate:
    __slots__ = ("deviation", "mean", "seen_at")

    def __init__(self, seconds: float, now: float) -> None:
        self.mean = seconds
        self.deviation = seconds / 2
        self.seen_at = now


class Proximity:
    """How far nodes are: first by zone, then by how long they took.

    Args:
        zone: Where this process runs; empty if that is not known.
    """

    def __init__(self, zone: str) -> None:
        self._zone = zone
        self._estimates: dict[Kind, dict[str, _Estimate]] = {"read": {}, "quorum": {}, "write": {}}

    def observe(self, kind: Kind, node_id: str, seconds: float, now: float) -> None:
        """Take in how long a node took to answer."""
        estimate = self._estimates[kind].get(node_id)
        if estimate is None:
            self._estimates[kind][node_id] = _Estimate(seconds, now)
            return
        error = seconds - estimate.mean
        estimate.mean += _MEAN_GAIN * error
        estimate.deviation += _DEVIATION_GAIN * (abs(error) - estimate.deviation)
        estimate.seen_at = now

    def late_after(self, kind: Kind, node_id: str) -> float:
        """Return after how many seconds a read is late enough to ask another node as well."""
        estimate = self._estimates[kind].get(node_id)
        if estimate is None:
            return LATE_SECONDS_MAX
        late = estimate.mean + _DEVIATIONS * estimate.deviation
        return min(max(late, LATE_SECONDS_MIN), LATE_SECONDS_MAX)

    def order(self, kind: Kind, owners: Sequence[str], zones: Mapping[str, str], now: float) -> list[str]:
        """Return the owners, those that are not slow and in this zone first, else as they were.

        The order is stable, so that all backends of a zone send a key's requests to the same node: it sees their own
        writes at once.
        """
        slow = self.slow(kind, owners, now)
        ranks = [
            (node_id in slow, bool(self._zone) and zones.get(node_id) != self._zone, number)
            for number, node_id in enumerate(owners)
        ]
        return [owners[number] for _, _, number in sorted(ranks)]

    def slow(self, kind: Kind, owners: Sequence[str], now: float) -> set[str]:
        """Return those of the owners that take much longer than the quickest of them."""
        if len(owners) < 2:
            return set()
        means = [self._mean(kind, node_id, now) for node_id in owners]
        bound = max(SLOW_SECONDS_MIN, SLOW_FACTOR * min(means))
        return {node_id for node_id, mean in zip(owners, means, strict=True) if mean > bound}

    def _mean(self, kind: Kind, node_id: str, now: float) -> float:
        estimate = self._estimates[kind].get(node_id)
        if estimate is None:
            return 0.0
        return estimate.mean / (1 + max(0.0, now - estimate.seen_at) / RECOVERY_SECONDS) ** 2
