"""Following a change feed: server-sent events in, changes out, and when a lost feed is opened again."""

import random
from collections.abc import Iterator, Mapping

import msgspec

from crdt_service.client.error import UNEXPECTED_ANSWER, ApiError
from crdt_service.client.retry import Retry
from crdt_service.client.view import Change, Reset

# Far above the longest event, which names one key.
EVENT_BYTES_MAX = 1 << 20
_PAUSE_SECONDS = 1.0
# In milliseconds, months.
_RETRY_DIGITS_MAX = 10
_KINDS: Mapping[bytes, msgspec.json.Decoder[Change] | msgspec.json.Decoder[Reset]] = {
    b"change": msgspec.json.Decoder(Change),
    b"reset": msgspec.json.Decoder(Reset),
}


class Follower:
    """One feed over as many connections as it takes.

    Args:
        cursor: Where to begin; None for here and now.
        retry: How often in a row it may fail.
        randomness: Draws the pauses.

    Attributes:
        cursor: Where the next connection goes on.
    """

    def __init__(self, cursor: str | None, retry: Retry, randomness: random.Random) -> None:
        self.cursor = cursor
        self._retry = retry
        self._randomness = randomness
        self._pause_seconds = _PAUSE_SECONDS
        self._failures = 0
        self._rest = b""

    def take(self, piece: bytes) -> Iterator[Change | Reset]:
        """Yield what a piece of the answer completes.

        Raises:
            ApiError: It is no feed.
        """
        self._failures = 0
        *events, self._rest = (self._rest + piece).split(b"\n\n")
        if len(self._rest) > EVENT_BYTES_MAX:
            raise ApiError(UNEXPECTED_ANSWER, "an event of the feed has no end", "check what is in between")
        for event in events:
            found = self._read(event)
            if found is not None:
                yield found

    def plan(self, error: ApiError | None) -> float:
        """Return how many seconds to wait before the feed is opened again, after `error` or the server's farewell.

        Raises:
            ApiError: It is not opened again.
        """
        self._rest = b""
        if error is None:
            return self._pause_seconds
        self._failures += 1
        pause = self._retry.plan(self._failures, error, True, self._randomness)
        if pause is None:
            raise error
        return pause

    def _read(self, event: bytes) -> Change | Reset | None:
        is_opening = self.cursor is None
        fields = dict(line.partition(b": ")[::2] for line in event.split(b"\n"))
        if b"id" in fields:
            self.cursor = fields[b"id"].decode("ascii", "replace")
        retry = fields.get(b"retry", b"")
        if retry.isdigit() and len(retry) <= _RETRY_DIGITS_MAX:
            self._pause_seconds = min(int(retry) / 1000, self._retry.seconds_max)
        decoder = _KINDS.get(fields.get(b"event", b""))
        if decoder is None:
            return Reset("opened", None, self.cursor) if is_opening and self.cursor is not None else None
        try:
            return msgspec.structs.replace(decoder.decode(fields.get(b"data", b"")), cursor=self.cursor or "")
        except (ValueError, RecursionError) as error:
            raise ApiError(UNEXPECTED_ANSWER, f"an event is not understood: {error}") from error
