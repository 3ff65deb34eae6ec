"""Checksummed records of logs, snapshots and backups: magic, kind, length, two CRC-32, body.

The header's checksum starts from the record's offset, so that bytes of a user that look like a record are none. What
a body means is not known here, nor is any key needed to tell a torn file from a damaged one.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

_FIELDS = struct.Struct(">3scII")  # magic, kind, length and checksum of the body
_HEADER_BYTES = _FIELDS.size + 4
MAGIC = b"JVR"
PLAIN = b"1"
SEALED = b"2"
SEAL_HEADER = b"0"
END = b"9"
RECORD_BYTES_MAX = 64 << 20
# Raising it reads fewer and larger parts; memory holds one such part or one record, whatever a file's size.
WINDOW_BYTES = 1 << 20

ReadPart = Callable[[int, int], bytes]


class Record(NamedTuple):
    """A whole record of a file."""

    kind: bytes
    offset_bytes: int
    body: bytes


def encode_record(body: bytes, offset_bytes: int, kind: bytes = PLAIN) -> bytes:
    """Return `body` behind its header, for this offset of a file."""
    fields = _FIELDS.pack(MAGIC, kind, len(body), zlib.crc32(body))
    return fields + _check(fields, offset_bytes) + body


def _check(fields: bytes, offset_bytes: int) -> bytes:
    return zlib.crc32(fields, zlib.crc32(offset_bytes.to_bytes(8, "big"))).to_bytes(4, "big")


class RecordScan:
    """The records of a file, up to the first that is incomplete or damaged, read in parts.

    Args:
        read: Returns that many bytes from an offset on, fewer only at the file's end.

    Attributes:
        offset_bytes: End of the last good record once iteration has ended.
    """

    def __init__(self, read: ReadPart) -> None:
        self._read = read
        self._window = b""
        self._window_offset = 0
        self.offset_bytes = 0

    def __iter__(self) -> Iterator[Record]:
        while (record := self._find(self.offset_bytes)) is not None:
            self.offset_bytes += _HEADER_BYTES + len(record.body)
            yield record

    def is_torn(self) -> bool:
        """Tell whether a crash explains what follows `offset_bytes`: one unfinished record and nothing after it.

        A batch is one write, and the next begins only after the last is synced: a whole record behind a damaged one
        means that synced bytes have changed. Zeros that were allocated ahead hold no record.
        """
        offset = self.offset_bytes + 1
        while True:
            part = self._view(offset, WINDOW_BYTES)
            found = part.find(MAGIC)
            while found >= 0:
                if self._find(offset + found) is not None:
                    return False
                found = part.find(MAGIC, found + 1)
            if len(part) < WINDOW_BYTES:
                return True
            offset += len(part) - (len(MAGIC) - 1)

    def _find(self, offset: int) -> Record | None:
        """Return the record at `offset`, if a whole one is there."""
        header = self._view(offset, _HEADER_BYTES)
        if len(header) < _HEADER_BYTES:
            return None
        fields = header[: _FIELDS.size]
        magic, kind, size, crc = _FIELDS.unpack(fields)
        if magic != MAGIC or header[_FIELDS.size :] != _check(fields, offset) or size > RECORD_BYTES_MAX:
            return None
        body = self._view(offset + _HEADER_BYTES, size)
        return Record(kind, offset, body) if len(body) == size and zlib.crc32(body) == crc else None

    def _view(self, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset`, fewer at the file's end."""
        start = offset - self._window_offset
        if start < 0 or start + size > len(self._window):
            self._window = b""
            self._window = self._read(offset, max(size, WINDOW_BYTES))
            self._window_offset = offset
            start = 0
        return self._window[start : start + size]
