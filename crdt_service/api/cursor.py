"""Pages of a listing: their parameters, and cursors, which are bytes that only we read as text that fits into a URL."""

import base64
from collections.abc import Callable
from typing import TypeVar

import msgspec

from crdt_service.api.parameter import Parameter, count, text
from crdt_service.kernel.error import ConfigError, OperationError
from crdt_service.kernel.ident import KEY_BYTES_MAX

LIMIT_DEFAULT = 100
_T = TypeVar("_T")


def page_parameters(limit_max: int, cursor_length_max: int) -> tuple[Parameter, ...]:
    """Return the parameters `prefix`, `limit` and `cursor` of a listing."""
    return (
        text("prefix", KEY_BYTES_MAX, "list only keys that begin so", ""),
        count("limit", 1, limit_max, LIMIT_DEFAULT, "how many at most"),
        text("cursor", cursor_length_max, "go on after the page that gave it"),
    )


def encode_cursor(content: bytes) -> str:
    """Return bytes as URL-safe characters."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decode_cursor(
    given: str, decode: Callable[[bytes], _T], remedy: str = "give the cursor of the page before, unchanged"
) -> _T:
    """Return what `decode` makes of the bytes in a cursor.

    Raises:
        OperationError: It is none, or `decode` takes it for none; `remedy` says which one to give.
    """
    try:
        return decode(base64.b64decode(given.encode("ascii") + b"=" * (-len(given) % 4), altchars=b"-_", validate=True))
    except (ValueError, msgspec.DecodeError, ConfigError, OperationError) as cause:
        raise OperationError("cursor: it is none", remedy, "invalid_cursor") from cause
