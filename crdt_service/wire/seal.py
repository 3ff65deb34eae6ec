"""Encryption at rest: AES-256-GCM per record, under a key of the file's own.

A sealed file opens with a header record: which key it needs, and a random salt. HKDF-SHA-256 (RFC 5869) makes the
file's key of both. A nonce is 96 random bits: an offset, or a counter, would come again after a full disk or a torn
tail cut what was written, and one nonce with two plaintexts under a key gives both away. A file holds far fewer than
the 2^32 records up to which NIST SP 800-38D allows random nonces. The file's name, the record's offset and its
kind are authenticated with it, so that no record can be moved or taken for another.
"""

import hashlib
import hmac
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crdt_service.kernel.error import ConfigError

_ID_BYTES = 8
_SALT_BYTES = 32
_NONCE_BYTES = 12


@dataclass(frozen=True)
class Key:
    """A secret of at least 32 bytes, from which every file's key is made."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """16 hex digits that name the key and tell nothing of it."""
        return self._digest().hex()

    def _digest(self) -> bytes:
        return hmac.digest(self.secret, b"jarvis key id", hashlib.sha256)[:_ID_BYTES]


class FileSeal:
    """Seals and opens the records of one file.

    Attributes:
        key_id: The key that it was made of.
        header: Body of the file's first record.
    """

    def __init__(self, key: Key, salt: bytes, name: str) -> None:
        self.key_id = key.id
        self.header = bytes.fromhex(key.id) + salt
        derived = HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"jarvis file key").derive(key.secret)
        self._cipher = AESGCM(derived)
        self._name = name.encode() + b"\0"

    @classmethod
    def create(cls, key: Key, name: str, randomness: random.Random) -> "FileSeal":
        """Return the seal of a new file."""
        return cls(key, randomness.randbytes(_SALT_BYTES), name)

    @classmethod
    def find(cls, header: bytes, name: str, keys: Sequence[Key], where: str) -> "FileSeal":
        """Return the seal of an existing file; `where` names it for people.

        Raises:
            ConfigError: Its key is not among `keys`.
        """
        key_id = header[:_ID_BYTES].hex()
        for key in keys:
            if key.id == key_id:
                return cls(key, header[_ID_BYTES:], name)
        raise missing_key(where, key_id, keys)

    def seal(self, payload: bytes, offset_bytes: int, kind: bytes, randomness: random.Random) -> bytes:
        """Return nonce, ciphertext and tag."""
        nonce = randomness.randbytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, payload, self._context(offset_bytes, kind))

    def open(self, body: bytes, offset_bytes: int, kind: bytes) -> bytes | None:
        """Return the payload, or None if any of it, its file or its place is not what it was."""
        if len(body) < _NONCE_BYTES:
            return None
        try:
            return self._cipher.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], self._context(offset_bytes, kind))
        except InvalidTag:
            return None

    def _context(self, offset_bytes: int, kind: bytes) -> bytes:
        return self._name + kind + offset_bytes.to_bytes(8, "big")


def missing_key(where: str, key_id: str, keys: Sequence[Key]) -> ConfigError:
    """Return the error of a file or directory whose key is not given."""
    given = f"the given ones are {', '.join(key.id for key in keys)}" if keys else "none is given"
    return ConfigError(
        f"{where}: encrypted with key {key_id}, and {given}",
        "give the file of that key with --encryption-key-file; after the current one, if the key was changed",
    )
