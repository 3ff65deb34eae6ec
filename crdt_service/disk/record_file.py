"""A file of records, plain or sealed: what is to be written next, and what is read back."""

import random
from collections.abc import Iterator, Sequence

from crdt_service.kernel.error import CorruptDataError
from crdt_service.wire.record import END, PLAIN, SEAL_HEADER, SEALED, ReadPart, RecordScan, encode_record
from crdt_service.wire.seal import FileSeal, Key


class RecordEncoder:
    """Makes the bytes of a file's next record.

    Args:
        seal: None for a plain file.
        randomness: Draws nonces.
    """

    def __init__(self, seal: FileSeal | None, randomness: random.Random) -> None:
        self._seal = seal
        self._random = randomness

    def encode(self, payload: bytes, offset_bytes: int) -> bytes:
        """Return the record for this offset; a sealed file's first one brings the file's header with it."""
        return self._encode(payload, offset_bytes, SEALED if self._seal else PLAIN)

    def encode_end(self, offset_bytes: int) -> bytes:
        """Return the record that tells a whole file from one that lost its last records."""
        return self._encode(b"", offset_bytes, END)

    def _encode(self, payload: bytes, offset_bytes: int, kind: bytes) -> bytes:
        if self._seal is None:
            return encode_record(payload, offset_bytes, kind)
        opening = b"" if offset_bytes else encode_record(self._seal.header, 0, SEAL_HEADER)
        offset_bytes += len(opening)
        return opening + encode_record(self._seal.seal(payload, offset_bytes, kind, self._random), offset_bytes, kind)


class PayloadScan:
    """The payloads of a file's records, up to the first record that is incomplete or damaged.

    Args:
        read: Returns bytes of the file, see `RecordScan`.
        name: The file's name, which its seal authenticates.
        keys: Those with which it may be sealed.
        where: Names the file for people.

    Attributes:
        seal: The file's seal once its header was read; None of a plain file.
        has_end: The file's end record was read.
    """

    def __init__(self, read: ReadPart, name: str, keys: Sequence[Key], where: str) -> None:
        self._scan = RecordScan(read)
        self._name = name
        self._keys = keys
        self._where = where
        self.seal: FileSeal | None = None
        self.has_end = False

    @property
    def offset_bytes(self) -> int:
        """End of the last good record."""
        return self._scan.offset_bytes

    def is_torn(self) -> bool:
        """Tell whether a crash explains what follows `offset_bytes`."""
        return self._scan.is_torn()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the payloads.

        Raises:
            ConfigError: The file is sealed with a key that is not given.
            CorruptDataError: A record is whole, and yet not what was written here.
        """
        for kind, offset_bytes, body in self._scan:
            if kind == SEAL_HEADER and not offset_bytes:
                self.seal = FileSeal.find(body, self._name, self._keys, self._where)
                continue
            payload = None
            if self.has_end:
                pass
            elif self.seal is None and kind in (PLAIN, END):
                payload = body
            elif self.seal is not None and kind in (SEALED, END):
                payload = self.seal.open(body, offset_bytes, kind)
            if payload is None:
                raise CorruptDataError(self._where, offset_bytes)
            if kind == END:
                self.has_end = True
            else:
                yield payload
