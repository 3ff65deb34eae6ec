"""A register whose latest write wins: ordered by hybrid logical stamp, then replica id, then bytes."""

from typing import Annotated

import msgspec
from msgspec import Meta

from crdt_service.datatypes.contract import Datatype, Origin
from crdt_service.kernel.clock import STAMP_MAX
from crdt_service.kernel.error import MalformedError, OperationError
from crdt_service.kernel.ident import is_replica

VALUE_BYTES_MAX = 1 << 20
# Far below the interpreter's own limit, which depends on the caller's stack: what one replica takes, all can.
DEPTH_MAX = 64
# (stamp, replica, canonical JSON); the bytes break ties that only a damaged or hostile peer can make.
State = tuple[int, str, bytes]
_EMPTY: State = (0, "", b"null")


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    assign: object


_operation = msgspec.json.Decoder(_Operation)
_state = msgspec.msgpack.Decoder(
    tuple[
        Annotated[int, Meta(ge=0, le=STAMP_MAX)],
        str,
        Annotated[bytes, Meta(max_length=VALUE_BYTES_MAX)],
    ]
)
_encoder = msgspec.msgpack.Encoder()
_json = msgspec.json.Encoder(order="deterministic")
_decode_errors = (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError, ValueError)


class LwwRegister(Datatype[State]):
    """Operation ``{"assign": <any JSON>}``; value: that JSON, at most 1 MiB."""

    name = "lww_register"
    tag = 2
    version = 1

    def empty(self) -> State:
        """Return a register that nothing was assigned to; its value is null."""
        return _EMPTY

    def apply(self, state: State, pending: State, op: bytes, origin: Origin) -> State:
        """Return the assignment, stamped later than all this replica has seen."""
        try:
            assigned = _operation.decode(op).assign
            value = _json.encode(assigned)
        except _decode_errors as error:
            raise OperationError(f"lww_register: {error}", 'send {"assign": <JSON value>}') from error
        if _is_deep(value, assigned):
            raise OperationError(f"the value nests deeper than {DEPTH_MAX}", "store a flatter value", "limit_exceeded")
        if len(value) > VALUE_BYTES_MAX:
            raise OperationError("the value is larger than 1 MiB", "store a smaller value", "limit_exceeded")
        return (origin.tick(), origin.replica, value)

    def join(self, state: State, delta: State) -> State:
        """Return the later of both."""
        return max(state, delta)

    def value(self, state: State) -> object:
        """Return the JSON value, raw."""
        return msgspec.Raw(state[2])

    def encode(self, state: State) -> bytes:
        """Return stamp, replica and value."""
        return _encoder.encode(state)

    def decode(self, data: bytes) -> State:
        """Return stamp, replica and value."""
        try:
            state = _state.decode(data)
            value = msgspec.json.decode(state[2])
            canonical = _json.encode(value) == state[2] and self.encode(state) == data
        except _decode_errors as error:
            raise MalformedError(f"lww_register: {error}") from error
        if (
            not canonical
            or _is_deep(state[2], value)
            or not (state == _EMPTY or (state[0] > 0 and is_replica(state[1])))
        ):
            raise MalformedError("lww_register: not canonical")
        return state

    def newest_stamp(self, state: State) -> int:
        """Return the stamp of the assignment."""
        return state[0]


def _is_deep(text: bytes, value: object) -> bool:
    """Tell whether `value` nests deeper than allowed; `text` is its JSON, whose brackets rule that out cheaply."""
    if text.count(b"[") + text.count(b"{") <= DEPTH_MAX:
        return False
    return _measure_depth(value, 0) > DEPTH_MAX


def _measure_depth(value: object, depth: int) -> int:
    """Return the nesting of `value`, or one more than allowed as soon as it is too deep."""
    if depth > DEPTH_MAX or not isinstance(value, list | dict):
        return depth
    parts = value.values() if isinstance(value, dict) else value
    return max((_measure_depth(part, depth + 1) for part in parts), default=depth + 1)
