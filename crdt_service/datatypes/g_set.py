"""A set of strings that only grows, joined by union (Shapiro et al., INRIA RR-7506, 2011)."""

import msgspec

from crdt_service.datatypes.aw_set import Element
from crdt_service.datatypes.contract import Datatype, Origin
from crdt_service.datatypes.operation import fits_text, read_operation, read_packed, refuse
from crdt_service.kernel.error import MalformedError, OperationError

_EXAMPLE = '{"add": "x"}'
# One writer stops here; raising it lengthens reads, digests and repairs of a full set, which cost its size.
ELEMENTS_MAX = 10_000
State = set[str]


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    add: Element


_operation = msgspec.json.Decoder(_Operation)
_state = msgspec.msgpack.Decoder(list[Element])
_encoder = msgspec.msgpack.Encoder()


class GSet(Datatype[State]):
    """Operation ``{"add": s}``, s at most 256 bytes of UTF-8; value: a sorted list."""

    name = "g_set"
    tag = 5
    version = 1

    def empty(self) -> State:
        """Return the empty set."""
        return set()

    def apply(self, state: State, pending: State, op: bytes, origin: Origin) -> State:
        """Return the element alone."""
        element = read_element(op)
        if element not in state and element not in pending and len(state) + len(pending) >= ELEMENTS_MAX:
            raise OperationError(f"the set holds {ELEMENTS_MAX} elements", "use another key", "limit_exceeded")
        return {element}

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
        if not all(map(fits_text, state)) or self.encode(state) != data:
            raise MalformedError(f"{self.name}: not canonical")
        return state


def read_element(op: bytes) -> str:
    """Return the element of a JSON operation.

    Raises:
        OperationError: It is malformed.
    """
    element = read_operation(_operation, op, GSet.name, _EXAMPLE).add
    if not fits_text(element):
        raise refuse(GSet.name, "an element is at most 256 bytes of UTF-8", _EXAMPLE)
    return element
