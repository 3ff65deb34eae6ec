"""The backup file: a header, parts with states, and a trailer that tells a whole file from one that was cut.

Its records are those of the log (`wire/record.py`), sealed if there is a key; the trailer holds totals and the SHA-256
of all payloads before it. It is written beside its name and renamed once it is on the medium.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from crdt_service.disk.disk import Disk
from crdt_service.disk.record_file import PayloadScan, RecordEncoder
from crdt_service.kernel.error import ConfigError, CorruptDataError, ServiceError
from crdt_service.wire.message import Delta
from crdt_service.wire.seal import FileSeal, Key

_FORMAT = 1
_SEAL_NAME = "backup"


class Header(msgspec.Struct, frozen=True, array_like=True, tag="header", forbid_unknown_fields=True):
    """First record; `total` states were there when the backup began at `started_at`, in seconds."""

    format: int
    node_id: str
    replica: str
    started_at: float
    total: int


class _Part(msgspec.Struct, frozen=True, array_like=True, tag="part", forbid_unknown_fields=True):
    states: list[Delta]


class _Trailer(msgspec.Struct, frozen=True, array_like=True, tag="trailer", forbid_unknown_fields=True):
    parts: int
    states: int
    sha256: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Header | _Part | _Trailer] = msgspec.msgpack.Decoder(Header | _Part | _Trailer)


@dataclass(frozen=True)
class Summary:
    """What a whole backup holds.

    Attributes:
        key_id: The key that it needs, or empty.
    """

    file: str
    node_id: str
    replica: str
    started_at: float
    states: int
    file_bytes: int
    sha256: str
    key_id: str


class DamagedBackupError(ServiceError):
    """A backup file that is cut, altered, or none at all."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__("backup_damaged", f"{path}: {what}", "use another backup; nothing of this one was restored")


class BackupWriter:
    """Writes one backup; `finish` publishes it, `abort` leaves nothing.

    Raises:
        ConfigError: There is a file of that name already.
        OSError: The disk is full or failed.
    """

    def __init__(self, path: Path, keys: Sequence[Key], randomness: random.Random, header: Header) -> None:
        if path.exists():
            raise ConfigError(f"{path}: there is such a file already", "give the backup a name of its own")
        self._path = path
        self._disk = Disk(path.parent)
        self._part_name = f"{path.name}.part"
        self._key_id = keys[0].id if keys else ""
        seal = FileSeal.create(keys[0], _SEAL_NAME, randomness) if keys else None
        self._encoder = RecordEncoder(seal, randomness)
        self._header = header
        self._hash = hashlib.sha256()
        self._parts = self._states = self._written_bytes = 0
        self._disk.remove(self._part_name)
        self._descriptor = self._disk.open(self._part_name)
        try:
            self._write(header)
        except BaseException:
            self.abort()
            raise

    def add(self, states: list[Delta]) -> None:
        """Add some states."""
        self._write(_Part(states))
        self._parts += 1
        self._states += len(states)

    def finish(self) -> Summary:
        """Write the trailer, and give the file its name once all is on the medium."""
        digest = self._hash.digest()
        self._write(_Trailer(self._parts, self._states, digest))
        self._disk.sync(self._descriptor)
        self._close()
        self._disk.rename(self._part_name, self._path.name)
        self._disk.sync_directory()
        return _summarize(
            self._path,
            self._header,
            states=self._states,
            file_bytes=self._written_bytes,
            digest=digest,
            key_id=self._key_id,
        )

    def abort(self) -> None:
        """Remove what was written."""
        self._close()
        self._disk.remove(self._part_name)

    def _close(self) -> None:
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
            self._descriptor = -1

    def _write(self, record: Header | _Part | _Trailer) -> None:
        payload = _encoder.encode(record)
        self._hash.update(payload)
        encoded = self._encoder.encode(payload, self._written_bytes)
        self._disk.write(self._descriptor, encoded, self._written_bytes)
        self._written_bytes += len(encoded)


class BackupReader:
    """Reads a backup in parts.

    Attributes:
        summary: What it holds, once `read` has come to its end and found it whole.
    """

    def __init__(self, path: Path, keys: Sequence[Key]) -> None:
        self._path = path
        self._keys = keys
        self.summary: Summary | None = None

    def verify(self) -> Summary:
        """Read it to its end; return what it holds.

        Raises:
            ConfigError: The file cannot be read, or its key is not given.
            DamagedBackupError: It is not whole.
        """
        for _ in self.read():
            pass
        assert self.summary is not None, "a file that was read to its end is whole"  # noqa: S101
        return self.summary

    def read(self) -> Iterator[list[Delta]]:
        """Yield the states in parts; only the end tells whether the file is whole.

        Raises:
            ConfigError: The file cannot be read, or its key is not given.
            DamagedBackupError: It is not whole.
        """
        disk = Disk(self._path.parent)
        name = self._path.name
        scan = PayloadScan(partial(disk.read, name), _SEAL_NAME, self._keys, str(self._path))
        hasher = hashlib.sha256()
        header: Header | None = None
        trailer: _Trailer | None = None
        parts = states = 0
        try:
            size = disk.size(name)
            for payload in scan:
                record = _decoder.decode(payload)
                if trailer is not None or isinstance(record, Header) != (header is None):
                    raise DamagedBackupError(self._path, "its records are not in order")
                if isinstance(record, _Trailer):
                    trailer = record
                    continue
                hasher.update(payload)
                if isinstance(record, Header):
                    header = record
                    self._check_format(header)
                else:
                    parts += 1
                    states += len(record.states)
                    yield record.states
        except OSError as error:
            raise ConfigError(f"{self._path}: cannot read the backup: {error.strerror}", "check the path") from error
        except (CorruptDataError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DamagedBackupError(self._path, f"damaged at byte {scan.offset_bytes} or before") from error
        if scan.offset_bytes < size and not scan.is_torn():
            raise DamagedBackupError(self._path, f"damaged at byte {scan.offset_bytes}")
        if header is None or trailer is None or scan.offset_bytes < size:
            raise DamagedBackupError(self._path, f"cut off or damaged at byte {scan.offset_bytes}; it has no good end")
        digest = hasher.digest()
        if (trailer.parts, trailer.states, trailer.sha256) != (parts, states, digest):
            raise DamagedBackupError(self._path, "its totals are not those of its end")
        key_id = scan.seal.key_id if scan.seal else ""
        self.summary = _summarize(self._path, header, states=states, file_bytes=size, digest=digest, key_id=key_id)

    def _check_format(self, header: Header) -> None:
        if header.format != _FORMAT:
            raise ConfigError(
                f"{self._path}: format {header.format} is unknown", "use the program version that wrote it"
            )


def make_header(node_id: str, replica: str, started_at: float, total: int) -> Header:
    """Return the header of a new backup."""
    return Header(_FORMAT, node_id, replica, started_at, total)


def _summarize(path: Path, header: Header, *, states: int, file_bytes: int, digest: bytes, key_id: str) -> Summary:
    return Summary(
        file=str(path),
        node_id=header.node_id,
        replica=header.replica,
        started_at=header.started_at,
        states=states,
        file_bytes=file_bytes,
        sha256=digest.hex(),
        key_id=key_id,
    )
