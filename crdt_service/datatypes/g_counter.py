"""A counter that only goes up: per replica its total, joined by maximum (Shapiro et al., INRIA RR-7506, 2011)."""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from crdt_service.datatypes.contract import Datatype, Origin
from crdt_service.datatypes.operation import read_operation, read_packed
from crdt_service.datatypes.origins import check_origin
from crdt_service.datatypes.part import PART_ITEMS_MAX, cut
from crdt_service.datatypes.pn_counter import TOTAL_MAX, Amount
from crdt_service.kernel.error import MalformedError, OperationError
from crdt_service.kernel.ident import is_replica

_EXAMPLE = '{"increment": 3}'
# What a total takes at most, with the lengths around it.
_TOTAL_BYTES = 12
State = dict[str, int]


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    increment: Amount


_operation = msgspec.json.Decoder(_Operation)
_state = msgspec.msgpack.Decoder(
    Annotated[list[tuple[str, Annotated[int, Meta(ge=1, le=TOTAL_MAX)]]], Meta(max_length=PART_ITEMS_MAX)]
)
_own: msgspec.msgpack.Decoder[list[tuple[str, int]]] = msgspec.msgpack.Decoder(list[tuple[str, int]])
_encoder = msgspec.msgpack.Encoder()


class GCounter(Datatype[State]):
    """Operation ``{"increment": n}``, n from 1 to 2**53 - 1; value: an integer."""

    name = "g_counter"
    tag = 4
    version = 1
    operation = _Operation

    def empty(self) -> State:
        """Return a counter at zero."""
        return {}

    def apply(self, state: State, pending: State, op: bytes, origin: Origin) -> State:
        """Return this replica's new total."""
        amount = read_amount(op)
        check_origin(origin.replica, state, pending)
        total = max(state.get(origin.replica, 0), pending.get(origin.replica, 0)) + amount
        if total > TOTAL_MAX:
            raise OperationError("the counter would pass 2**63 - 1", "use another key", "limit_exceeded")
        return {origin.replica: total}

    def is_blind(self, op: bytes) -> bool:
        """Return that it is: each replica has a total of its own."""
        return True

    def join(self, state: State, delta: State) -> State:
        """Return the maximum per replica."""
        for replica, total in delta.items():
            state[replica] = max(state.get(replica, 0), total)
        return state

    def value(self, state: State) -> object:
        """Return the sum."""
        return sum(state.values())

    def encode(self, state: State) -> bytes:
        """Return the totals sorted by replica."""
        return _encoder.encode(sorted(state.items()))

    def decode(self, data: bytes) -> State:
        """Return the totals."""
        totals = read_packed(_state, data, self.name)
        state = dict(totals)
        canonical = _encoder.encode(totals) == data and len(state) == len(totals) and totals == sorted(totals)
        if not canonical or not all(map(is_replica, state)):
            raise MalformedError(f"{self.name}: not canonical")
        return state

    def restore(self, data: bytes) -> State:
        """Return the totals of bytes that this program wrote."""
        totals = read_packed(_own, data, self.name)
        return dict(totals)

    def split(self, state: State, bytes_max: int) -> Iterator[State]:
        """Yield the totals of some replicas at a time."""
        yield from map(dict, cut(sorted(state.items()), lambda item: len(item[0]) + _TOTAL_BYTES, bytes_max))


def read_amount(op: bytes) -> int:
    """Return the amount of a JSON operation.

    Raises:
        OperationError: It is malformed.
    """
    return read_operation(_operation, op, GCounter.name, _EXAMPLE).increment
