"""Reading the JSON operations of users: every refusal names the type and shows an operation that would be taken."""

from typing import TypeVar

import msgspec

from crdt_service.kernel.error import MalformedError, OperationError

T = TypeVar("T")

TEXT_BYTES_MAX = 256
_CLEAR = b'"clear"'
_ERRORS = (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError, ValueError)


class _Clear(msgspec.Struct, forbid_unknown_fields=True):
    clear: bool


_clear = msgspec.json.Decoder(_Clear)


def read_operation(decoder: msgspec.json.Decoder[T], op: bytes, name: str, example: str) -> T:
    """Return the decoded operation.

    Raises:
        OperationError: It is not what `decoder` expects.
    """
    try:
        return decoder.decode(op)
    except _ERRORS as error:
        raise refuse(name, str(error), example) from error


def is_clear(op: bytes) -> bool:
    """Tell whether the operation is ``{"clear": true}``; anything else is for the type to read or refuse."""
    if _CLEAR not in op or len(op) > TEXT_BYTES_MAX:
        return False
    try:
        return _clear.decode(op).clear
    except _ERRORS:
        return False


def lists(decoder: msgspec.json.Decoder[T], op: bytes, *names: str) -> bool:
    """Tell whether the operation is well-formed and names one of these members, or clears."""
    if is_clear(op):
        return True
    try:
        operation = decoder.decode(op)
    except _ERRORS:
        return False
    return any(getattr(operation, name) is not msgspec.UNSET for name in names)


def read_packed(decoder: msgspec.msgpack.Decoder[T], data: bytes, name: str) -> T:
    """Return decoded msgpack of a peer or a file.

    Raises:
        MalformedError: It is not what `decoder` expects.
    """
    try:
        return decoder.decode(data)
    except _ERRORS as error:
        raise MalformedError(f"{name}: {error}") from error


def refuse(name: str, message: str, example: str) -> OperationError:
    """Return the error for a malformed operation of the type `name`."""
    return OperationError(f"{name}: {message}", f"send {example}")


def fits_text(text: str) -> bool:
    """Tell whether an element or name is at most 256 bytes of UTF-8."""
    return len(text) <= TEXT_BYTES_MAX and len(text.encode()) <= TEXT_BYTES_MAX
