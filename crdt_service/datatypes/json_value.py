"""JSON values of users in their one canonical form: sorted keys, no spaces, bounded size and nesting."""

import msgspec

from crdt_service.kernel.error import MalformedError, OperationError

# Far below the interpreter's own limit, which depends on the caller's stack: what one replica takes, all can.
DEPTH_MAX = 64
_encoder = msgspec.json.Encoder(order="deterministic")
_ERRORS = (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError, ValueError)


def pack_json(value: object, bytes_max: int) -> bytes:
    """Return the canonical JSON of a decoded value.

    Raises:
        OperationError: It is larger than `bytes_max`, nests deeper than 64, or has no JSON form.
    """
    try:
        text = _encoder.encode(value)
    except _ERRORS as error:
        raise OperationError(f"the value is no JSON: {error}", "store a JSON value") from error
    if _is_deep(text, value):
        raise OperationError(f"the value nests deeper than {DEPTH_MAX}", "store a flatter value", "limit_exceeded")
    if len(text) > bytes_max:
        size = f"{bytes_max >> 10} KiB" if bytes_max < 1 << 20 else f"{bytes_max >> 20} MiB"
        raise OperationError(f"the value is larger than {size}", "store a smaller value", "limit_exceeded")
    return text


def check_json(text: bytes, bytes_max: int) -> None:
    """Refuse bytes that `pack_json` never returns.

    Raises:
        MalformedError: They are not canonical JSON within the limits.
    """
    try:
        value = msgspec.json.decode(text)
        canonical = len(text) <= bytes_max and _encoder.encode(value) == text
    except _ERRORS as error:
        raise MalformedError(f"a value is no JSON: {error}") from error
    if not canonical or _is_deep(text, value):
        raise MalformedError("a value is not canonical JSON")


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
