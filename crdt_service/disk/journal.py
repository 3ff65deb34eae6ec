"""The durable log with its snapshots: checksummed records, one per synced batch, sealed if there is a key.

Files: ``meta`` (replica id, key id), ``mark`` (how far the log was synced), ``log-N`` and ``snapshot-N``, the latter
replacing all logs before N. Recovery joins the newest snapshot and the logs from N on; since deltas are joined, order
and repetition do not matter. A file of any other name is not the journal's: it is named at the start, and left alone.
"""

import errno
import logging
import random
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial

import msgspec

from crdt_service.disk.damaged import keep_copy
from crdt_service.disk.disk import Disk
from crdt_service.disk.mark import MARK, Mark, MarkFile
from crdt_service.disk.record_file import PayloadScan, RecordEncoder
from crdt_service.kernel.error import ConfigError, CorruptDataError, StorageFullError
from crdt_service.kernel.ident import new_replica
from crdt_service.wire.seal import FileSeal, Key, missing_key

# Raising it enlarges the log less often, and leaves more of an idle log's disk space unused.
ALLOCATED_BYTES = 4 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORMAT = 2
_META_BYTES_MAX = 4096
_NUMBERED = re.compile(r"(?:log|snapshot)-([0-9]{8,})")
# Unfinished files of a process that was killed, and what else is here beside logs and snapshots.
_UNFINISHED = re.compile(r"(?:meta|mark|snapshot-\d{8,}|damaged-(?:mark|log-\d+)-\d+)\.new")
_BESIDE = re.compile(r"meta|mark|lock|lost\+found|damaged-(?:mark|log-\d+)-\d+")
# So many files of others are named.
STRANGERS_MAX = 10

_log = logging.getLogger(__name__)


