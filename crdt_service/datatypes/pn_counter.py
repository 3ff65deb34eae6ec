"""A counter that goes up and down: per replica the totals of both directions, joined by maximum."""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from crdt_service.datatypes.contract import Datatype, Origin
from crdt_service.datatypes.operation import read_operation, read_packed, refuse
from crdt_service.datatypes.origins import check_origin
from crdt_service.datatypes.part import PART_ITEMS_MAX, cut
from crdt_service.kernel.error import MalformedError, OperationError
from crdt_service.kernel.ident import is_replica

_EXAMPLE = '{"increment": 3} or {"decrement": 3}'
TOTAL_MAX = 2**63 - 1
Amount = Annotated[int, Meta(ge=1, le=2**53 - 1)]
Count = Annotated[int, Meta(ge=0, le=TOTAL_MAX)]
# What two totals take at most, with the lengths around them.
_TOTALS_BYTES = 24
State = dict[str, tuple[int, int]]


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    increment: Amount | UnsetType = UNSET
    decrement: Amount | UnsetType = UNSET


_operation = msgspec.json.Decoder(_Operation)
_state = msgspec.msgpack.Decoder(Annotated[list[tuple[str, Count, Count]], Meta(max_length=PART_ITEMS_MAX)])
_own: msgspec.msgpack.Decoder[list[tuple[str, int, int]]] = msgspec.msgpack.Decoder(list[tuple[str, int, int]])
_encoder = msgspec.msgpack.Encoder()


class PnCounter(Datatype[State]):
    """Operations ``{"increment": n}`` and ``{"decrement": n}``, n from 1 to 2**53 - 1; value: an integer."""

    name = "pn_counter"
    tag = 1
    version = 1
    operation = _Operation

    def empty(self) -> State:
        """Return a counter at zero."""
        return {}

    def apply(self, state: State, pending: State, op: bytes, origin: Origin) -> State:
        """Return this replica's new totals."""
        added, taken = read_amounts(op)
        check_origin(origin.replica, state, pending)
        old = state.get(origin.replica, (0, 0))
        new = pending.get(origin.replica, (0, 0))
        up = max(old[0], new[0]) + added
        down = max(old[1], new[1]) + taken
        if max(up, down) > TOTAL_MAX:
            raise OperationError("the counter would pass 2**63 - 1", "use another key", "limit_exceeded")
        return {origin.replica: (up, down)}

    def is_blind(self, op: bytes) -> bool:
        """Return that it is: each replica has totals of its own."""
        return True

    def join(self, state: State, delta: State) -> State:
        """Return the maximum per replica and direction."""
        for replica, (up, down) in delta.items():
            old = state.get(replica, (0, 0))
            state[replica] = (max(old[0], up), max(old[1], down))
        return state

    def value(self, state: State) -> object:
        """Return increments less decrements."""
        return sum(up - down for up, down in state.values())

    def encode(self, state: State) -> bytes:
        """Return the totals sorted by replica."""
        return _encoder.encode([(replica, *totals) for replica, totals in sorted(state.items())])

    def decode(self, data: bytes) -> State:
        """Return the totals."""
        totals = read_packed(_state, data, self.name)
        state = {replica: (up, down) for replica, up, down in totals}
        # Minimal msgpack, and sorted without repetition: only then are these the bytes that `encode` returns.
        canonical = _encoder.encode(totals) == data and len(state) == len(totals) and totals == sorted(totals)
        if not canonical or not all(map(is_replica, state)) or (0, 0) in state.values():
            raise MalformedError("pn_counter: not canonical")
        return state

    def restore(self, data: bytes) -> State:
        """Return the totals of bytes that this program wrote."""
        return {replica: (up, down) for replica, up, down in read_packed(_own, data, self.name)}

    def split(self, state: State, bytes_max: int) -> Iterator[State]:
        """Yield the totals of some replicas at a time."""
        yield from map(dict, cut(sorted(state.items()), lambda item: len(item[0]) + _TOTALS_BYTES, bytes_max))


def read_amounts(op: bytes) -> tuple[int, int]:
    """Return the amounts up and down of a JSON operation, one of which is 0.

    Raises:
        OperationError: It is malformed.
    """
    operation = read_operation(_operation, op, PnCounter.name, _EXAMPLE)
    up, down = operation.increment, operation.decrement
    if (up is UNSET) == (down is UNSET):
        raise refuse(PnCounter.name, "exactly one of increment and decrement is needed", _EXAMPLE)
    return (0 if up is UNSET else up), (0 if down is UNSET else down)
