"""Checksummed records of the log and of snapshots: magic, length, CRC-32, payload.

The checksum starts from the record's offset, so that bytes of a user that look like a record are none.
"""

import struct
import zlib
from collections.abc import Iterator

_HEADER = struct.Struct(">4sII")
MAGIC = b"JVR1"
RECORD_BYTES_MAX = 64 << 20


def encode_record(payload: bytes, offset_bytes: int) -> bytes:
    """Return `payload` behind its header, for this offset of a file."""
    return _HEADER.pack(MAGIC, len(payload), _checksum(payload, offset_bytes)) + payload


def _checksum(payload: bytes, offset_bytes: int) -> int:
    return zlib.crc32(payload, zlib.crc32(offset_bytes.to_bytes(8, "big")))


class RecordScan:
    """The records of a file's bytes, up to the first that is incomplete or damaged.

    Attributes:
        offset_bytes: End of the last good record once iteration has ended.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.offset_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        while (payload := self._read(self.offset_bytes)) is not None:
            self.offset_bytes += _HEADER.size + len(payload)
            yield payload

    def is_torn(self) -> bool:
        """Tell whether a crash explains what follows `offset_bytes`: one unfinished record and nothing after it.

        A batch is one record, and the next is written only after the last is synced: a whole record behind a damaged
        one means that synced bytes have changed.
        """
        position = self._data.find(MAGIC, self.offset_bytes + 1)
        while position >= 0:
            if self._read(position) is not None:
                return False
            position = self._data.find(MAGIC, position + 1)
        return True

    def _read(self, offset: int) -> bytes | None:
        start = offset + _HEADER.size
        if start > len(self._data):
            return None
        magic, size, crc = _HEADER.unpack_from(self._data, offset)
        payload = self._data[start : start + size]
        whole = (
            magic == MAGIC and size <= RECORD_BYTES_MAX and len(payload) == size and _checksum(payload, offset) == crc
        )
        return payload if whole else None
