"""All keys' states in memory. Everything in here is already on disk: a batch is installed only after its sync.

So reads, pushes and repairs can show nothing that a crash could take back, and a replica may reuse its id after a
crash: no dot or counter entry that the disk lacks has ever left it.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from crdt_service.datatypes.contract import Datatype
from crdt_service.datatypes.registry import DATATYPES, get_type
from crdt_service.kernel.clock import HybridClock
from crdt_service.store.digest import DigestTree
from crdt_service.wire.message import DIGEST_BYTES, Delta


class Address(NamedTuple):
    """Where a state lives. Types of one key live apart, so a concurrent creation by two types loses nothing."""

    key: str
    tag: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A key's type and its value as JSON bytes."""

    type: str
    value: bytes


class Store:
    """States by address, with digests kept up lazily."""

    def __init__(self, clock: HybridClock) -> None:
        self.states: dict[Address, Any] = {}
        self.digests = DigestTree()
        self._clock = clock
        self._stale: set[Address] = set()
        self._names: dict[bytes, Address] = {}

    def find(self, key: str) -> Datatype[Any] | None:
        """Return the type of `key`; of two created concurrently, the one first in the registry, on every replica."""
        return next((datatype for datatype in DATATYPES if Address(key, datatype.tag) in self.states), None)

    def read(self, key: str) -> Reading | None:
        """Return the value of `key`, or None."""
        datatype = self.find(key)
        if datatype is None:
            return None
        value = datatype.value(self.states[Address(key, datatype.tag)])
        return Reading(datatype.name, msgspec.json.encode(value))

    def install(self, address: Address, delta: Any) -> None:
        """Join a durable delta."""
        datatype = get_type(address.tag)
        state = self.states.get(address)
        if state is None:
            state = datatype.empty()
            self._names[name_digest(address)] = address
        self.states[address] = datatype.join(state, delta)
        self._clock.observe(datatype.newest_stamp(delta))
        self._stale.add(address)

    def encode(self, address: Address) -> Delta:
        """Return the whole state at `address` as a delta."""
        datatype = get_type(address.tag)
        return Delta(address.key, address.tag, datatype.version, datatype.encode(self.states[address]))

    def encode_named(self, name: bytes) -> Delta | None:
        """Return the whole state behind a name digest, or None."""
        address = self._names.get(name)
        return None if address is None else self.encode(address)

    def refresh_digests(self, count_max: int) -> int:
        """Bring up to `count_max` digests up to date; return how many are still stale.

        Lazy, so that a write costs the size of its delta and not of its state.
        """
        for _ in range(min(count_max, len(self._stale))):
            address = self._stale.pop()
            digest = get_type(address.tag).digest(self.states[address])
            self.digests.update(name_digest(address), digest)
        return len(self._stale)


def name_digest(address: Address) -> bytes:
    """Return the 8 bytes that name an address in repairs."""
    return hashlib.blake2b(address.key.encode(), digest_size=DIGEST_BYTES, salt=bytes([address.tag])).digest()
