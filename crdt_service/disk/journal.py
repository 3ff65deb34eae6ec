"""The durable log with its snapshots: checksummed records, one per synced batch.

Files: ``meta`` (replica id), ``log-N`` and ``snapshot-N``, the latter replacing all logs before N. Recovery joins the
newest snapshot and the logs from N on; since deltas are joined, order and repetition do not matter.
"""

import errno
import random
from collections.abc import Generator, Iterator

import msgspec

from crdt_service.disk.disk import Disk
from crdt_service.kernel.error import ConfigError, CorruptDataError, MalformedError, StorageFullError
from crdt_service.kernel.ident import new_replica
from crdt_service.wire.record import RecordScan, encode_record

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORMAT = 1


class _Meta(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    node_id: str
    replica: str


class Journal:
    """The log of one data directory; blocking, for one thread at a time except `write_snapshot`.

    Attributes:
        replica: The replica id drawn when the directory was new.
        log_bytes: Size of the current log.
        snapshot_bytes: Size of the newest snapshot.
    """

    def __init__(self, disk: Disk, node_id: str, randomness: random.Random) -> None:
        self._disk = disk
        self._descriptor = -1
        self._number = 1
        self._snapshot_descriptor = -1
        self._snapshot_written_bytes = 0
        self.log_bytes = 0
        self.snapshot_bytes = 0
        self._lock = disk.lock()
        try:
            self.replica = self._read_meta(node_id, randomness)
        except BaseException:
            disk.close(self._lock)
            raise

    def recover(self) -> Iterator[bytes]:
        """Yield all payloads on disk, cut a torn tail, and open the log for appending.

        Raises:
            CorruptDataError: A record is damaged where no crash explains it.
        """
        names = self._disk.names()
        snapshots = [name for name in names if name.startswith("snapshot-") and not name.endswith(".new")]
        logs = [name for name in names if name.startswith("log-")]
        first = _number_of(snapshots[-1]) if snapshots else 0
        if snapshots:
            data = self._disk.read(snapshots[-1])
            self.snapshot_bytes = len(data)
            yield from self._scan(snapshots[-1], data, is_open=False)
        live = [name for name in logs if _number_of(name) >= first]
        while len(live) > 1 and not self._disk.read(live[-1]):
            live.pop()  # A rotation that failed or had no write yet: the log before it may have gone on.
        for name in live:
            data = self._disk.read(name)
            self.log_bytes = yield from self._scan(name, data, is_open=name == live[-1])
        self._number = _number_of(live[-1]) if live else max(first, 1)
        self._descriptor = self._disk.open_append(_log_name(self._number))
        self._disk.truncate(self._descriptor, self.log_bytes)
        self._disk.sync(self._descriptor)
        for name in names:
            if name.endswith(".new") or (name in logs and name not in live) or name in snapshots[:-1]:
                self._disk.remove(name)
        self._disk.sync_directory()

    def append(self, payload: bytes) -> None:
        """Write and sync one record.

        Raises:
            StorageFullError: The disk is full; the log is as before.
            OSError: The disk failed. What it holds is unknown, so the process must end and recover.
        """
        record = encode_record(payload, self.log_bytes)
        try:
            self._disk.write(self._descriptor, record)
            self._disk.sync(self._descriptor)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._disk.truncate(self._descriptor, self.log_bytes)
            self._disk.sync(self._descriptor)  # Or a crash could bring back what is refused here.
            raise StorageFullError(str(self._disk.directory)) from error
        self.log_bytes += len(record)

    def rotate(self) -> int:
        """Start the next log; return its number. A crash from here on replays both.

        Raises:
            OSError: The old log goes on; an empty new one may stay beside it.
        """
        descriptor = self._disk.open_append(_log_name(self._number + 1))
        try:
            self._disk.sync_directory()
        except OSError:
            self._disk.close(descriptor)
            raise
        self._disk.close(self._descriptor)
        self._descriptor = descriptor
        self._number += 1
        self.log_bytes = 0
        return self._number

    def write_snapshot(self, number: int, payloads: list[bytes], *, last: bool) -> None:
        """Add records to snapshot `number`; with `last`, publish it and remove what it replaces.

        Raises:
            OSError: The disk is full or failed; the old files stay and nothing is lost.
        """
        name = f"snapshot-{number:08}"
        if self._snapshot_descriptor < 0:
            self._disk.remove(f"{name}.new")
            self._snapshot_descriptor = self._disk.open_append(f"{name}.new")
            self._snapshot_written_bytes = 0
        try:
            for payload in payloads:
                record = encode_record(payload, self._snapshot_written_bytes)
                self._disk.write(self._snapshot_descriptor, record)
                self._snapshot_written_bytes += len(record)
            if not last:
                return
            self._disk.sync(self._snapshot_descriptor)
        except OSError:
            self._close_snapshot()
            self._disk.remove(f"{name}.new")
            raise
        self._close_snapshot()
        self._disk.rename(f"{name}.new", name)
        self._disk.sync_directory()
        self.snapshot_bytes = self._snapshot_written_bytes
        for old in self._disk.names():
            if old.startswith(("log-", "snapshot-")) and _number_of(old) < number:
                self._disk.remove(old)
        self._disk.sync_directory()

    def close(self) -> None:
        """Release the directory."""
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
        if self._snapshot_descriptor >= 0:
            self._close_snapshot()
        self._disk.close(self._lock)

    def _close_snapshot(self) -> None:
        self._disk.close(self._snapshot_descriptor)
        self._snapshot_descriptor = -1

    def _scan(self, name: str, data: bytes, *, is_open: bool) -> Generator[bytes, None, int]:
        scan = RecordScan(data)
        yield from scan
        if scan.offset_bytes < len(data) and not (is_open and scan.is_torn()):
            raise CorruptDataError(str(self._disk.directory / name), scan.offset_bytes)
        return scan.offset_bytes

    def _read_meta(self, node_id: str, randomness: random.Random) -> str:
        where = f"--data-dir {self._disk.directory}"
        if "meta" not in self._disk.names():
            if any(name.startswith(("log-", "snapshot-")) for name in self._disk.names()):
                raise ConfigError(f"{where}: its file meta is missing", "restore it, or start with an empty directory")
            meta = _Meta(_FORMAT, node_id, new_replica(node_id, randomness))
            self._disk.remove("meta.new")
            descriptor = self._disk.open_append("meta.new")
            self._disk.write(descriptor, msgspec.json.encode(meta))
            self._disk.sync(descriptor)
            self._disk.close(descriptor)
            self._disk.rename("meta.new", "meta")
            self._disk.sync_directory()
        try:
            meta = msgspec.json.decode(self._disk.read("meta"), type=_Meta)
        except msgspec.DecodeError as error:
            raise MalformedError(f"{where}: file meta: {error}") from error
        if meta.format != _FORMAT:
            raise ConfigError(f"{where}: format {meta.format} is unknown", "use the program version that wrote it")
        if meta.node_id != node_id:
            raise ConfigError(
                f"{where}: belongs to node {meta.node_id}, not {node_id}", "give each node its own directory"
            )
        return meta.replica


def _log_name(number: int) -> str:
    return f"log-{number:08}"


def _number_of(name: str) -> int:
    return int(name.removesuffix(".new").rpartition("-")[2])
