"""The digests of one slot's keys in the order of their names, from which any part of the slot is summed."""

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from functools import reduce
from operator import xor

from crdt_service.kernel.slot import NAME_BYTES
from crdt_service.wire.message import DIGEST_BYTES

# Two digits of an integer in CPython: 32 bytes in memory, where 64 bits take 48.
DIGEST_BITS = 60
_DIGEST_MASK = (1 << DIGEST_BITS) - 1


class Scan:
    """What a slot held at one moment.

    Args:
        rows: (name, digest, key) in any order; keys without a digest are left out.

    Attributes:
        keys: All keys by name.
        total: The exclusive or of all digests.
    """

    __slots__ = ("_digests", "_names", "keys", "total")

    def __init__(self, rows: Iterable[tuple[int, int, str]]) -> None:
        ordered = sorted(row for row in rows if row[1])
        self._names = array("Q", [name for name, _, _ in ordered])
        self._digests = array("Q", [digest for _, digest, _ in ordered])
        self.keys = [key for _, _, key in ordered]
        self.total = reduce(xor, self._digests, 0)

    def find(self, name: int) -> str | None:
        """Return the key of a name, or None."""
        place = bisect_left(self._names, name)
        return self.keys[place] if place < len(self.keys) and self._names[place] == name else None

    def locate(self, prefix: int, prefix_bits: int) -> tuple[int, int]:
        """Return the first place and the one after the last of the names with a prefix."""
        shift = 8 * NAME_BYTES - prefix_bits
        return bisect_left(self._names, prefix << shift), bisect_left(self._names, (prefix + 1) << shift)

    def sum(self, first: int, end: int) -> int:
        """Return the exclusive or of the digests at places `first` to `end`."""
        return reduce(xor, self._digests[first:end], 0)

    def rows(self, first: int, end: int) -> list[tuple[int, int]]:
        """Return (name, digest) at places `first` to `end`."""
        return list(zip(self._names[first:end], self._digests[first:end], strict=True))


def mix(name: bytes, tag: int, data: bytes) -> int:
    """Return the digest of a state's canonical bytes under its name and type: 60 bits, never 0."""
    hashed = hashlib.blake2b(name + bytes((tag,)) + data, digest_size=8).digest()
    return int.from_bytes(hashed, "big") & _DIGEST_MASK or 1


def encode_digest(digest: int) -> bytes:
    """Return the 8 bytes of a digest."""
    return digest.to_bytes(DIGEST_BYTES, "big")
