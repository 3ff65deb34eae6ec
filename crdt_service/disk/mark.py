"""How far the log was synced, in a second place: it tells a record torn by a crash from a synced one that was damaged.

After the persist record of "Protocol-Aware Recovery for Consensus-Based Storage" (Alagappan et al., FAST 2018).
"""

import struct
import zlib
from typing import NamedTuple

from crdt_service.disk.disk import Disk

MARK = "mark"
COPY_BYTES = 512
# A power loss damages no more than the block that was being written, and drives write blocks of up to 4 KiB.
BLOCK_BYTES = 4096
_MAGIC = b"JVMK"
_FIELDS = struct.Struct(">4sQQQH")  # magic, sequence, log, end, size of the text
# At the end, behind zeros: whatever part of a copy was written, it is whole or unreadable.
_CHECKSUM_BYTES = 4
_TEXT_BYTES_MAX = COPY_BYTES - _FIELDS.size - _CHECKSUM_BYTES


class Mark(NamedTuple):
    """Log `number` was synced up to `end_bytes`; `damage` says what was found damaged and is not dealt with yet."""

    number: int
    end_bytes: int
    damage: str = ""


class Copy(NamedTuple):
    """A mark; of two copies, that with the greater `sequence` is newer."""

    sequence: int
    mark: Mark


def encode_copy(copy: Copy) -> bytes:
    """Return its `COPY_BYTES` bytes.

    Raises:
        ValueError: The text does not fit.
    """
    text = copy.mark.damage.encode()
    if len(text) > _TEXT_BYTES_MAX:
        raise ValueError(f"a mark has room for {_TEXT_BYTES_MAX} bytes of text, not {len(text)}")
    fields = _FIELDS.pack(_MAGIC, copy.sequence, copy.mark.number, copy.mark.end_bytes, len(text))
    body = (fields + text).ljust(COPY_BYTES - _CHECKSUM_BYTES, b"\0")
    return body + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big")


def decode_copy(data: bytes) -> Copy | None:
    """Return what `encode_copy` was given; None of anything that it did not make."""
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(data) != COPY_BYTES or zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big") != checksum:
        return None
    magic, sequence, number, end_bytes, size = _FIELDS.unpack_from(body)
    text, rest = body[_FIELDS.size : _FIELDS.size + size], body[_FIELDS.size + size :]
    if magic != _MAGIC or len(text) < size or rest.strip(b"\0"):
        return None
    try:
        return Copy(sequence, Mark(number, end_bytes, text.decode()))
    except UnicodeDecodeError:
        return None


class MarkFile:
    """The file `mark`: two copies, each in a block of its own.

    All writes between two syncs go to one copy. The other one is on the medium, so a power loss leaves it readable.

    Attributes:
        is_missing: There is no such file, as far as `read` and `store` know.
    """

    def __init__(self, disk: Disk) -> None:
        self.is_missing = True
        self._disk = disk
        self._descriptor = -1
        self._sequence = 0
        self._slot = 0
        self._is_synced = True

    def read(self) -> Mark | None:
        """Return the newer of the readable copies; None if there is none."""
        self.is_missing = MARK not in self._disk.names()
        if self.is_missing:
            return None
        parts = (self._disk.read(MARK, slot * BLOCK_BYTES, COPY_BYTES) for slot in (0, 1))
        copies = [(copy.sequence, slot, copy.mark) for slot, part in enumerate(parts) if (copy := decode_copy(part))]
        if not copies:
            return None
        self._sequence, newer, mark = max(copies)
        self._slot = 1 - newer
        return mark

    def write(self, mark: Mark) -> None:
        """Note a mark, to survive the end of this process; `sync` has it survive a power loss.

        Raises:
            OSError: The disk failed, or keeps what is overwritten and is full.
        """
        data = encode_copy(Copy(self._sequence + 1, mark))
        self._is_synced = False
        self._disk.write(self._descriptor, data, self._slot * BLOCK_BYTES)
        self._sequence += 1

    def sync(self) -> None:
        """Wait until what was written is on the medium.

        Raises:
            OSError: As for `write`; the mark on the medium may be an older one.
        """
        if self._is_synced:
            return
        self._disk.sync(self._descriptor)
        self._is_synced = True
        self._slot = 1 - self._slot

    def store(self, mark: Mark) -> None:
        """Have both copies say this on the medium, in a new file if there is none.

        Raises:
            OSError: The disk failed or is full; the older mark may still stand.
        """
        if self.is_missing:
            self._create(mark)
            return
        if self._descriptor < 0:
            self._descriptor = self._disk.open(MARK)
            self._disk.sync(self._descriptor)  # The newer copy may be of a process that was killed before its sync.
        for _ in range(2):
            self.write(mark)
            self.sync()

    def close(self) -> None:
        """Release the file."""
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
            self._descriptor = -1

    def _create(self, mark: Mark) -> None:
        """Make the file with all the blocks it will ever have; a crash leaves the whole file or none."""
        copies = (encode_copy(Copy(sequence, mark)) for sequence in (1, 2))
        self._disk.remove(f"{MARK}.new")
        descriptor = self._disk.open(f"{MARK}.new")
        try:
            self._disk.write(descriptor, b"".join(copy.ljust(BLOCK_BYTES, b"\0") for copy in copies), 0)
            self._disk.sync(descriptor)
            self._disk.rename(f"{MARK}.new", MARK)
            self._disk.sync_directory()
        except OSError:
            self._disk.close(descriptor)
            raise
        self._descriptor = descriptor
        self._sequence = 2
        self._slot = 0
        self.is_missing = False
