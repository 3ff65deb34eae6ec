"""What shows that writes were applied, beside the state that they changed; no type of the API.

Kept as a state like any other, so that it is durable with the write, pushed with it, repaired, handed over and backed
up without a word about it elsewhere. Bounded as a lattice: of the union, the newest within a day of the newest one.
"""

import heapq
from dataclasses import dataclass

from crdt_service.datatypes.contract import Datatype, Origin
from crdt_service.kernel.clock import COUNTER_BITS, STAMP_MAX
from crdt_service.kernel.error import MalformedError, OperationError

# Raising it recognises repetitions in a busier key, and makes repairs and backups of one larger, 33 bytes for each.
RECEIPTS_MAX = 1024
AGE_SECONDS_MAX = 24 * 3600
NAME_BYTES = 16
FINGERPRINT_BYTES = 8
_STAMP_BYTES = 8
_RECORD_BYTES = _STAMP_BYTES + NAME_BYTES + FINGERPRINT_BYTES + 1
_AGE = AGE_SECONDS_MAX * 1000 << COUNTER_BITS
# By name: stamp, name, fingerprint and tag in this order, so that records compare by age.
State = dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Receipt:
    """One applied write.

    Attributes:
        fingerprint: Digest of what was written.
        tag: Tag of the type that it was written to, or that was deleted.
    """

    fingerprint: bytes
    tag: int


class Receipts(Datatype[State]):
    """Receipts by name; a later one replaces an earlier one of its name.

    Clocks that were more than a day apart forget each other's receipts.
    """

    name = "receipts"
    tag = 120
    version = 1

    def empty(self) -> State:
        """Return no receipts."""
        return {}

    def apply(self, state: State, pending: State, op: bytes, origin: Origin) -> State:
        """Return a receipt alone; the operation is what `encode_receipt` returns."""
        if len(op) != _RECORD_BYTES - _STAMP_BYTES:
            raise OperationError("this is no receipt", "use a type of the API")
        return {op[:NAME_BYTES]: origin.tick().to_bytes(_STAMP_BYTES, "big") + op}

    def find(self, state: State, name: bytes) -> Receipt | None:
        """Return the receipt of a name, or None."""
        record = state.get(name)
        return None if record is None else Receipt(record[_STAMP_BYTES + NAME_BYTES : -1], record[-1])

    def join(self, state: State, delta: State) -> State:
        """Return the union; what is too old is cut off in bulk, so that a join costs the size of the delta."""
        for name, record in delta.items():
            if record > state.get(name, b""):
                state[name] = record
        if len(state) > 2 * RECEIPTS_MAX:
            return {record[_STAMP_BYTES : _STAMP_BYTES + NAME_BYTES]: record for record in _kept(state)}
        return state

    def value(self, state: State) -> object:
        """Return how many there are."""
        return len(_kept(state))

    def encode(self, state: State) -> bytes:
        """Return the records, oldest first."""
        return b"".join(_kept(state))

    def decode(self, data: bytes) -> State:
        """Return the receipts."""
        state = self.restore(data)
        stamps = [int.from_bytes(record[:_STAMP_BYTES], "big") for record in state.values()]
        if self.encode(state) != data or any(not 0 < stamp <= STAMP_MAX for stamp in stamps):
            raise MalformedError(f"{self.name}: not canonical")
        return state

    def restore(self, data: bytes) -> State:
        """Return the receipts of bytes that this program wrote."""
        if len(data) % _RECORD_BYTES or len(data) > RECEIPTS_MAX * _RECORD_BYTES:
            raise MalformedError(f"{self.name}: {len(data)} bytes are no records")
        records = [data[start : start + _RECORD_BYTES] for start in range(0, len(data), _RECORD_BYTES)]
        return {record[_STAMP_BYTES : _STAMP_BYTES + NAME_BYTES]: record for record in records}

    def is_vacant(self, state: State) -> bool:
        """Return that nothing is there to be read."""
        return True


def encode_receipt(name: bytes, fingerprint: bytes, tag: int) -> bytes:
    """Return the operation that adds a receipt: 16 bytes of name, 8 of fingerprint and the type's tag."""
    return name + fingerprint + bytes((tag,))


def _kept(state: State) -> list[bytes]:
    """Return the records that count, oldest first."""
    records = list(state.values())
    if len(records) > RECEIPTS_MAX:
        records = heapq.nlargest(RECEIPTS_MAX, records)
    records.sort()
    if not records:
        return records
    oldest = max(0, int.from_bytes(records[-1][:_STAMP_BYTES], "big") - _AGE).to_bytes(_STAMP_BYTES, "big")
    return [record for record in records if record[:_STAMP_BYTES] >= oldest]
