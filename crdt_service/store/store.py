"""All keys' states in memory. Everything in here is already on disk: a batch is installed only after its sync.

So reads, pushes and repairs can show nothing that a crash could take back, and a replica may reuse its id after a
crash: no dot or counter entry that the disk lacks has ever left it.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

import msgspec

from crdt_service.datatypes.contract import Datatype
from crdt_service.datatypes.part import PART_ITEMS_MAX
from crdt_service.datatypes.registry import DATATYPES, RECEIPTS, find_type, get_type
from crdt_service.kernel.clock import HybridClock, is_impossible
from crdt_service.kernel.error import MalformedError, OperationError
from crdt_service.kernel.ident import check_key
from crdt_service.kernel.slot import SLOTS, name_of, slot_of, slot_of_name
from crdt_service.resolution.conflicts import Arisen, Conflicts
from crdt_service.resolution.explanation import explain_state, summarize
from crdt_service.resolution.policy import SHOW_ALL, Policy
from crdt_service.resolution.reading import read_value
from crdt_service.store.changes import Changes
from crdt_service.store.index import KeyIndex
from crdt_service.store.scan import Scan, encode_digest, mix
from crdt_service.store.tombstones import Tombstones
from crdt_service.wire.message import Delta, Tombstone

# States whose canonical bytes are no longer rest as these bytes. Raising it saves memory, and makes the first access
# to a resting state slower: decoding costs its size.
PACKED_BYTES_MAX = 256
# Raising it lets more writes of one key share a digest where nobody compares, and keeps so many more states decoded.
STALE_KEYS_MAX = 16_384
# What repairs under way have scanned of slots, 24 bytes per key; raising it helps when many peers repair large slots.
SCANNED_KEYS_MAX = 1 << 17
_ORDER = {datatype.tag: position for position, datatype in enumerate((*DATATYPES, RECEIPTS))}


class Address(NamedTuple):
    """Where a state lives. Types of one key live apart, so a concurrent creation by two types loses nothing."""

    key: str
    tag: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A key's type and its value as JSON bytes.

    Attributes:
        conflict: JSON on its conflicts, other types of the key included; empty without any.
        digest: As `Store.etag` returns it.
    """

    type: str
    value: bytes
    conflict: bytes = b""
    digest: bytes = b""


class Entry(msgspec.Struct, gc=False, eq=False):  # It is in no cycle, and there are millions.
    """What a key holds of one type.

    Attributes:
        tag: The type.
        state: Its state, or the canonical bytes of a small one that rests.
        mixed: The digest that the slot's sum holds; 0 if none yet, negated while the state has a newer one.
        next: The entry of another type, created concurrently; in the registry's order.
    """

    tag: int
    state: Any
    mixed: int = 0
    next: Optional["Entry"] = None


