"""A set of strings that only grows, joined by union (Shapiro et al., INRIA RR-7506, 2011)."""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from crdt_service.datatypes.aw_set import Element
from crdt_service.datatypes.contract import Datatype, Origin
from crdt_service.datatypes.operation import fits_text, read_operation, read_packed, refuse
from crdt_service.datatypes.part import PART_ITEMS_MAX, cut
from crdt_service.kernel.error import MalformedError, OperationError

_EXAMPLE = '{"add": "x"}'
# One writer stops here; raising it lengthens reads, digests and repairs of a full set, which cost its size.
ELEMENTS_MAX = 10_000
_LENGTH_BYTES = 3
State = set[str]


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    add: Element


_operation = msgspec.json.Decoder(_Operation)
_state = msgspec.msgpack.Decoder(Annotated[list[Element], Meta(max_length=PART_ITEMS_MAX)])
_own: msgspec.msgpack.Decoder[list[str]] = msgspec.msgpack.Decoder(list[str])
_encoder = msgspec.msgpack.Encoder()


class GSet(Datatype[State]):
    """Operation ``{"add": s}``, s at most 256 bytes of UTF-8; value: a sorted list."""

    name = "g_set"
    tag = 5
    version = 1
    operation = _Operation
    is_repeatable = True

    def empty(self) -> State:
        """Return the empty set."""
        return set()

    def apply(self, state: State, pending: State, op: bytes, origin: Origin) -> State:
        """Return the element alone."""
        element = read_element(op)
        if element not in state and element not in pending and len(state) + len(pending) >= ELEMENTS_MAX:
            raise OperationError(f"the set holds {ELEMENTS_MAX} elements", "use another key", "limit_exceeded")
        return {element}

    def is_blind(self, op: bytes) -> bool:
        """Return that it is: elements only come."""
        return True

    def join(self, state: State, delta: State) -> State:
        """Return the union."""
        state |= delta
        return state

    def value(self, state: State) -> object:
        """Return the elements in order."""
        return sorted(state)

    def encode(self, state: State) -> bytes:
        """Return the elements in order."""
        return _encoder.encode(sorted(state))

    def decode(self, data: bytes) -> State:
        """Return the elements."""
        elements = read_packed(_state, data, self.name)
        state = set(elements)
        canonical = _encoder.encode(elements) == data and len(state) == len(elements) and elements == sorted(elements)
        if not canonical or not all(map(fits_text, state)):
            raise MalformedError(f"{self.name}: not canonical")
        return state

    def restore(self, data: bytes) -> State:
        """Return the elements of bytes that this program wrote."""
        elements: list[str] = read_packed(_own, data, self.name)
        return set(elements)

    def split(self, state: State, bytes_max: int) -> Iterator[State]:
        """Yield some elements at a time."""
        yield from map(set, cut(sorted(state), lambda element: len(element.encode()) + _LENGTH_BYTES, bytes_max))


def read_element(op: bytes) -> str:
    """Return the element of a JSON operation.

    Raises:
        OperationError: It is malformed.
    """
    element = read_operation(_operation, op, GSet.name, _EXAMPLE).add
    if not fits_text(element):
        raise refuse(GSet.name, "an element is at most 256 bytes of UTF-8", _EXAMPLE)
    return element
