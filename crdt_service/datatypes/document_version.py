"""The version of a document: what a reader saw of it, as one opaque word that an operation may name as its base.

It is a snapshot as Yjs has it, the clocks and the deletions that were seen, and a digest of what showed, so that one of
another document is told apart; compressed, with a checksum. Equal states have equal versions, on all nodes.
"""

import base64
import binascii
import zlib
from hashlib import blake2b
from typing import NamedTuple

from crdt_service.datatypes.yjs_update import Snapshot, read_snapshot, write_snapshot
from crdt_service.kernel.error import MalformedError, OperationError

# A document whose deletions are so scattered that its version would be larger shows none.
VERSION_BYTES_MAX = 64 << 10
_CHECK_BYTES = 4
DIGEST_BYTES = 8
# Far above what compresses to the limit in practice; an operation must not unpack into more.
_SNAPSHOT_BYTES_MAX = 1 << 20


class Version(NamedTuple):
    """What a reader saw: the snapshot, and a digest of the texts and lists that it showed."""

    snapshot: Snapshot
    digest: bytes


def write_version(version: Version) -> str | None:
    """Return the word for a version, None if it would exceed `VERSION_BYTES_MAX`."""
    data = version.digest + write_snapshot(version.snapshot)
    word = _write_text(_check(data) + zlib.compress(data))
    return None if len(data) > _SNAPSHOT_BYTES_MAX or len(word) > VERSION_BYTES_MAX else word


def read_version(word: str) -> Version:
    """Return the version that a word stands for.

    Raises:
        OperationError: It is no version of a document, or not all of one.
    """
    try:
        if len(word) > VERSION_BYTES_MAX:
            raise MalformedError("document: a version is too long")
        packed = base64.b64decode(word.encode("ascii") + b"=" * (-len(word) % 4), b"-_", validate=True)
        if _write_text(packed) != word:
            raise MalformedError("document: a version is not canonical")
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(packed[_CHECK_BYTES:], _SNAPSHOT_BYTES_MAX)
        if not unpacker.eof or unpacker.unused_data or _check(data) != packed[:_CHECK_BYTES]:
            raise MalformedError("document: a version fails its checksum")
        snapshot = read_snapshot(data[DIGEST_BYTES:])
        for client, spans in snapshot.deletions.items():
            if any(sum(span) > snapshot.clocks.get(client, 0) for span in spans):
                raise MalformedError("document: a version deletes what it lacks")
    except (MalformedError, UnicodeEncodeError, binascii.Error, zlib.error) as error:
        raise OperationError(
            "document: the base is no version of a document",
            "send the version of a read as it came, or no base",
            "invalid_base",
        ) from error
    return Version(snapshot, data[:DIGEST_BYTES])


def _write_text(packed: bytes) -> str:
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def _check(data: bytes) -> bytes:
    return blake2b(data, digest_size=_CHECK_BYTES).digest()
