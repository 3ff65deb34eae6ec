"""What a backup says of itself: `manifest.json`, by which a whole backup is told from an altered one.

It is plain JSON, so that anybody can read what a backup holds and which key it needs. `check` is an HMAC-SHA-256 (RFC
2104) over all else, under the key that seals the files: who lacks the key can neither alter the manifest nor leave a
file out. Without encryption it is a checksum that finds damage alone.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.wire.seal import Key, missing_key

FORMAT = 1
NAME = "manifest.json"
_ID = re.compile(r"\d{8}T\d{6}Z")
_ID_TIME = "%Y%m%dT%H%M%SZ"


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the backup."""

    name: Annotated[str, Meta(pattern=r"\A[a-z0-9-]{1,64}\Z")]
    size_bytes: int
    sha256: str


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node that was read, by name and by the id of its volume; `states` were on it when the backup began."""

    node_id: str
    replica: str
    states: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of it.

    Attributes:
        format: Of the files and of this.
        id: When it began, as `make_id` writes it; names the backup.
        began_at: The same in ISO 8601, UTC.
        ended_at: When the last state was read.
        service_version: Of the program that wrote it.
        chart_version: Of the release, empty where none was told.
        key_id: The key that the files need; empty if they are not encrypted.
        nodes: Those that were read.
        missed: Nodes that could not be read; other owners of all of their slots were.
        keys: Keys that have a state.
        states: States of all files; replicas that differed count each.
        configuration: Names of the files of configuration inside.
        files: All others of the backup, in order.
        check: See above; hexadecimal.
    """

    format: int
    id: str
    began_at: str
    ended_at: str
    service_version: str
    chart_version: str
    key_id: str
    nodes: list[Source]
    missed: list[str]
    keys: int
    states: int
    configuration: list[str]
    files: list[File]
    check: str = ""

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size_bytes for file in self.files)


class DamagedBackupError(ServiceError):
    """A backup that is altered, cut, or none at all."""

    def __init__(self, backup: str, what: str) -> None:
        super().__init__("backup_damaged", f"backup {backup}: {what}", "use another backup; this one is not whole")


def make_id(seconds: float) -> str:
    """Return the id of a backup that begins so many seconds after 1970, like ``20261128T010203Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime(_ID_TIME)


def read_time(backup: str) -> datetime:
    """Return when the backup of this id began."""
    return datetime.strptime(backup, _ID_TIME).replace(tzinfo=UTC)


def is_id(text: str) -> bool:
    """Tell whether `text` may name a backup."""
    if not _ID.fullmatch(text):
        return False
    try:
        read_time(text)
    except ValueError:
        return False
    return True


def encode_manifest(manifest: Manifest, keys: Sequence[Key]) -> bytes:
    """Return the file; the first of the keys is the one that the backup is sealed with."""
    secret = keys[0].secret if manifest.key_id else b""
    return _encode(replace(manifest, check=_check(manifest, secret)))


def decode_manifest(data: bytes, backup: str, keys: Sequence[Key]) -> Manifest:
    """Return what a manifest says.

    Args:
        data: The file.
        backup: The id that it must have.
        keys: Those with which the backup may be sealed.

    Raises:
        ConfigError: Another program wrote it, or its key is not given.
        DamagedBackupError: It was altered.
    """
    manifest = peek(data, backup)
    secret = b""
    if manifest.key_id:
        found = [key.secret for key in keys if key.id == manifest.key_id]
        if not found:
            raise missing_key(f"backup {backup}", manifest.key_id, keys)
        secret = found[0]
    is_same = hmac.compare_digest(_check(manifest, secret).encode(), manifest.check.encode())
    if not is_same or manifest.id != backup or _encode(manifest) != data:
        raise DamagedBackupError(backup, f"{NAME} was altered")
    return manifest


def peek(data: bytes, backup: str) -> Manifest:
    """Return what a manifest says, believed as it stands.

    Raises:
        ConfigError: Another program wrote it.
        DamagedBackupError: It is none.
    """
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if _read_format(data) not in (None, FORMAT):
            raise ConfigError(
                f"backup {backup}: format {_read_format(data)} is unknown", "use the program version that wrote it"
            ) from error
        raise DamagedBackupError(backup, f"{NAME} was altered") from error
    if manifest.format != FORMAT:
        raise ConfigError(
            f"backup {backup}: format {manifest.format} is unknown", "use the program version that wrote it"
        )
    return manifest


class _Formatted(msgspec.Struct):
    format: int


def _read_format(data: bytes) -> int | None:
    try:
        return msgspec.json.decode(data, type=_Formatted).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def _check(manifest: Manifest, secret: bytes) -> str:
    content = msgspec.json.encode(replace(manifest, check=""))
    return hmac.digest(secret + b"jarvis backup manifest", content, hashlib.sha256).hex()
