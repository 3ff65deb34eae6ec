"""A register whose latest write wins: ordered by hybrid logical stamp, then replica id, then bytes."""

from typing import Annotated

import msgspec
from msgspec import Meta

from crdt_service.datatypes.contract import Datatype, Origin
from crdt_service.kernel.clock import STAMP_MAX
from crdt_service.kernel.error import MalformedError, OperationError
from crdt_service.kernel.ident import is_replica

VALUE_BYTES_MAX = 1 << 20
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
            value = _json.encode(_operation.decode(op).assign)
        except _decode_errors as error:
            raise OperationError(f"lww_register: {error}", 'send {"assign": <JSON value>}') from error
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
            canonical = _json.encode(msgspec.json.decode(state[2])) == state[2] and self.encode(state) == data
        except _decode_errors as error:
            raise MalformedError(f"lww_register: {error}") from error
        if not canonical or not (state == _EMPTY or (state[0] > 0 and is_replica(state[1]))):
            raise MalformedError("lww_register: not canonical")
        return state

    def newest_stamp(self, state: State) -> int:
        """Return the stamp of the assignment."""
        return state[0]