class Store:
    """States by slot, key and type, with a digest of each slot kept up lazily.

    Attributes:
        slots: For each slot the first entry of each key.
        sums: For each slot the exclusive or over the digests of its entries.
        versions: For each slot a number that grows with each change.
        conflicts: Which of the states hold siblings, and what decides between them.
        vacant: The keys that hold nothing to be read, in the order in which they became so.
        index: The keys in order; the slots of it that were built hold all of theirs.
        changes: What changed last.
        tombstones: What was purged; of a key that has one nothing else is held.
        drops: By slot, how many times it was dropped.
    """

    def __init__(self, clock: HybridClock, policy: Policy = SHOW_ALL) -> None:
        self.slots: list[dict[str, Entry]] = [{} for _ in range(SLOTS)]
        self.sums = [0] * SLOTS
        self.versions = [0] * SLOTS
        self.conflicts = Conflicts(policy)
        self.vacant: dict[str, None] = {}
        self.index = KeyIndex()
        self.changes = Changes()
        self.tombstones = Tombstones()
        self.drops = [0] * SLOTS
        self._clock = clock
        self._count = 0
        self._stale: deque[str] = deque()
        self._scans: OrderedDict[int, Scan] = OrderedDict()
        self._scanned_keys = 0

    def __len__(self) -> int:
        """Return how many addresses hold a state."""
        return self._count

    def __contains__(self, address: Address) -> bool:
        return self._find(address) is not None

    def addresses(self, slot: int) -> list[Address]:
        """Return all addresses of a slot."""
        return [Address(key, entry.tag) for key, first in self.slots[slot].items() for entry in _chain(first)]

    def slices(self, count: int) -> Iterator[list[Address]]:
        """Yield all addresses, `count` at a time; slots may change and be dropped in between."""
        part: list[Address] = []
        for slot in range(SLOTS):
            for address in self.addresses(slot):
                part.append(address)
                if len(part) == count:
                    yield [address for address in part if address in self]
                    part = []
        if part:
            yield [address for address in part if address in self]

    def get(self, address: Address) -> Any | None:
        """Return a state, or None. Who gets it mostly writes it: it stays decoded until its digest is refreshed."""
        entry = self._find(address)
        if entry is None:
            return None
        if type(entry.state) is not bytes:
            return entry.state
        state = entry.state = _unpack(entry)
        self._touch(address.key, entry)
        return state

    def find(self, key: str) -> Datatype[Any] | None:
        """Return the type that readers of `key` see, None if it is vacant.

        Of several created concurrently, it is the one first in the registry, on every replica.
        """
        entry = self._find_shown(key)
        return None if entry is None else get_type(entry.tag)

    def types(self, key: str) -> list[Datatype[Any]]:
        """Return the types of which `key` holds something to be read, the one that readers see first."""
        several = self.conflicts.types.get(key)
        if several is not None:
            return [get_type(tag) for tag in several]
        shown = self.find(key)
        return [] if shown is None else [shown]

    def read(self, key: str, *, explain: bool = False, type_name: str = "", is_written: bool = False) -> Reading | None:
        """Return the value of `key`, with what was decided between siblings if asked to explain.

        Args:
            key: The key.
            explain: Whether to say how each conflict was decided.
            type_name: Which of its types to read; empty for the one that readers see.
            is_written: Whether the type was just written to: one that is vacant is then read as empty.

        Returns:
            None if the key, or what it holds of that type, is vacant.

        Raises:
            OperationError: There is no such type.
        """
        entry = self._find_shown(key) if not type_name else self._find_live(key, find_type(type_name))
        if entry is None:
            if not is_written:
                return None
            datatype = find_type(type_name)
            address, state = Address(key, datatype.tag), datatype.empty()
        else:
            datatype = get_type(entry.tag)
            address, state = Address(key, entry.tag), _unpack(entry)
        value = read_value(self.conflicts.policy, key, datatype, state)
        conflict = explain_state(self.conflicts, address, state) if explain else summarize(self.conflicts, address)
        return Reading(datatype.name, msgspec.json.encode(value), conflict, self.etag(key))

    def install(self, address: Address, delta: Any) -> list[Arisen]:
        """Join a durable delta, and what was purged of its key; return the conflicts that this made."""
        if address.key in self.tombstones:
            self._unearth(address.key)
        datatype = get_type(address.tag)
        entry = self._find(address)
        if entry is None:
            state = datatype.join(datatype.empty(), delta)
            self._add(address, state)
        else:
            state = entry.state = datatype.join(_unpack(entry), delta)
            self._touch(address.key, entry)
        self._note_vacancy(address.key, datatype.is_vacant(state))
        self.versions[slot_of(address.key)] += 1
        self._clock.observe(datatype.newest_stamp(delta))
        arisen = self.conflicts.update(address, delta, state)
        return [*arisen, *self._note_types(address.key)]

    def encode(self, address: Address) -> Delta:
        """Return the whole state at `address` as a delta.

        Raises:
            KeyError: It holds none.
        """
        entry = self._find(address)
        if entry is None:
            raise KeyError(address)
        return Delta(address.key, address.tag, get_type(address.tag).version, _pack(entry))

    def split(self, address: Address, bytes_max: int) -> list[Delta]:
        """Return deltas of about `bytes_max` or less whose join is the state at `address`; none if it holds none."""
        entry = self._find(address)
        return [] if entry is None else _split(address.key, entry, bytes_max)

    def split_key(self, key: str, bytes_max: int) -> list[Delta]:
        """Return deltas of about `bytes_max` or less whose joins are the whole states of `key`."""
        first = self.slots[slot_of(key)].get(key)
        return [delta for entry in _chain(first) for delta in _split(key, entry, bytes_max)]

    def encode_key(self, key: str) -> list[Delta]:
        """Return the whole states of `key`, one of each type that it has."""
        entry = self.slots[slot_of(key)].get(key)
        return [Delta(key, each.tag, get_type(each.tag).version, _pack(each)) for each in _chain(entry)]

    def digest(self, key: str) -> int:
        """Return the digest of all that `key` holds at this moment, 0 if nothing."""
        total = 0
        for entry in _chain(self.slots[slot_of(key)].get(key)):
            total ^= entry.mixed if entry.mixed > 0 else mix(name_of(key), entry.tag, _pack(entry))
        return total

    def etag(self, key: str) -> bytes:
        """Return 8 bytes that tell what `key` holds from anything else, empty if it is missing.

        It is the same on all nodes that hold the same. Receipts do not count.
        """
        first = None if key in self.vacant else self.slots[slot_of(key)].get(key)
        if first is None:
            return b""
        if any(entry.mixed <= 0 for entry in _chain(first)):
            self._refresh(key)
        total = 0
        for entry in _chain(first):
            if entry.tag != RECEIPTS.tag:
                total ^= entry.mixed
        return encode_digest(total)

    def drop(self, slot: int) -> None:
        """Forget everything in a slot."""
        for address in self.addresses(slot):
            self.conflicts.forget(address)
            self.conflicts.update_types(address.key, ())
            self.vacant.pop(address.key, None)
            self._count -= 1
        self.slots[slot] = {}
        self.index.clear(slot)
        self.sums[slot] = 0
        self.versions[slot] += 1
        self.drops[slot] += 1
        self._forget_scan(slot)

    def holds(self, key: str) -> bool:
        """Tell whether anything is held of `key` that was not purged."""
        return key in self.slots[slot_of(key)]

    def check_tombstone(self, tombstone: Tombstone) -> None:
        """Refuse what cannot be a peer's tombstone.

        Raises:
            MalformedError: It is no vacant key's states, or has a stamp that no clock can have made.
        """
        try:
            check_key(tombstone.key)
        except OperationError as error:
            raise MalformedError(error.message) from error
        for delta in tombstone.states:
            datatype = get_type(delta.tag, delta.version)
            state = datatype.decode(delta.state)
            is_wrong = delta.key != tombstone.key or is_impossible(datatype.newest_stamp(state))
            if is_wrong or not datatype.is_vacant(state):
                raise MalformedError(f"tombstone: {tombstone.key!r} is not vacant, or has an impossible stamp")

    def bury(self, tombstone: Tombstone) -> None:
        """Join a tombstone into what is held of its key, and set that aside if it is no more than was purged."""
        key = tombstone.key
        before = self.tombstones.get(key)
        if before is not None:
            self._unearth(key)
        elif not self.holds(key):
            for delta in tombstone.states:
                datatype = get_type(delta.tag)
                self._clock.observe(datatype.newest_stamp(datatype.restore(delta.state)))
            self.tombstones.put(tombstone)
            return
        self._install_all(tombstone)
        states = self.encode_key(key)
        same = [known for known in (tombstone, before) if known is not None and known.states == states]
        if same:
            self._forget(key)
            self.tombstones.put(max(same, key=lambda known: known.agreed))

    def _unearth(self, key: str) -> None:
        self._install_all(self.tombstones.pop(key))

    def _install_all(self, tombstone: Tombstone) -> None:
        for delta in tombstone.states:
            self.install(Address(delta.key, delta.tag), get_type(delta.tag).restore(delta.state))

    def _forget(self, key: str) -> None:
        slot = slot_of(key)
        for entry in _chain(self.slots[slot].pop(key)):
            self.conflicts.forget(Address(key, entry.tag))
            self.sums[slot] ^= abs(entry.mixed)
            self._count -= 1
        self.conflicts.update_types(key, ())
        self.index.remove(slot, key)
        self.vacant.pop(key, None)
        self.versions[slot] += 1

    def refresh_digests(self, count_max: int) -> int:
        """Bring the digests of up to `count_max` keys up to date; return how many are still stale.

        Lazy, so that a write costs the size of its delta and not of its state.
        """
        for _ in range(min(count_max, len(self._stale))):
            self._refresh(self._stale.popleft())
        return len(self._stale)

    def scan(self, slot: int, *, is_fresh: bool) -> Scan:
        """Return the slot's keys and digests by name; unless `is_fresh`, as some repair under way has seen them."""
        scan = self._scans.get(slot)
        if scan is None or (is_fresh and scan.total != self.sums[slot]):
            self._forget_scan(slot)
            scan = self._scans[slot] = Scan(
                (int.from_bytes(name_of(key), "big"), sum_digests(first), key)
                for key, first in self.slots[slot].items()
            )
            self._scanned_keys += len(scan.keys)
            while self._scanned_keys > SCANNED_KEYS_MAX and len(self._scans) > 1:
                self._forget_scan(next(iter(self._scans)))
        self._scans.move_to_end(slot)
        return scan

    def scan_cost(self, slot: int, *, is_fresh: bool) -> int:
        """Return how many keys `scan` would have to look at, 0 if it was done already."""
        scan = self._scans.get(slot)
        return len(self.slots[slot]) if scan is None or (is_fresh and scan.total != self.sums[slot]) else 0

    def _find(self, address: Address) -> Entry | None:
        entry = self.slots[slot_of(address.key)].get(address.key)
        while entry is not None and entry.tag != address.tag:
            entry = entry.next
        return entry

    def _find_shown(self, key: str) -> Entry | None:
        """Return the entry of `key` that readers see."""
        entry = self.slots[slot_of(key)].get(key)
        if self.vacant and key in self.vacant:
            return None
        while entry is not None and entry.next is not None and get_type(entry.tag).is_vacant(_unpack(entry)):
            entry = entry.next
        return entry

    def _find_live(self, key: str, datatype: Datatype[Any]) -> Entry | None:
        """Return the entry of `key` of one type, None if it is vacant."""
        entry = self._find(Address(key, datatype.tag))
        return None if entry is None or datatype.is_vacant(_unpack(entry)) else entry

    def _note_types(self, key: str) -> list[Arisen]:
        """Note of which types `key` holds something to be read; return the conflicts that this made."""
        first = self.slots[slot_of(key)][key]
        if first.next is None:  # Of nearly every key.
            return []
        entries = [entry for entry in _chain(first) if entry.tag != RECEIPTS.tag]
        if len(entries) < 2:
            return []
        live = (entry.tag for entry in entries if not get_type(entry.tag).is_vacant(_unpack(entry)))
        return self.conflicts.update_types(key, tuple(live))

    def _note_vacancy(self, key: str, is_vacant: bool) -> None:
        """Note whether all that `key` holds is vacant, given that of the type that changed."""
        if is_vacant:
            chain = _chain(self.slots[slot_of(key)].get(key))
            is_vacant = all(get_type(entry.tag).is_vacant(_unpack(entry)) for entry in chain)
        if not is_vacant:
            if self.vacant:
                self.vacant.pop(key, None)
        elif key not in self.vacant:
            self.vacant[key] = None

    def _add(self, address: Address, state: Any) -> None:
        number = slot_of(address.key)
        slot = self.slots[number]
        entry = Entry(address.tag, state)
        first = slot.get(address.key)
        before = None
        for other in _chain(first):
            if _ORDER[other.tag] < _ORDER[address.tag]:
                before = other
        if first is None:
            self.index.add(number, address.key)
        if before is None:
            entry.next = first
            slot[address.key] = entry
        else:
            entry.next, before.next = before.next, entry
        self._count += 1
        self._queue(address.key)

    def _touch(self, key: str, entry: Entry) -> None:
        if entry.mixed > 0:
            entry.mixed = -entry.mixed
            self._queue(key)

    def _queue(self, key: str) -> None:
        self._stale.append(key)
        if len(self._stale) > STALE_KEYS_MAX:
            self.refresh_digests(1)

    def _refresh(self, key: str) -> None:
        name = name_of(key)
        slot = slot_of_name(name)
        for entry in _chain(self.slots[slot].get(key)):
            if entry.mixed <= 0:
                data = _pack(entry)
                mixed = mix(name, entry.tag, data)
                self.sums[slot] ^= mixed ^ -entry.mixed
                entry.mixed = mixed
                if len(data) <= PACKED_BYTES_MAX:
                    entry.state = data

    def _forget_scan(self, slot: int) -> None:
        scan = self._scans.pop(slot, None)
        if scan is not None:
            self._scanned_keys -= len(scan.keys)


def sum_digests(first: Entry) -> int:
    """Return what a key adds to its slot's sum."""
    total = 0
    for entry in _chain(first):
        total ^= abs(entry.mixed)
    return total


def _chain(entry: Entry | None) -> Iterator[Entry]:
    while entry is not None:
        yield entry
        entry = entry.next


def _unpack(entry: Entry) -> Any:
    state = entry.state
    return get_type(entry.tag).restore(state) if type(state) is bytes else state


def _pack(entry: Entry) -> bytes:
    state = entry.state
    return state if type(state) is bytes else get_type(entry.tag).encode(state)


def _split(key: str, entry: Entry, bytes_max: int) -> list[Delta]:
    datatype = get_type(entry.tag)
    whole = _pack(entry)
    parts = [whole]
    if len(whole) > min(bytes_max, PART_ITEMS_MAX):  # As each item takes a byte, none smaller holds too many.
        parts = [datatype.encode(part) for part in datatype.split(_unpack(entry), bytes_max)]
    return [Delta(key, entry.tag, datatype.version, part) for part in parts]
