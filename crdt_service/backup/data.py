"""The files of a backup: checksummed records of states or of configuration, sealed if there is a key.

Records and seals are those of the nodes' volumes (`wire/record.py`, `wire/seal.py`). A seal authenticates the backup's
id and the file's name, so that no file can stand in for another. A file is made in memory, which bounds its size.
"""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from crdt_service.backup.manifest import DamagedBackupError, File
from crdt_service.datatypes.registry import get_type
from crdt_service.disk.record_file import PayloadScan, RecordEncoder
from crdt_service.kernel.error import CorruptDataError, MalformedError
from crdt_service.wire.message import Delta
from crdt_service.wire.seal import FileSeal, Key

# Raising it makes fewer and larger files, each of which is in memory while it is written or read.
FILE_BYTES_MAX = 32 << 20
CONFIGURATION = "configuration"

_encoder = msgspec.msgpack.Encoder()
_states: msgspec.msgpack.Decoder[list[Delta]] = msgspec.msgpack.Decoder(list[Delta])
_configuration: msgspec.msgpack.Decoder[dict[str, bytes]] = msgspec.msgpack.Decoder(dict[str, bytes])


class FileMaker:
    """Makes one file.

    Args:
        backup: The id of its backup.
        name: Its own name.
        key: Seals it; None for a plain file.
        randomness: Draws salts and nonces; with `key` it must be fit for cryptography.
    """

    def __init__(self, backup: str, name: str, key: Key | None, randomness: random.Random) -> None:
        seal = None if key is None else FileSeal.create(key, _place(backup, name), randomness)
        self._encoder = RecordEncoder(seal, randomness)
        self._data = bytearray()
        self._name = name

    def __len__(self) -> int:
        """Return its size in bytes so far."""
        return len(self._data)

    def add_states(self, states: list[Delta]) -> None:
        """Add a record of some states."""
        self._add(_encoder.encode(states))

    def add_configuration(self, files: Mapping[str, bytes]) -> None:
        """Add a record of files by name."""
        self._add(_encoder.encode(files))

    def finish(self) -> tuple[File, bytes]:
        """Return what the manifest says of it, and its bytes."""
        data = bytes(self._data)
        return File(self._name, len(data), hashlib.sha256(data).hexdigest()), data

    def _add(self, payload: bytes) -> None:
        self._data += self._encoder.encode(payload, len(self._data))


def states_name(number: int) -> str:
    """Return the name of the file of states with that number, from 0."""
    return f"states-{number:06d}"


def read_states(data: bytes, backup: str, file: File, keys: Sequence[Key]) -> Iterator[list[Delta]]:
    """Yield the states in a file, record by record, each of a type that this program knows.

    Raises:
        ConfigError: Its key is not given.
        DamagedBackupError: It is not what was written.
    """
    for payload in _scan(data, backup, file, keys):
        try:
            states = _states.decode(payload)
            for delta in states:
                get_type(delta.tag, delta.version).decode(delta.state)
        except (msgspec.DecodeError, UnicodeDecodeError, MalformedError) as error:
            raise DamagedBackupError(backup, f"{file.name} holds what is no state") from error
        yield states


def read_configuration(data: bytes, backup: str, file: File, keys: Sequence[Key]) -> dict[str, bytes]:
    """Return the files of configuration in a file.

    Raises:
        ConfigError: Its key is not given.
        DamagedBackupError: It is not what was written.
    """
    files: dict[str, bytes] = {}
    for payload in _scan(data, backup, file, keys):
        try:
            files |= _configuration.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DamagedBackupError(backup, f"{file.name} holds what is no configuration") from error
    return files


def _scan(data: bytes, backup: str, file: File, keys: Sequence[Key]) -> Iterator[bytes]:
    if len(data) != file.size_bytes or hashlib.sha256(data).hexdigest() != file.sha256:
        raise DamagedBackupError(backup, f"{file.name} was altered or cut")
    scan = PayloadScan(
        lambda offset, size: data[offset : offset + size], _place(backup, file.name), keys, f"backup {backup}"
    )
    try:
        yield from scan
    except CorruptDataError as error:
        raise DamagedBackupError(backup, f"{file.name} is sealed as another file") from error
    if scan.offset_bytes != len(data):
        raise DamagedBackupError(backup, f"{file.name} is damaged at byte {scan.offset_bytes}")


def _place(backup: str, name: str) -> str:
    return f"backup {backup}/{name}"