class _Meta(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`key_id` names the key of all files written from now on; empty in a plain directory."""

    format: int
    node_id: str
    replica: str
    key_id: str = ""


class Journal:
    """The log of one data directory; blocking, for one thread at a time except `write_snapshot`.

    Args:
        disk: What lies below the directory.
        node_id: The node that the directory must belong to.
        randomness: Draws the replica id, salts and nonces; with `keys` it must be fit for cryptography.
        keys: The first seals what is written, the others only open what is there; empty for a plain directory.

    Attributes:
        replica: The replica id drawn when the directory was new.
        log_bytes: Size of the current log, without what is allocated ahead.
        snapshot_bytes: Size of the newest snapshot.
        needs_rewrite: Some of what `recover` found is not sealed as new files are; a checkpoint replaces it.
        damage: What `recover` found missing of what had been synced, in one sentence: which file, from which byte on;
            empty if nothing. It is known to each later start as well, until `clear_damage`.
    """

    def __init__(self, disk: Disk, node_id: str, randomness: random.Random, keys: Sequence[Key] = ()) -> None:
        self._disk = disk
        self._random = randomness
        self._keys = keys
        self._descriptor = -1
        self._number = 1
        self._encoder = RecordEncoder(None, randomness)  # Until `recover` opens the log.
        self._allocated_bytes = 0
        self._mark = MarkFile(disk)
        self._is_settled = False
        self._snapshot_descriptor = -1
        self._snapshot_encoder = self._encoder
        self._snapshot_written_bytes = 0
        self.log_bytes = 0
        self.snapshot_bytes = 0
        self.needs_rewrite = False
        self.damage = ""
        self._lock = disk.lock()
        try:
            self.replica = self._read_meta(node_id)
        except BaseException:
            disk.close(self._lock)
            raise

    def recover(self) -> Iterator[bytes]:
        """Yield all payloads on disk, cut a torn tail, and open the log for appending.

        A disk too full to note how far the log is whole lets it end; appends are refused until there is room.

        Raises:
            ConfigError: The key of a file is not given.
            CorruptDataError: A record is damaged where no crash explains it.
            OSError: The disk failed, or is too full to start the first sealed log.
        """
        names = self._disk.names()
        snapshots, logs = _list_numbered(names, "snapshot"), _list_numbered(names, "log")
        self._name_strangers(set(names) - {*snapshots, *logs})
        first = _number_of(snapshots[-1]) if snapshots else 0
        if snapshots:
            self.snapshot_bytes, seal = yield from self._scan(snapshots[-1], has_end=True)
            self.needs_rewrite = not self._is_current(seal)
        live = [name for name in logs if _number_of(name) >= first]
        while len(live) > 1 and not self._disk.size(live[-1]):
            live.pop()  # A rotation that failed or had no write yet: the log before it may have gone on.
        seal = None
        ends: dict[int, int] = {}
        for name in live:
            self.log_bytes, seal = yield from self._scan(name, is_open=name == live[-1])
            self.needs_rewrite |= bool(self.log_bytes) and not self._is_current(seal)
            ends[_number_of(name)] = self.log_bytes
        self._number = _number_of(live[-1]) if live else max(first, 1)
        self._descriptor = self._disk.open(_log_name(self._number))
        for name in names:
            if _UNFINISHED.fullmatch(name) or (name in logs and name not in live) or name in snapshots[:-1]:
                self._disk.remove(name)
        self._disk.sync_directory()
        self._judge(first, ends)
        try:
            self._settle()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            _log.warning("%s is too full to note how far its log is whole: %s", self._disk.directory, error)
        if self.log_bytes and not self._is_current(seal):
            self.rotate()
        elif self.log_bytes:
            self._encoder = RecordEncoder(seal, self._random)
        else:
            self._encoder = self._create_encoder(_log_name(self._number))

    def append(self, payload: bytes) -> None:
        """Write and sync one record, then mark it: what ends beyond the mark was never acknowledged.

        Raises:
            StorageFullError: The disk is full; the log is as before.
            OSError: The disk failed. What it holds is unknown, so the process must end and recover.
        """
        record = self._encoder.encode(payload, self.log_bytes)
        end_bytes = self.log_bytes + len(record)
        try:
            if not self._is_settled:
                self._settle()
            self._allocate(end_bytes)
            self._disk.write(self._descriptor, record, self.log_bytes)
            self._disk.sync(self._descriptor)
            self._mark.write(Mark(self._number, end_bytes, self.damage))
        except OSError as error:
            if error.errno not in _FULL:
                raise
            if self._is_settled:
                self._cut()  # Or a crash could bring back what is refused here.
            raise StorageFullError(str(self._disk.directory)) from error
        self.log_bytes = end_bytes

    def rest(self) -> None:
        """Have the mark survive a power loss. Until then one may leave it behind what was appended, never ahead.

        A flipped bit in a record appended since the last call, and a power loss, look like a torn tail.

        Raises:
            OSError: The disk failed, as for `append`.
        """
        try:
            self._mark.sync()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            _log.warning("%s is too full to sync its mark, the next one goes with it: %s", self._disk.directory, error)

    def clear_damage(self) -> None:
        """Forget `damage`, once what follows from it is durable.

        Raises:
            OSError: The disk failed or is full; the next start may know of the damage still.
        """
        self._mark.store(Mark(self._number, self.log_bytes))
        self.damage = ""

    def rotate(self) -> int:
        """Start the next log; return its number. A crash from here on replays both.

        Raises:
            OSError: The old log goes on; an empty new one may stay beside it.
        """
        if not self._is_settled:
            self._settle()
        self._cut()  # Only the newest log may end in zeros, so that those in another mean damage.
        descriptor = self._disk.open(_log_name(self._number + 1))
        try:
            self._disk.sync_directory()
        except OSError:
            self._disk.close(descriptor)
            raise
        self._disk.close(self._descriptor)
        self._descriptor = descriptor
        self._number += 1
        self._encoder = self._create_encoder(_log_name(self._number))
        self.log_bytes = 0
        self._allocated_bytes = 0
        return self._number

    def write_snapshot(self, number: int, payloads: list[bytes], *, last: bool) -> None:
        """Add records to snapshot `number`; with `last`, publish it and remove what it replaces.

        Raises:
            OSError: The disk is full or failed; the old files stay and nothing is lost.
        """
        name = f"snapshot-{number:08}"
        if self._snapshot_descriptor < 0:
            self._disk.remove(f"{name}.new")
            self._snapshot_descriptor = self._disk.open(f"{name}.new")
            self._snapshot_encoder = self._create_encoder(name)
            self._snapshot_written_bytes = 0
        try:
            for payload in payloads:
                self._write_snapshot_record(self._snapshot_encoder.encode(payload, self._snapshot_written_bytes))
            if not last:
                return
            self._write_snapshot_record(self._snapshot_encoder.encode_end(self._snapshot_written_bytes))
            self._disk.sync(self._snapshot_descriptor)
        except OSError:
            self._close_snapshot()
            self._disk.remove(f"{name}.new")
            raise
        self._close_snapshot()
        self._disk.rename(f"{name}.new", name)
        self._disk.sync_directory()
        self.snapshot_bytes = self._snapshot_written_bytes
        names = self._disk.names()
        for old in (*_list_numbered(names, "log"), *_list_numbered(names, "snapshot")):
            if _number_of(old) < number:
                self._disk.remove(old)
        self._disk.sync_directory()

    def close(self) -> None:
        """Release the directory."""
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
        if self._snapshot_descriptor >= 0:
            self._close_snapshot()
        self._mark.close()
        self._disk.close(self._lock)

    def _write_snapshot_record(self, record: bytes) -> None:
        self._disk.write(self._snapshot_descriptor, record, self._snapshot_written_bytes)
        self._snapshot_written_bytes += len(record)

    def _close_snapshot(self) -> None:
        self._disk.close(self._snapshot_descriptor)
        self._snapshot_descriptor = -1

    def _judge(self, first: int, ends: Mapping[int, int]) -> None:
        """Set `damage`, and keep a copy of the file concerned.

        Args:
            first: The newest snapshot replaces all logs before this one.
            ends: For each log, the end of its last good record.
        """
        mark = self._mark.read()
        if self._mark.is_missing:
            return  # The directory is new, or was written by a version without marks.
        if mark is None:
            log = _log_name(self._number)
            self.damage = (
                f"both copies in the file {MARK} are damaged, "
                f"so {log} may have lost synced records from byte {self.log_bytes} on"
            )
            self._keep_copy(MARK)
            self._keep_copy(log)
        elif mark.number >= first and mark.end_bytes > (end_bytes := ends.get(mark.number, 0)):
            log = _log_name(mark.number)
            self.damage = (
                f"{log} is damaged or ends at byte {end_bytes}, though it had been synced up to byte {mark.end_bytes}"
            )
            self._keep_copy(log)
        else:
            self.damage = mark.damage
        if self.damage:
            _log.error("%s: %s", self._disk.directory, self.damage)

    def _name_strangers(self, names: Iterable[str]) -> None:
        strangers = sorted(name for name in names if not _UNFINISHED.fullmatch(name) and not _BESIDE.fullmatch(name))
        if strangers:
            named = ", ".join(strangers[:STRANGERS_MAX])
            more = f" and {len(strangers) - STRANGERS_MAX} more" if len(strangers) > STRANGERS_MAX else ""
            _log.warning("%s: left alone, for this node did not write them: %s%s", self._disk.directory, named, more)

    def _keep_copy(self, name: str) -> None:
        if name in self._disk.names() and self._disk.size(name):
            keep_copy(self._disk, name)

    def _settle(self) -> None:
        """Make durable what `recover` found, and cut the log there.

        A start after a crash amid this finds the same: damage is noted before what shows it is cut.
        """
        self._disk.sync(self._descriptor)  # The last record may be of a process that was killed before its sync.
        self._mark.store(Mark(self._number, self.log_bytes, self.damage))
        self._cut()
        self._is_settled = True

    def _allocate(self, end_bytes: int) -> None:
        """Enlarge the log ahead of what is written, if it has to be."""
        if end_bytes <= self._allocated_bytes:
            return
        target_bytes = -(-end_bytes // ALLOCATED_BYTES) * ALLOCATED_BYTES
        try:
            self._disk.allocate(self._descriptor, self.log_bytes, target_bytes - self.log_bytes)
        except OSError:
            # Too full for so much, or not possible on this file system: the write tells whether it fits.
            target_bytes = end_bytes
        self._allocated_bytes = target_bytes

    def _cut(self) -> None:
        """Leave nothing behind the log's last record, even after a crash."""
        self._disk.truncate(self._descriptor, self.log_bytes)
        self._allocated_bytes = self.log_bytes
        self._disk.sync(self._descriptor)

    def _create_encoder(self, name: str) -> RecordEncoder:
        seal = FileSeal.create(self._keys[0], name, self._random) if self._keys else None
        return RecordEncoder(seal, self._random)

    def _is_current(self, seal: FileSeal | None) -> bool:
        return (seal.key_id if seal else "") == self._key_id()

    def _key_id(self) -> str:
        return self._keys[0].id if self._keys else ""

    def _scan(
        self, name: str, *, is_open: bool = False, has_end: bool = False
    ) -> Generator[bytes, None, tuple[int, FileSeal | None]]:
        where = str(self._disk.directory / name)
        scan = PayloadScan(partial(self._disk.read, name), name, self._keys, where)
        yield from scan
        is_whole = scan.offset_bytes == self._disk.size(name)
        if scan.has_end != has_end or (not is_whole and not (is_open and scan.is_torn())):
            raise CorruptDataError(where, scan.offset_bytes)
        return scan.offset_bytes, scan.seal

    def _read_meta(self, node_id: str) -> str:
        where = f"--data-dir {self._disk.directory}"
        names = self._disk.names()
        if "meta" not in names:
            if _list_numbered(names, "log") or _list_numbered(names, "snapshot"):
                raise ConfigError(f"{where}: its file meta is missing", "restore it, or start with an empty directory")
            self._write_meta(_Meta(_FORMAT, node_id, new_replica(node_id, self._random), self._key_id()))
        try:
            meta = msgspec.json.decode(self._disk.read("meta", 0, _META_BYTES_MAX), type=_Meta)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(
                f"{where}: its file meta is damaged: {error}",
                "move the data directory away and restart the node; it refills from its peers",
            ) from error
        if meta.format != _FORMAT:
            raise ConfigError(f"{where}: format {meta.format} is unknown", "use the program version that wrote it")
        if meta.node_id != node_id:
            raise ConfigError(
                f"{where}: belongs to node {meta.node_id}, not {node_id}", "give each node its own directory"
            )
        if meta.key_id and meta.key_id not in {key.id for key in self._keys}:
            raise missing_key(where, meta.key_id, self._keys)
        if meta.key_id != self._key_id():
            self._write_meta(msgspec.structs.replace(meta, key_id=self._key_id()))
        return meta.replica

    def _write_meta(self, meta: _Meta) -> None:
        self._disk.remove("meta.new")
        descriptor = self._disk.open("meta.new")
        try:
            self._disk.write(descriptor, msgspec.json.encode(meta), 0)
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)
        self._disk.rename("meta.new", "meta")
        self._disk.sync_directory()


def _log_name(number: int) -> str:
    return f"log-{number:08}"


def _list_numbered(names: Iterable[str], kind: str) -> list[str]:
    """Return the names of logs or snapshots by their number; others only look like one."""
    own = [name for name in names if (found := _NUMBERED.fullmatch(name)) and name == f"{kind}-{int(found[1]):08}"]
    return sorted(own, key=_number_of)


def _number_of(name: str) -> int:
    return int(name.rpartition("-")[2])
