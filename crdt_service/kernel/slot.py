"""Slots: the parts into which keys fall by their names, so that they can be placed on nodes and compared with peers."""

import hashlib
from functools import lru_cache

SLOT_BITS = 10
SLOTS = 1 << SLOT_BITS
NAME_BYTES = 8
# A batch asks for a key's slot several times; raising it costs about 200 bytes per key.
_RECENT_KEYS_MAX = 4096


def name_of(key: str) -> bytes:
    """Return the 8-byte BLAKE2b digest that names `key` towards peers."""
    # A lone surrogate is no key, but asking for one must find nothing rather than fail.
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=NAME_BYTES).digest()


@lru_cache(_RECENT_KEYS_MAX)
def slot_of(key: str) -> int:
    """Return the slot of `key`, 0 to 1023: the top 10 bits of its name, the same in every process."""
    return slot_of_name(name_of(key))


def slot_of_name(name: bytes) -> int:
    """Return the slot of the key of this name."""
    return int.from_bytes(name[:2], "big") >> (16 - SLOT_BITS)
