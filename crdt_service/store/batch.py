"""Operations and deltas gathered for one sync, before any of it is visible."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from crdt_service.datatypes.contract import Datatype, Origin
from crdt_service.datatypes.receipts import encode_receipt
from crdt_service.datatypes.registry import DATATYPES, RECEIPTS, find_type, get_type
from crdt_service.kernel.clock import HybridClock, is_impossible
from crdt_service.kernel.error import MalformedError, OperationError, ServiceError
from crdt_service.kernel.ident import check_key
from crdt_service.kernel.slot import name_of
from crdt_service.resolution.conflicts import Arisen
from crdt_service.store.scan import encode_digest, mix
from crdt_service.store.store import Address, Store
from crdt_service.wire.message import Delta, Token, WriteItem

_CLEAR = b'{"clear": true}'


class States(Protocol):
    """States by address."""

    def get(self, address: Address, /) -> Any | None:
        """Return a state, or None."""
        ...


class Written(NamedTuple):
    """What became of a write that was not refused.

    Attributes:
        type_name: The type that was written to, or deleted; empty if there was nothing to delete.
        digest: What the key will hold just after a conditional write, as `Store.etag` returns it; empty after others.
        is_replay: It had been applied before, and was not again.
    """

    type_name: str
    digest: bytes = b""
    is_replay: bool = False


class Batch:
    """Pending deltas on top of a store that it never changes; ops on one key coalesce.

    Attributes:
        pending: Address to the joined deltas.
        written: Addresses that local operations touched, whose deltas go to the peers.
        impossible_stamps: Deltas refused because no clock can have made their stamps.
    """

    def __init__(
        self, store: Store, clock: HybridClock, origin: str, floor: int = 0, *, may_note_presence: bool = True
    ) -> None:
        self.pending: dict[Address, Any] = {}
        self.written: set[Address] = set()
        self.impossible_stamps = 0
        self._tags: dict[str, tuple[int, ...]] = {}  # Of the pending addresses, by key.
        self._store = store
        self._origin = Origin(origin, clock.tick, floor, clock.latest_milliseconds, may_note_presence=may_note_presence)
        # What came in as one delta goes to the log as it came, without being encoded again.
        self._single: dict[Address, Delta] = {}

    def perform(self, item: WriteItem, *, is_named: bool = False) -> Written:
        """Add a write, unless a receipt shows that it was applied before.

        Args:
            item: The write.
            is_named: Whether it is to a type that the key holds, though readers see another one; a deletion then
                empties the key of that type alone.

        Raises:
            ServiceError: It was refused and adds nothing; ``idempotency_mismatch`` if another write was applied under
                its token, ``precondition_failed`` if the key does not have the digest that it should.
        """
        key, token = item.key, item.token
        if token is None and item.if_match is None and not item.is_delete:
            self.write(key, item.type_name, item.op, is_named=is_named)
            return Written(item.type_name)
        if token is not None and (applied := find_applied(key, token, (self.pending, self._store))) is not None:
            return Written(applied.name, is_replay=True)
        if item.if_match is not None and self.etag(key) != item.if_match:
            raise ServiceError(
                "precondition_failed",
                f"the key {key!r} " + ("holds something else by now" if item.if_match else "exists"),
                "read it, and write again with its present ETag",
            )
        if item.is_delete:
            datatype = self.delete(key, item.type_name if is_named else "")
        else:
            self.write(key, item.type_name, item.op, is_named=is_named)
            datatype = find_type(item.type_name)
        if datatype is None:
            return Written("")
        if token is not None:
            receipt = encode_receipt(token.name, token.fingerprint, datatype.tag)
            address = Address(key, RECEIPTS.tag)
            self._apply(RECEIPTS, address, receipt, self._store.get(address))
        return Written(datatype.name, b"" if item.if_match is None else self.etag(key))

    def etag(self, key: str) -> bytes:
        """Return what `Store.etag` will return of `key` once this is installed."""
        if key not in self._tags:
            return self._store.etag(key)
        total, is_missing = 0, True
        for datatype in DATATYPES:
            address = Address(key, datatype.tag)
            state = self._copy(address)
            if state is not None:
                total ^= mix(name_of(key), datatype.tag, datatype.encode(state))
                is_missing = is_missing and datatype.is_vacant(state)
        return b"" if is_missing else encode_digest(total)

    def delete(self, key: str, type_name: str = "") -> Datatype[Any] | None:
        """Empty a key of every type that it has, or of one; return the first, None if there was nothing.

        Raises:
            OperationError: One of them cannot be emptied, and so none was; or there is no such type.
        """
        types = self._types(check_key(key))
        if type_name:
            types = [datatype for datatype in types if datatype is find_type(type_name)]
        for datatype in types:
            if not datatype.can_clear:
                raise OperationError(
                    f"a {datatype.name} cannot be deleted",
                    'send {"clear": true} to empty it' if datatype.name == "document" else "use another key instead",
                    "not_deletable",
                )
        for datatype in types:
            address = Address(key, datatype.tag)
            self._apply(datatype, address, _CLEAR, self._store.get(address))
        return types[0] if types else None

    def write(self, key: str, type_name: str, op: bytes, *, is_named: bool = False) -> None:
        """Add a JSON operation; with `is_named` also to a type of the key that readers do not see.

        Raises:
            OperationError: It is malformed, exceeds a limit, or the key has another type.
        """
        datatype = find_type(type_name)
        address = Address(check_key(key), datatype.tag)
        state = self._store.get(address)
        self._check_type(address, state, is_named=is_named)
        self._apply(datatype, address, op, state)

    def restore(self, delta: Delta) -> None:
        """Add a delta of this replica's own log, whatever its stamp.

        Raises:
            MalformedError: Its bytes are refused.
        """
        datatype = get_type(delta.tag, delta.version)
        self._join(Address(delta.key, delta.tag), datatype.restore(delta.state), delta)

    def join(self, delta: Delta) -> None:
        """Add a peer's delta.

        Raises:
            MalformedError: Its bytes are refused, or its stamp is impossible.
        """
        datatype = get_type(delta.tag, delta.version)
        try:
            address = Address(check_key(delta.key), delta.tag)
        except OperationError as error:
            raise MalformedError(error.message) from error
        state = datatype.decode(delta.state)
        if is_impossible(datatype.newest_stamp(state)):
            self.impossible_stamps += 1
            raise MalformedError(f"a stamp of {delta.key!r} is none that a clock can have made")
        self._join(address, state, delta)

    def encode(self) -> tuple[list[Delta], list[Delta]]:
        """Return the pending deltas: those of local operations, which go to the peers, and the others."""
        own = [self._encode(address) for address in self.pending if address in self.written]
        return own, [self._encode(address) for address in self.pending if address not in self.written]

    def install(self) -> list[Arisen]:
        """Make everything visible; call it only once `encode`'s bytes are on disk; return the conflicts that arose."""
        return [arisen for address, delta in self.pending.items() for arisen in self._store.install(address, delta)]

    def _apply(self, datatype: Datatype[Any], address: Address, op: bytes, state: Any) -> None:
        """Add an operation on the store's state, None for none."""
        if state is None:
            state = datatype.empty()
        pending = self.pending.get(address)
        if pending is None:
            pending = datatype.empty()
        delta = datatype.apply(state, pending, op, self._origin)
        self.pending[address] = datatype.join(pending, delta)
        self.written.add(address)
        self._note(address)
        self._single.pop(address, None)

    def _copy(self, address: Address) -> Any:
        """Return what will be at `address`, to read only; None for nothing."""
        pending = self.pending.get(address)
        if pending is None:
            return self._store.get(address)
        datatype = get_type(address.tag)
        state = datatype.restore(self._store.encode(address).state) if address in self._store else datatype.empty()
        return datatype.join(state, pending)

    def _types(self, key: str) -> list[Datatype[Any]]:
        """Return the types of which `key` will hold something to be read, the one that readers see first."""
        if key not in self._tags:
            return self._store.types(key)
        states = [(datatype, self._copy(Address(key, datatype.tag))) for datatype in DATATYPES]
        return [datatype for datatype, state in states if state is not None and not datatype.is_vacant(state)]

    def _join(self, address: Address, state: Any, delta: Delta) -> None:
        pending = self.pending.get(address)
        if pending is None:
            self._note(address)
            self.pending[address] = state
            self._single[address] = delta
        else:
            self.pending[address] = get_type(address.tag).join(pending, state)
            self._single.pop(address, None)

    def _note(self, address: Address) -> None:
        tags = self._tags.get(address.key, ())
        if address.tag not in tags and address.tag != RECEIPTS.tag:
            self._tags[address.key] = (*tags, address.tag)

    def _check_type(self, address: Address, state: Any, *, is_named: bool) -> None:
        """Refuse a write to a type, of which the store holds `state`, where readers see another one.

        One that is named is refused only if nothing of its type is there: then it would begin a conflict.

        Raises:
            OperationError: The code is ``type_conflict``.
        """
        key, datatype = address.key, get_type(address.tag)
        tags = self._tags.get(key, ())
        is_there = address in self.pending or (state is not None and not datatype.is_vacant(state))
        if is_there and key not in self._store.conflicts.types and tags in {(), (address.tag,)}:
            return  # Most often: it holds nothing else, and gets nothing else.
        types = self._types(key)
        if not types or datatype is types[0] or (is_named and datatype in types):
            return
        raise OperationError(
            f"the key is a {types[0].name}, not a {datatype.name}",
            f"it holds that, too: name it with ?type={datatype.name}"
            if datatype in types
            else "use its type or another key",
            "type_conflict",
        )

    def _encode(self, address: Address) -> Delta:
        single = self._single.get(address)
        if single is not None:
            return single
        datatype = get_type(address.tag)
        return Delta(address.key, address.tag, datatype.version, datatype.encode(self.pending[address]))


def is_blind(item: WriteItem) -> bool:
    """Tell whether a write does the same whatever its node holds of the key, so that any member may take it.

    Deletions, and writes with a condition or a name, never are. One of an unknown type is refused anywhere.
    """
    if item.is_delete or item.if_match is not None or item.token is not None:
        return False
    try:
        return find_type(item.type_name).is_blind(item.op)
    except OperationError:
        return True


def find_applied(key: str, token: Token, places: Iterable[States]) -> Datatype[Any] | None:
    """Return the type that the write of this token was applied to, None if no receipt is there.

    Args:
        key: The key that was written.
        token: Names the write.
        places: Where the receipts of the key may be.

    Raises:
        ServiceError: Another write was applied under the name.
    """
    address = Address(key, RECEIPTS.tag)
    for states in places:
        state = states.get(address)
        receipt = None if state is None else RECEIPTS.find(state, token.name)
        if receipt is None:
            continue
        if receipt.fingerprint != token.fingerprint:
            raise ServiceError(
                "idempotency_mismatch",
                f"another write of {key!r} was applied under this idempotency key",
                "use a new idempotency key for each write, and the same only to send it again",
            )
        return get_type(receipt.tag)
    return None
