"""A journal whose operations are timed and whose failures are counted, and what they say of the disk's health."""

import threading
from collections.abc import Callable
from typing import Protocol

from crdt_service.kernel.error import StorageFullError
from crdt_service.replication.port import Journal
from crdt_service.telemetry.recent import Recent


class Observer(Protocol):
    """Who learns what the disk does, from whatever thread."""

    def on_disk_operation(self, operation: str, seconds: float) -> None:
        """It did this: append or checkpoint."""

    def on_disk_error(self, error: Exception) -> None:
        """It refused or failed."""


class MeasuredJournal:
    """Passes everything on to a journal.

    Args:
        journal: What does it.
        observer: Learns of each operation.
        monotonic: A clock in seconds that never goes back.

    Attributes:
        is_refusing: Whether the newest append found no room.
    """

    def __init__(self, journal: Journal, observer: Observer, monotonic: Callable[[], float]) -> None:
        self.is_refusing = False
        self._journal = journal
        self._observer = observer
        self._monotonic = monotonic
        self._appends = Recent()
        self._lock = threading.Lock()  # Appends come from one thread, and are asked about from another.
        self._checkpoint_started: float | None = None

    @property
    def log_bytes(self) -> int:
        """Size of the current log."""
        return self._journal.log_bytes

    def append_seconds(self, share: float) -> float:
        """Return a time that so large a share of the appends of the last five minutes stayed within."""
        with self._lock:
            return self._appends.quantile(self._monotonic(), share)

    def append(self, payload: bytes) -> None:
        """Write and sync one record.

        Raises:
            StorageFullError: Nothing was written.
            OSError: The disk failed.
        """
        started = self._monotonic()
        try:
            self._journal.append(payload)
        except (OSError, StorageFullError) as error:
            self.is_refusing = isinstance(error, StorageFullError)
            self._observer.on_disk_error(error)
            raise
        now = self._monotonic()
        self.is_refusing = False
        with self._lock:
            self._appends.add(now, now - started)
        self._observer.on_disk_operation("append", now - started)

    def rest(self) -> None:
        """Have the log's mark survive a power loss.

        Raises:
            OSError: The disk failed.
        """
        try:
            self._journal.rest()
        except OSError as error:
            self._observer.on_disk_error(error)
            raise

    def rotate(self) -> int:
        """Start a new log; return its number.

        Raises:
            OSError: The old one goes on.
        """
        try:
            return self._journal.rotate()
        except OSError as error:
            self._observer.on_disk_error(error)
            raise

    def write_snapshot(self, number: int, payloads: list[bytes], *, last: bool) -> None:
        """Add records to a snapshot; `last` completes it.

        Raises:
            OSError: The old files stay.
        """
        if self._checkpoint_started is None:
            self._checkpoint_started = self._monotonic()
        try:
            self._journal.write_snapshot(number, payloads, last=last)
        except OSError as error:
            self._checkpoint_started = None
            self._observer.on_disk_error(error)
            raise
        if last:
            self._observer.on_disk_operation("checkpoint", self._monotonic() - self._checkpoint_started)
            self._checkpoint_started = None
