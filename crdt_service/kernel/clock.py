"""Wall clock and hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014)."""

import time
from collections.abc import Mapping
from typing import Protocol

COUNTER_BITS = 16
STAMP_MAX = 2**63 - 1
# Stamps follow the wall clock up to this one, of the year 4199, and only count beyond it: they never run out.
CLOCK_STAMP_MAX = 2**62
# What no clock makes and no count reaches: a stamp beyond it is refused, or it would leave no room for later ones.
PEER_STAMP_MAX = 2**62 + 2**61
# Raising it calls clocks right that differ more; lowering it complains of machines whose time service is slow.
DRIFT_SECONDS_MAX = 60.0
# An offset is known to within half of what its measurement took. Raising it has slower networks measured, less exactly.
ROUND_TRIP_SECONDS_MAX = 1.0


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

    A stamp is ``milliseconds << 16 | counter``, at most 2**63 - 1. Stamps of a clock that is ahead are taken like any
    other: later ones exceed them and count on from there until wall time has passed them, so that a later write wins
    whatever the clocks said.

    Attributes:
        offsets: How many seconds the wall clocks of nodes that are heard are ahead of this one, by node id.
    """

    def __init__(self, clock: Clock) -> None:
        self.offsets: dict[str, float] = {}
        self._clock = clock
        self._last = 0

    @property
    def newest(self) -> int:
        """The greatest stamp made or observed, 0 before the first."""
        return self._last

    @property
    def lead_seconds(self) -> float:
        """How far that stamp is ahead of the wall clock; 0 if it is not."""
        return max(0.0, (self._last >> COUNTER_BITS) / 1000 - self.now_seconds())

    def now_seconds(self) -> float:
        """Return the wall clock: seconds since the Unix epoch."""
        return self._clock.now_seconds()

    def now_milliseconds(self) -> int:
        """Return the wall clock: milliseconds since the Unix epoch."""
        return int(self._clock.now_seconds() * 1000)

    def latest_milliseconds(self) -> int:
        """Return the wall clock that is furthest ahead, of this process and of the nodes that are heard."""
        return self.now_milliseconds() + int(1000 * max((0.0, *self.offsets.values())))

    def tick(self) -> int:
        """Return a new stamp, greater than all before."""
        self._last = max(self._last + 1, min(self.now_milliseconds() << COUNTER_BITS, CLOCK_STAMP_MAX))
        return self._last

    def observe(self, stamp: int) -> None:
        """Let later stamps exceed `stamp`; callers keep impossible ones away."""
        self._last = max(self._last, stamp)

    def hear(self, node_id: str, milliseconds: int, stamp: int, round_trip_seconds: float) -> None:
        """Take in what a node said of its clock (Cristian, "Probabilistic clock synchronization", 1989).

        What was long under way says too little of the offset, and is taken for the stamp alone.

        Args:
            node_id: The node.
            milliseconds: Its wall clock when it answered.
            stamp: The greatest stamp that it had made or observed.
            round_trip_seconds: How long ago it was asked.
        """
        if not is_impossible(stamp):
            self.observe(stamp)
        if round_trip_seconds <= ROUND_TRIP_SECONDS_MAX:
            self.offsets[node_id] = milliseconds / 1000 - (self.now_seconds() - round_trip_seconds / 2)

    def forget(self, node_id: str) -> None:
        """Forget the offset of a node that is not heard any more."""
        self.offsets.pop(node_id, None)


def own_offset(offsets: Mapping[str, float]) -> float:
    """Return how far a clock is ahead of that from which it differs most, negative if it is behind; 0 without others.

    Args:
        offsets: How far the others are ahead of it, in seconds.
    """
    return -max(offsets.values(), key=abs, default=0.0) or 0.0


def is_impossible(stamp: int) -> bool:
    """Tell whether no clock can have made `stamp`."""
    return stamp > PEER_STAMP_MAX
