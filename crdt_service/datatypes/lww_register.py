"""A register whose latest write wins: ordered by hybrid logical stamp, then replica id, then bytes."""

from typing import Annotated

import msgspec
from msgspec import Meta

from crdt_service.datatypes.contract import Datatype, Origin
from crdt_service.datatypes.json_value import check_json, pack_json
from crdt_service.datatypes.operation import is_clear, read_operation, read_packed
from crdt_service.kernel.clock import STAMP_MAX
from crdt_service.kernel.error import MalformedError
from crdt_service.kernel.ident import is_replica

VALUE_BYTES_MAX = 1 << 20
# (stamp, replica, canonical JSON); the bytes break ties that only a damaged or hostile peer can make.
State = tuple[int, str, bytes]
_EXAMPLE = '{"assign": <JSON value>}'
_EMPTY: State = (0, "", b"null")
# What a cleared register holds beside its stamp; no JSON is empty.
_GONE = b""


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


class LwwRegister(Datatype[State]):
    """Operations ``{"assign": <any JSON>}``, at most 1 MiB, and ``{"clear": true}``; value: the JSON, null if cleared.

    Of an assignment and a clearing that missed each other the later wins, as of two assignments.
    """

    name = "lww_register"
    tag = 2
    version = 1
    operation = _Operation
    can_clear = True

    def empty(self) -> State:
        """Return a register that nothing was assigned to; its value is null."""
        return _EMPTY

    def apply(self, state: State, pending: State, op: bytes, origin: Origin) -> State:
        """Return the assignment, stamped later than all this replica has seen."""
        if is_clear(op):
            return (origin.tick(), origin.replica, _GONE)
        assigned = read_operation(_operation, op, self.name, _EXAMPLE).assign
        value = pack_json(assigned, VALUE_BYTES_MAX)
        return (origin.tick(), origin.replica, value)

    def is_blind(self, op: bytes) -> bool:
        """Return that it is: the later stamp wins, of a clearing too."""
        return True

    def join(self, state: State, delta: State) -> State:
        """Return the later of both."""
        return max(state, delta)

    def value(self, state: State) -> object:
        """Return the JSON value, raw."""
        return msgspec.Raw(state[2] or b"null")

    def is_vacant(self, state: State) -> bool:
        """Tell whether it was cleared, or never assigned to."""
        return state == _EMPTY or state[2] == _GONE

    def encode(self, state: State) -> bytes:
        """Return stamp, replica and value."""
        return _encoder.encode(state)

    def decode(self, data: bytes) -> State:
        """Return stamp, replica and value."""
        state = read_packed(_state, data, self.name)
        if state[2] != _GONE:
            check_json(state[2], VALUE_BYTES_MAX)
        if self.encode(state) != data or not (state == _EMPTY or (state[0] > 0 and is_replica(state[1]))):
            raise MalformedError("lww_register: not canonical")
        return state

    def restore(self, data: bytes) -> State:
        """Return stamp, replica and value of bytes that this program wrote."""
        return read_packed(_state, data, self.name)

    def newest_stamp(self, state: State) -> int:
        """Return the stamp of the assignment."""
        return state[0]
