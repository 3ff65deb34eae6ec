"""What the backup job tells of itself: a record under a key that clients cannot reach, which nodes show as metrics.

The store replicates it and keeps it over restarts, so that a job that is gone needs nobody to hold its numbers.
"""

from typing import TypeVar

import msgspec

from crdt_service.kernel.ident import RESERVED_PREFIX

SUCCESS_KEY = f"{RESERVED_PREFIX}backup-success"
FAILURE_KEY = f"{RESERVED_PREFIX}backup-failure"
TYPE = "lww_register"
T = TypeVar("T")


class Success(msgspec.Struct, frozen=True):
    """The last backup that is whole: when it began and was done, how large it is, and how many keys it holds."""

    began_at_seconds: float
    ended_at_seconds: float
    size_bytes: int
    keys: int


class Failure(msgspec.Struct, frozen=True):
    """When a job last failed."""

    ended_at_seconds: float


def encode_operation(record: Success | Failure) -> bytes:
    """Return the operation that writes a record."""
    return msgspec.json.encode({"assign": record})


def decode_success(value: bytes | None) -> Success | None:
    """Return the record of a key's value as JSON; None if there is none that this program reads."""
    return _decode(value, Success)


def decode_failure(value: bytes | None) -> Failure | None:
    """Return the record as `decode_success` does."""
    return _decode(value, Failure)


def _decode(value: bytes | None, kind: type[T]) -> T | None:
    if value is None:
        return None
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
