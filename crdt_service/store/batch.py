"""Operations and deltas gathered for one sync, before any of it is visible."""

from collections.abc import Iterable
from typing import Any

from crdt_service.datatypes.contract import Datatype, Origin
from crdt_service.datatypes.registry import DATATYPES, find_type, get_type
from crdt_service.kernel.clock import HybridClock
from crdt_service.kernel.error import MalformedError, OperationError
from crdt_service.kernel.ident import check_key
from crdt_service.store.store import Address, Store
from crdt_service.wire.message import Delta, decode_batch


class Batch:
    """Pending deltas on top of a store that it never changes; ops on one key coalesce.

    Attributes:
        pending: Address to the joined deltas.
        written: Addresses that local operations touched, whose deltas go to the peers.
        absurd_stamps: Deltas refused because their stamps lie too far in the future.
    """

    def __init__(self, store: Store, clock: HybridClock, replica: str) -> None:
        self.pending: dict[Address, Any] = {}
        self.written: set[Address] = set()
        self.absurd_stamps = 0
        self._store = store
        self._clock = clock
        self._origin = Origin(replica, clock.tick)

    def write(self, key: str, type_name: str, op: bytes) -> None:
        """Add a JSON operation.

        Raises:
            OperationError: It is malformed, exceeds a limit, or the key has another type.
        """
        datatype = find_type(type_name)
        address = Address(check_key(key), datatype.tag)
        if address not in self._store.states and address not in self.pending:
            self._check_type(key, datatype)
        state = self._store.states.get(address)
        if state is None:
            state = datatype.empty()
        pending = self.pending.get(address)
        if pending is None:
            pending = datatype.empty()
        delta = datatype.apply(state, pending, op, self._origin)
        self.pending[address] = datatype.join(pending, delta)
        self.written.add(address)

    def restore(self, delta: Delta) -> None:
        """Add a delta of this replica's own log, whatever its stamp.

        Raises:
            MalformedError: Its bytes are refused.
        """
        datatype = get_type(delta.tag, delta.version)
        self._join(Address(delta.key, delta.tag), datatype.decode(delta.state))

    def join(self, delta: Delta) -> None:
        """Add a peer's delta.

        Raises:
            MalformedError: Its bytes are refused, or its stamp lies too far in the future; a repair brings it later.
        """
        datatype = get_type(delta.tag, delta.version)
        try:
            address = Address(check_key(delta.key), delta.tag)
        except OperationError as error:
            raise MalformedError(error.message) from error
        state = datatype.decode(delta.state)
        if self._clock.is_absurd(datatype.newest_stamp(state)):
            self.absurd_stamps += 1
            raise MalformedError(f"a stamp of {delta.key!r} lies too far in the future")
        self._join(address, state)

    def encode(self) -> list[Delta]:
        """Return all pending deltas, for the log."""
        return [self._encode(address) for address in self.pending]

    def pick_written(self, deltas: list[Delta]) -> list[Delta]:
        """Return those of `encode`'s deltas that local operations made, for the peers."""
        return [delta for delta in deltas if (delta.key, delta.tag) in self.written]

    def install(self) -> None:
        """Make everything visible; call it only once `encode`'s bytes are on disk."""
        for address, delta in self.pending.items():
            self._store.install(address, delta)

    def _join(self, address: Address, state: Any) -> None:
        pending = self.pending.get(address)
        self.pending[address] = state if pending is None else get_type(address.tag).join(pending, state)

    def _check_type(self, key: str, datatype: Datatype[Any]) -> None:
        other = self._store.find(key) or next(
            (known for known in DATATYPES if Address(key, known.tag) in self.pending), None
        )
        if other is not None:
            raise OperationError(
                f"the key is a {other.name}, not a {datatype.name}", "use its type or another key", "type_conflict"
            )

    def _encode(self, address: Address) -> Delta:
        datatype = get_type(address.tag)
        return Delta(address.key, address.tag, datatype.version, datatype.encode(self.pending[address]))


def replay(store: Store, clock: HybridClock, replica: str, payloads: Iterable[bytes]) -> None:
    """Install the batches of this replica's own log.

    Raises:
        MalformedError: A payload is refused.
    """
    for payload in payloads:
        batch = Batch(store, clock, replica)
        for delta in decode_batch(payload):
            batch.restore(delta)
        batch.install()
