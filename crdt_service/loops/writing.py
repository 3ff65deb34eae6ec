"""A node's answers to writes: what is checked before, how many owners are waited for after, what is told of each."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from crdt_service.datatypes.registry import find_type
from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.ident import check_key
from crdt_service.loops.commit import Committer, Outcome
from crdt_service.loops.exchange import Exchange
from crdt_service.loops.transfer import Transfer
from crdt_service.resolution.explanation import summarize
from crdt_service.store.batch import Written, find_applied, is_blind
from crdt_service.store.store import Address, Reading, Store
from crdt_service.wire.message import (
    Concern,
    DeleteRequest,
    FailureReply,
    ManyReply,
    ReadManyRequest,
    ReceiptRequest,
    ValueReply,
    WriteItem,
    WriteManyRequest,
    WriteRequest,
)

# Half of what a frame may hold. Raising it answers with more values at once, and holds up the loop for longer.
VALUES_BYTES_MAX = 4 << 20

# Of a named write that was logged here and that too few owners confirmed. Sent again it is looked for on a quorum that
# may lack it, so it is not promised to be there.
_UNCONFIRMED = ServiceError(
    "outcome_unknown",
    "too few owners have confirmed the write in time; it may have been applied",
    "send it again under the same idempotency key",
)

T = TypeVar("T")
Gather = Callable[[str, Concern], Awaitable[None]]


class Writer:
    """Answers writes.

    Args:
        gather: Joins what a quorum of a key's owners holds, and has each of them hold the result.
    """

    def __init__(
        self, store: Store, committer: Committer, exchange: Exchange, transfer: Transfer, gather: Gather
    ) -> None:
        self._store = store
        self._committer = committer
        self._exchange = exchange
        self._transfer = transfer
        self._gather = gather

    async def write(self, request: WriteRequest, type_name: str = "") -> ValueReply:
        """Apply one operation; to a type that readers may not see where `type_name` names it.

        Raises:
            ServiceError: It was refused and changed nothing, unless the code is ``concern_not_met``.
        """
        item = WriteItem(request.key, request.type_name, request.op, request.if_match, request.token)
        return await self._write_one(
            request.id, item, request.concern, is_read=request.is_read, is_named=bool(type_name)
        )

    async def delete(self, request: DeleteRequest, type_name: str = "") -> ValueReply:
        """Empty a key of every type that it has, or of `type_name` alone.

        Raises:
            ServiceError: As for `write`; one of the types cannot be emptied, and so none was.
        """
        item = WriteItem(request.key, type_name, b"", request.if_match, request.token, is_delete=True)
        return await self._write_one(request.id, item, request.concern, is_read=False, is_named=bool(type_name))

    async def recall(self, request: ReceiptRequest) -> ValueReply:
        """Tell whether a named write was applied, as far as those know that `concern` asks; it is on them then.

        Raises:
            ServiceError: Too few owners answered, or another write was applied under the name.
        """
        if request.concern is Concern.ONE:
            self._transfer.check_synced(check_key(request.key))
        else:
            await self._gather(request.key, request.concern)
        applied = find_applied(request.key, request.token, [self._store])
        return ValueReply(request.id, "" if applied is None else applied.name, b"", is_replay=applied is not None)

    async def write_many(self, request: WriteManyRequest, type_name: str = "") -> ManyReply:
        """Apply writes that do not depend on each other in one step; all of one type where `type_name` names it."""
        outcomes = await self._perform(request.items, request.concern, is_named=bool(type_name))
        results: list[ValueReply | FailureReply] = []
        room = VALUES_BYTES_MAX
        for place, (item, outcome) in enumerate(zip(request.items, outcomes, strict=True)):
            result = self._show(place, item, outcome, room if request.is_read else 0)
            room -= len(result.value) if isinstance(result, ValueReply) else 0
            results.append(result)
        return ManyReply(request.id, results)

    def read_many(self, request: ReadManyRequest, type_name: str = "") -> ManyReply:
        """Return the values of keys, of the first ones if not all fit, at least one; `type_name` as in `Store.read`."""
        results: list[ValueReply | FailureReply] = []
        room = VALUES_BYTES_MAX
        for place, key in enumerate(request.keys):
            try:
                self._transfer.check_synced(key)
                result = show_key(place, self._store, key, type_name)
            except ServiceError as error:
                results.append(fail(place, error))
                continue
            if len(result.value) > room:
                if results:
                    break
                results.append(fail(place, ServiceError("value_too_large", f"{key!r} is too large", "read it alone")))
                continue
            room -= len(result.value)
            results.append(result)
        return ManyReply(request.id, results)

    async def _write_one(
        self, request_id: int, item: WriteItem, concern: Concern, *, is_read: bool, is_named: bool
    ) -> ValueReply:
        is_plain = concern is Concern.ONE and item.token is None and item.if_match is None
        if is_plain and not self._needs_majority(item, is_named=is_named):
            [outcome] = (await self._committer.write_many((item,), is_named=is_named)).outcomes
        else:
            [outcome] = await self._perform([item], concern, is_named=is_named)
        if isinstance(outcome, ServiceError):
            raise outcome
        return self._show_written(request_id, item, outcome, VALUES_BYTES_MAX if is_read else 0)

    async def _perform(self, items: Sequence[WriteItem], concern: Concern, *, is_named: bool) -> list[Outcome]:
        with self._exchange.writing():
            return await self._write(items, concern, is_named=is_named)

    async def _write(self, items: Sequence[WriteItem], concern: Concern, *, is_named: bool) -> list[Outcome]:
        refused = await self._admit(items, concern, is_named=is_named)
        accepted = [place for place in range(len(items)) if place not in refused]
        outcomes: dict[int, Outcome] = dict(refused)
        if accepted:
            try:
                commit = await self._committer.write_many([items[place] for place in accepted], is_named=is_named)
            except ServiceError as error:
                outcomes |= dict.fromkeys(accepted, error)
            else:
                outcomes |= zip(accepted, commit.outcomes, strict=True)
                if concern is not Concern.ONE:
                    written = [place for place in accepted if _is_written(outcomes[place])]
                    outcomes |= await self._confirm(commit.number, items, written, concern)
        return [outcomes[place] for place in range(len(items))]

    async def _admit(self, items: Sequence[WriteItem], concern: Concern, *, is_named: bool) -> dict[int, ServiceError]:
        """Return which of the writes are refused before anything is done."""
        refused: dict[int, ServiceError] = {}
        reachable = self._exchange.reachable()
        for place, item in enumerate(items):
            try:
                check_key(item.key)
                if concern is not Concern.ONE:
                    self._exchange.check(item.key, concern, reachable)
            except ServiceError as error:
                refused[place] = error
        # What depends on what is held needs what a majority holds, where this node may hold only a part of it.
        wanted = {item.key: Concern.MAJORITY for item in items if self._needs_majority(item, is_named=is_named)}
        if concern is not Concern.ONE:
            # A receipt that a quorum holds must be found: then what it shows to be written is on a quorum, too.
            wanted |= {item.key: concern for item in items if item.token is not None}
        gone = {items[place].key for place in refused}
        errors = await _collect({key: self._gather(key, asked) for key, asked in wanted.items() if key not in gone})
        return refused | {
            place: errors[item.key] for place, item in enumerate(items) if item.key in errors and place not in refused
        }

    def _needs_majority(self, item: WriteItem, *, is_named: bool) -> bool:
        """Tell whether an operation depends on what is held of its key, of which this node may hold only a part.

        One that names a type that readers may not see depends on whether that is held.
        """
        return not self._transfer.is_whole(item.key) and (is_named or not is_blind(item))

    async def _confirm(
        self, number: int, items: Sequence[WriteItem], written: Iterable[int], concern: Concern
    ) -> dict[int, ServiceError]:
        """Wait for the owners of what was written; return which of the writes have too few."""
        groups = {place: self._exchange.groups(items[place].key) for place in written}
        waiting = {
            each: self._exchange.confirm(number, items[place].key, concern)
            for each, place in {each: place for place, each in groups.items()}.items()
        }
        errors = await _collect(waiting)
        return {
            place: errors[each] if items[place].token is None else _UNCONFIRMED
            for place, each in groups.items()
            if each in errors
        }

    def _show(self, place: int, item: WriteItem, outcome: Outcome, room: int) -> ValueReply | FailureReply:
        if isinstance(outcome, ServiceError):
            return fail(place, outcome)
        return self._show_written(place, item, outcome, room)

    def _show_written(self, reply_id: int, item: WriteItem, written: Written, room: int) -> ValueReply:
        """Return what was written, with the value after it unless that needs more than `room` bytes.

        Other types that the key holds are told in any case: they came without this writer's knowledge.
        """
        if room > 0 and not item.is_delete:
            with contextlib.suppress(ServiceError):  # The write is done; of the value there may be only a part.
                self._transfer.check_synced(item.key)
                reply = _show(reply_id, self._store.read(item.key, type_name=item.type_name, is_written=True), written)
                if len(reply.value) <= room:
                    return reply
        conflict = b""
        if item.key in self._store.conflicts.types and not item.is_delete:
            conflict = summarize(self._store.conflicts, Address(item.key, find_type(item.type_name).tag))
        return ValueReply(reply_id, written.type_name, b"", conflict, written.digest, written.is_replay)


def show_key(reply_id: int, store: Store, key: str, type_name: str = "", *, explain: bool = False) -> ValueReply:
    """Return the reply that says what a key holds, of one of its types if that is named, or that it is missing.

    What was emptied is told from what was never heard of by a digest of all that is left of the key.
    """
    reading = store.read(key, explain=explain, type_name=type_name)
    if reading is None:
        return ValueReply(reply_id, "", b"", digest=store.emptied(key, type_name))
    return _show(reply_id, reading)


def fail(reply_id: int, error: ServiceError) -> FailureReply:
    """Return the reply that says what was refused."""
    return FailureReply(reply_id, error.code, error.message, error.remedy)


def _show(reply_id: int, reading: Reading | None, written: Written | None = None) -> ValueReply:
    """Return the reply that says what was read, after a write if one is given."""
    if reading is None:
        return ValueReply(reply_id, "", b"")
    is_replay = written is not None and written.is_replay
    return ValueReply(reply_id, reading.type, reading.value, reading.conflict, reading.digest, is_replay)


async def _collect(waiting: Mapping[T, Awaitable[None]]) -> dict[T, ServiceError]:
    """Return the errors of all that is waited for."""
    results = await asyncio.gather(*waiting.values(), return_exceptions=True)
    errors: dict[T, ServiceError] = {}
    for name, result in zip(waiting, results, strict=True):
        if isinstance(result, ServiceError):
            errors[name] = result
        elif result is not None:
            raise result
    return errors


def _is_written(outcome: Outcome) -> bool:
    return isinstance(outcome, Written) and bool(outcome.type_name)
