"""A two-level digest of all states: a root over 256 buckets, each over its entries."""

import hashlib

from crdt_service.wire.message import BUCKETS, DIGEST_BYTES


class DigestTree:
    """Digests of entries by name; a bucket's digest is the exclusive or over its entries, so updates are cheap."""

    def __init__(self) -> None:
        self._buckets: list[dict[bytes, bytes]] = [{} for _ in range(BUCKETS)]
        self._sums = [0] * BUCKETS

    def update(self, name: bytes, digest: bytes) -> None:
        """Set the digest of `name`."""
        bucket = name[0]
        old = self._buckets[bucket].get(name)
        if old is not None:
            self._sums[bucket] ^= _mix(name, old)
        self._buckets[bucket][name] = digest
        self._sums[bucket] ^= _mix(name, digest)

    def root(self) -> bytes:
        """Return the digest of everything."""
        return hashlib.blake2b(b"".join(self.buckets()), digest_size=DIGEST_BYTES).digest()

    def buckets(self) -> list[bytes]:
        """Return the digest of each bucket."""
        return [total.to_bytes(DIGEST_BYTES, "big") for total in self._sums]

    def entries(self, bucket: int) -> dict[bytes, bytes]:
        """Return name to digest in one bucket."""
        return self._buckets[bucket]


def _mix(name: bytes, digest: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name + digest, digest_size=DIGEST_BYTES).digest(), "big")
