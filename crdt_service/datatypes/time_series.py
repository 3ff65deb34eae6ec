"""A series of measured points, bounded by a window of time below its newest point.

The state is a set of points cut below a bound that its own largest points set, and such a cut of a union is the cut of
the union of cuts: joining stays associative whatever arrives first. Arrival times play no part.
"""

import heapq
import math
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from crdt_service.datatypes.contract import Datatype, Origin
from crdt_service.datatypes.operation import read_operation, read_packed, refuse
from crdt_service.datatypes.part import cut
from crdt_service.kernel.clock import COUNTER_BITS, DRIFT_SECONDS_MAX, STAMP_MAX
from crdt_service.kernel.error import MalformedError, OperationError
from crdt_service.kernel.ident import is_replica

# Both must be equal on all replicas, for the join depends on them: changing one is a new version of the encoding.
# Raising them costs memory, and lengthens reads, digests and repairs of a full series, which cost its size.
WINDOW_MILLISECONDS = 7 * 24 * 3600 * 1000
POINTS_MAX = 10_000
# The last millisecond that a hybrid logical stamp can name, in the year 6429.
AT_MAX = STAMP_MAX >> COUNTER_BITS
_EXAMPLE = '{"append": {"at": 1767225600000, "value": 0.5}}'

# What a point takes at most beside its replica.
_POINT_BYTES = 30

# Points are ordered by time, then replica; a replica's later point at the same time replaces its earlier one.
Moment = tuple[int, str]
Measurement = tuple[int, float]
At = Annotated[int, Meta(ge=0, le=AT_MAX)]
Stamp = Annotated[int, Meta(ge=1, le=STAMP_MAX)]


class State:
    """Points and what finds the oldest.

    Attributes:
        points: (Unix milliseconds, replica) to (hybrid logical stamp, value).
        queue: The keys of `points` as a heap.
        newest: The latest time of any point, in Unix milliseconds; -1 if there is none.
    """

    __slots__ = ("newest", "points", "queue")

    def __init__(self) -> None:
        self.points: dict[Moment, Measurement] = {}
        self.queue: list[Moment] = []
        self.newest = -1


class _Point(msgspec.Struct, forbid_unknown_fields=True):
    at: At
    value: float


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    append: _Point


_operation = msgspec.json.Decoder(_Operation)
_state = msgspec.msgpack.Decoder(Annotated[list[tuple[At, str, Stamp, float]], Meta(max_length=POINTS_MAX)])
# A batch's points may be more than a state's.
_own = msgspec.msgpack.Decoder(list[tuple[int, str, int, float]])
_encoder = msgspec.msgpack.Encoder()


class TimeSeries(Datatype[State]):
    """Operation ``{"append": {"at": <Unix milliseconds>, "value": <number>}}``; value: a list of [at, value].

    Values are finite 64-bit floats; the list is ordered by time, then replica. A point goes once another is more than
    the window newer, or once `points_max` others are newer. A point must not lie further in the future than clocks may
    drift, by the clock of any node: it would push all others out.

    Args:
        window_milliseconds: How far below the newest point points are kept.
        points_max: How many of the newest points are kept, at most 10 000.
    """

    name = "time_series"
    tag = 9
    version = 1
    operation = _Operation

    def __init__(self, window_milliseconds: int = WINDOW_MILLISECONDS, points_max: int = POINTS_MAX) -> None:
        self._window = window_milliseconds
        self._points_max = points_max

    def empty(self) -> State:
        """Return a series without points."""
        return State()

    def apply(self, state: State, pending: State, op: bytes, origin: Origin) -> State:
        """Return the point alone."""
        point = read_operation(_operation, op, self.name, _EXAMPLE).append
        if not math.isfinite(point.value):
            raise refuse(self.name, "a value is a finite number", _EXAMPLE)
        stamp = origin.tick()
        now = stamp >> COUNTER_BITS if origin.now_milliseconds is None else origin.now_milliseconds()
        if point.at > now + int(DRIFT_SECONDS_MAX * 1000):
            raise OperationError("time_series: the point lies in the future", "send Unix milliseconds of the past")
        if point.at < max(state.newest, pending.newest) - self._window:
            raise OperationError(
                f"time_series: the point is over {self._window} ms older than the newest", "append points in time"
            )
        delta = State()
        _insert(delta, (point.at, origin.replica), (stamp, point.value + 0.0))  # Two zeros would have different bytes.
        return delta

    def is_blind(self, op: bytes) -> bool:
        """Return that it is: points only come."""
        return True

    def join(self, state: State, delta: State) -> State:
        """Return the union, cut at the window and the number of points; costs the delta and what leaves."""
        for moment, measurement in delta.points.items():
            _insert(state, moment, measurement)
        floor = state.newest - self._window
        while state.queue and (state.queue[0][0] < floor or len(state.queue) > self._points_max):
            del state.points[heapq.heappop(state.queue)]
        return state

    def is_vacant(self, state: State) -> bool:
        """Tell whether it has no points; once it has, its newest never expires."""
        return not state.points

    def value(self, state: State) -> object:
        """Return the points in order, without replicas."""
        return [[at, value] for (at, _), (_, value) in sorted(state.points.items())]

    def encode(self, state: State) -> bytes:
        """Return time, replica, stamp and value of the points in order."""
        return _encoder.encode([(*moment, *measurement) for moment, measurement in sorted(state.points.items())])

    def decode(self, data: bytes) -> State:
        """Return the points."""
        state = State()
        for at, replica, stamp, value in read_packed(_state, data, self.name):
            if not is_replica(replica) or not math.isfinite(value):
                raise MalformedError(f"{self.name}: a point has no replica or no number")
            _insert(state, (at, replica), (stamp, value + 0.0))
        cut = state.queue and state.queue[0][0] < state.newest - self._window
        if cut or len(state.queue) > self._points_max or self.encode(state) != data:
            raise MalformedError(f"{self.name}: not canonical")
        return state

    def restore(self, data: bytes) -> State:
        """Return the points of bytes that this program wrote."""
        plain = read_packed(_own, data, self.name)
        return _fill(((at, replica), (stamp, value)) for at, replica, stamp, value in plain)

    def split(self, state: State, bytes_max: int) -> Iterator[State]:
        """Yield some points at a time."""
        yield from map(
            _fill, cut(sorted(state.points.items()), lambda point: len(point[0][1]) + _POINT_BYTES, bytes_max)
        )

    def newest_stamp(self, state: State) -> int:
        """Return the newest stamp of any point, whatever time the point is of."""
        return max((stamp for stamp, _ in state.points.values()), default=0)


def _fill(points: Iterable[tuple[Moment, Measurement]]) -> State:
    state = State()
    for moment, measurement in points:
        _insert(state, moment, measurement)
    return state


def _insert(state: State, moment: Moment, measurement: Measurement) -> None:
    old = state.points.get(moment)
    if old is None:
        heapq.heappush(state.queue, moment)
        state.newest = max(state.newest, moment[0])
    if old is None or old < measurement:
        state.points[moment] = measurement
