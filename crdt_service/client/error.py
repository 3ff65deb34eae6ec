"""What can go wrong with a call, and what may be done about it."""

from collections.abc import Mapping

import msgspec

# What the client itself finds. The service has `outcome_unknown`, too, with the same meaning.
INVALID_ARGUMENT = "invalid_argument"
MISCONFIGURED = "misconfigured"
UNREACHABLE = "unreachable"
OUTCOME_UNKNOWN = "outcome_unknown"
UNEXPECTED_ANSWER = "unexpected_answer"
# Enough of an answer that is none of the service's to see whose it is.
_SHOWN_BYTES_MAX = 200


class ApiError(Exception):
    """A call that failed.

    Args:
        code: Stable: one of the service's, or `invalid_argument` (a key, value or other argument cannot be sent),
            `misconfigured` (the URL, a file or a variable of the environment cannot be used), of both of which nothing
            was sent, `unreachable` (no connection, so nothing was done, or a read without an answer),
            `outcome_unknown` (a write's answer is lost: it may have been applied), or `unexpected_answer` (something
            between here and the service answered).
        message: What is wrong.
        remedy: What to do about it; may be empty.
        status: The answer's HTTP status, None without answer.
        request_id: Names the call in the service's logs.
        retry_after_seconds: When the service says that it may be tried again, None if it does not.
    """

    def __init__(
        self,
        code: str,
        message: str,
        remedy: str = "",
        *,
        status: int | None = None,
        request_id: str = "",
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.status = status
        self.request_id = request_id
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        remedy = f" ({self.remedy})" if self.remedy else ""
        status = "" if self.status is None else f"status {self.status}, "
        return f"{self.code}: {self.message}{remedy} [{status}request {self.request_id}]"


class NotFoundError(ApiError):
    """There is no such key."""


class _Members(msgspec.Struct):
    code: str
    message: str
    remedy: str = ""


class _Body(msgspec.Struct):
    error: _Members


class _Foreign(msgspec.Struct):
    """How others, as the Kubernetes API server, say what is wrong."""

    message: str


_body = msgspec.json.Decoder(_Body)
_foreign = msgspec.json.Decoder(_Foreign)


def read_error(status: int, headers: Mapping[str, str], body: bytes, request_id: str) -> ApiError:
    """Return what an answer other than the one hoped for says."""
    request_id = headers.get("x-request-id", request_id)
    after = headers.get("retry-after", "")
    # The other form, a date, no part of the service gives.
    seconds = float(after) if after.isascii() and after.isdecimal() else None
    try:
        error = _body.decode(body).error
    except (ValueError, RecursionError):
        error = _Members(UNEXPECTED_ANSWER, _read_foreign(body), "check what is between here and the service")
    kind = NotFoundError if error.code == "not_found" else ApiError
    return kind(
        error.code,
        error.message,
        error.remedy,
        status=status,
        request_id=request_id,
        retry_after_seconds=seconds,
    )


def _read_foreign(body: bytes) -> str:
    try:
        return _foreign.decode(body).message
    except (ValueError, RecursionError):
        return body[:_SHOWN_BYTES_MAX].decode(errors="replace").strip() or "an empty answer"
