"""The one door to the store: gathers writes and deltas, syncs them as one step, then shows and pushes them."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from msgspec.structs import replace

from crdt_service.datatypes.part import cut
from crdt_service.datatypes.registry import get_type
from crdt_service.kernel.clock import Clock, HybridClock
from crdt_service.kernel.error import MalformedError, ServiceError, StorageFullError
from crdt_service.kernel.slot import SLOTS
from crdt_service.replication.commits import group_deltas
from crdt_service.replication.port import Journal, Observer
from crdt_service.replication.replica import Replica
from crdt_service.store.batch import Batch, Written
from crdt_service.store.store import Store
from crdt_service.store.tombstones import tombstone_bytes
from crdt_service.telemetry.trace import Span, child_span, current, linked_span
from crdt_service.wire.message import (
    Delta,
    PlacementState,
    PushRequest,
    Step,
    Tombstone,
    TombstonesReply,
    WriteItem,
    encode_step,
)

# Raising it makes one sync serve more writes, and each of them wait longer.
BATCH_ITEMS_MAX = 512
BATCH_BYTES_MAX = 4 << 20
# Raising it queues more in memory when the disk stalls, instead of refusing.
QUEUE_ITEMS_MAX = 8192
CHECKPOINT_SLICE_KEYS = 256
# Far below what one record may hold. Raising it makes a checkpoint of large keys hold up the loop for longer.
CHECKPOINT_SLICE_BYTES = 4 << 20
# Raising it saves a sync when writes go on, and lets a power loss hide damage of what was written for so long before.
REST_SECONDS = 0.05

_log = logging.getLogger(__name__)


Outcome = Written | ServiceError


class Commit(NamedTuple):
    """What became of writes that went together: the number of this replica's newest commit, and each one's outcome."""

    number: int
    outcomes: list[Outcome]


@dataclass(slots=True)
class _Write:
    items: Sequence[WriteItem]
    outcomes: list[Outcome]
    done: asyncio.Future[Commit]
    is_named: bool


@dataclass(frozen=True, slots=True)
class _Join:
    push: PushRequest
    done: asyncio.Future[int]


@dataclass(frozen=True, slots=True)
class _Alone:
    """A step that is taken with nothing else under way; `plan` returns it then, or None to do nothing."""

    plan: Callable[[], Step | None]
    done: asyncio.Future[bool]


_Item = _Write | _Join | _Alone


class Committer:
    """Group commit. Readers and peers see a batch only after its sync; a refused batch leaves no trace.

    Args:
        is_alone: Whether there are no peers, which might be of the release before.

    Attributes:
        checkpoint_error: Why the last checkpoint failed, empty if it did not.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        *,
        replica: Replica,
        clock: Clock,
        hybrid: HybridClock,
        observer: Observer,
        log_bytes_max: int,
        is_alone: bool = False,
    ) -> None:
        self._store = store
        self._journal = journal
        self._replica = replica
        self._clock = clock
        self._hybrid = hybrid
        self._observer = observer
        self._publish: Callable[[], None] | None = None
        self._on_placed: Callable[[], None] | None = None
        self._log_bytes_max = log_bytes_max
        self._is_alone = is_alone
        self._queue: list[_Item] = []
        self._queued = 0
        # The traced ones of what is queued, by what each waits for; most often none.
        self._spans: dict[asyncio.Future[Any], Span] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        # Progress alone is not worth a sync: a crash only has the peer send again.
        self._unsynced: dict[str, int] = {}
        self._checkpoint: asyncio.Task[None] | None = None
        self.checkpoint_error = ""
        self._log_thread = ThreadPoolExecutor(1, "log")
        self._rest_timer: asyncio.TimerHandle | None = None  # Runs from the first append since the journal rested.
        self._is_rest_due = False

    def subscribe(self, publish: Callable[[], None]) -> None:
        """Have `publish` called after every local commit."""
        self._publish = publish

    def subscribe_placement(self, on_placed: Callable[[], None]) -> None:
        """Have `on_placed` called at once when something else is durably known of placements."""
        self._on_placed = on_placed

    async def write(self, key: str, type_name: str, op: bytes) -> int:
        """Apply a JSON operation durably; return the number of this replica's newest commit with it.

        Raises:
            ServiceError: It was refused and changed nothing.
        """
        commit = await self.write_many([WriteItem(key, type_name, op)])
        if isinstance(commit.outcomes[0], ServiceError):
            raise commit.outcomes[0]
        return commit.number

    async def write_many(self, items: Sequence[WriteItem], *, is_named: bool = False) -> Commit:
        """Apply writes durably in one step, in their order; one that is refused changes nothing and leaves the others.

        `is_named` is as for `Batch.perform`.

        Raises:
            ServiceError: None was applied.
        """
        done: asyncio.Future[Commit] = asyncio.get_running_loop().create_future()
        self._put(_Write(items, [], done, is_named))
        return await done

    async def join(self, push: PushRequest) -> int:
        """Join a peer's deltas durably; return how many broke a rule and were left out.

        The progress of the peer's replica grows only if none was.
        """
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._put(_Join(push, done))
        return await done

    async def join_states(self, deltas: list[Delta]) -> int:
        """Join states that are no numbered commits, as of a repair; return how many broke a rule and were left out."""
        return await self.join(PushRequest(0, "", 0, 0, 0.0, deltas, vouched=self._replica.agreed))

    async def drop(self, choose: Callable[[], list[int]], origin: str) -> list[int]:
        """Forget the slots that `choose` names once nothing else is under way, and write as `origin` from then on.

        Returns:
            The dropped slots; none if `choose` named none or the disk is full.
        """
        slots: list[int] = []

        def plan() -> Step | None:
            slots[:] = choose()
            return replace(self._replica.describe(), dropped=slots, origin=origin, floor=0) if slots else None

        return slots if await self._take_alone(plan) else []

    async def purge(self, choose: Callable[[], list[str]], agreed: int) -> list[str]:
        """Set aside the vacant keys that `choose` names once nothing else is under way, as agreed under that number.

        Own deltas of those of which nothing is held are not pushed again. Without keys it only notes durably what is
        known of agreements, and when this node was last synced.

        Returns:
            The purged keys; none if the disk is full.
        """
        keys: list[str] = []

        def plan() -> Step:
            keys[:] = choose()
            held = [key for key in keys if self._store.holds(key)]
            return self._plan_burial([Tombstone(agreed, self._store.encode_key(key)) for key in held], keys, agreed)

        return keys if await self._take_alone(plan) else []

    async def bury(self, tombstones: list[Tombstone]) -> bool:
        """Set aside what peers hold of vacant keys and this node does not.

        Returns:
            Whether it did; not if the disk is full.
        """
        return await self._take_alone(lambda: self._plan_burial(tombstones, [], 0))

    async def catch_up(self, reply: TombstonesReply) -> bool:
        """Take in what a peer knows to be purged.

        Returns:
            Whether it did; not if the disk is full.
        """
        keys = [tombstone.key for tombstone in reply.tombstones]
        return await self._take_alone(
            lambda: replace(self._plan_burial(reply.tombstones, keys, reply.agreed), forgotten=reply.forgotten)
        )

    async def rebuild(self, origin: str, reply: TombstonesReply) -> bool:
        """Forget all states and own deltas, take in what a peer knows to be purged, and write as `origin` from then on.

        A directory that may own slots is another one then: whoever counted on what it held must not count on it.

        Returns:
            Whether it did; not if the disk is full.
        """
        return await self._take_alone(
            lambda: replace(
                self._replica.describe() if self._replica.placement.document is None else self._replica.rename(origin),
                progress={},
                dropped=list(range(SLOTS)),
                origin=origin,
                floor=0,
                agreed=reply.agreed,
                is_rebuilt=True,
                tombstones=reply.tombstones,
                forgotten=reply.forgotten,
            )
        )

    async def rename(self, name: str) -> bool:
        """Have the directory be another one, whose states are those of this one, and which never promised anything.

        Returns:
            Whether it is; not if the disk is full.
        """
        return await self._take_alone(lambda: self._replica.rename(name))

    async def place(self, change: Callable[[PlacementState], PlacementState | None]) -> bool:
        """Know durably what `change` makes of what is known of placements, once nothing else is under way.

        Returns:
            Whether it is known now; not if `change` returned None or the disk is full.
        """

        def plan() -> Step | None:
            state = change(self._replica.placement)
            return None if state is None else Step(self._replica.commits.newest, [], [], {}, placement=state)

        return await self._take_alone(plan)

    async def renew_origin(self, origin: str) -> bool:
        """Write as `origin` from then on.

        Returns:
            Whether it does; not if the disk is full.
        """
        return await self._take_alone(lambda: replace(self._replica.describe(), origin=origin, floor=0))

    async def run(self) -> None:
        """Commit batches until `stop`, then what is still queued; nothing touches the journal after that.

        Raises:
            OSError: The disk failed; the process must end.
        """
        while self._queue or not self._stopping:
            await self._wake.wait()
            if self._is_rest_due:
                await self._rest()
            items = self._take()
            if not self._queue and not self._stopping:
                self._wake.clear()
            if not items:
                continue
            spans = self._spans_of(items)
            with linked_span("commit", spans, {"jarvis.items": sum(map(_weight, items))} if spans else {}):
                await self._commit(items)
            self._observer.on_storage(self._journal.log_bytes)
            if self._journal.log_bytes > self._log_bytes_max and (self._checkpoint is None or self._checkpoint.done()):
                await self._start_checkpoint()
        if self._checkpoint is not None:
            await self._checkpoint
        await self._rest()

    def _take(self) -> list[_Item]:
        """Return the next batch: at least one item, and few enough bytes for one record; a drop goes alone."""
        count = weight = total = 0
        for item in self._queue[:BATCH_ITEMS_MAX]:
            if isinstance(item, _Write):
                writes = len(item.items)
                for each in item.items:
                    total += len(each.op)
            elif isinstance(item, _Join):
                writes = 1
                total += sum(len(delta.state) for delta in item.push.deltas)
            else:
                if not count:
                    count = weight = 1
                break
            if count and (total > BATCH_BYTES_MAX or weight + writes > BATCH_ITEMS_MAX):
                break
            count += 1
            weight += writes
        items, self._queue = self._queue[:count], self._queue[count:]
        self._queued -= weight
        return items

    def stop(self) -> None:
        """Refuse new items; `run` ends once it has answered those it has."""
        self._stopping = True
        self._wake.set()

    def _put(self, item: _Item) -> None:
        if self._stopping:
            raise ServiceError("stopping", "the node is stopping", "retry on another node")
        if self._queued >= QUEUE_ITEMS_MAX:
            raise ServiceError("overloaded", "too many writes are waiting for the disk", "retry later")
        self._queue.append(item)
        self._queued += _weight(item)
        if (span := current.get()) is not None:
            self._spans[item.done] = span
        self._wake.set()

    def _spans_of(self, items: list[_Item]) -> list[Span]:
        if not self._spans:
            return []
        return [span for item in items if (span := self._spans.pop(item.done, None)) is not None]

    async def _commit(self, items: list[_Item]) -> None:
        batch = Batch(
            self._store,
            self._hybrid,
            self._replica.origin,
            self._replica.floor,
            # No node of the release before takes part in a placement.
            may_note_presence=self._is_alone or self._replica.epoch > 0,
        )
        progress: dict[str, int] = {}
        accepted: list[tuple[_Write | _Join, int]] = []
        for item in self._refuse_late(items):
            if isinstance(item, _Alone):
                await self._step(item)
                continue
            refused = self._stage(batch, item, progress)
            if isinstance(item, _Write) and refused == len(item.items):
                self._finish(item, refused, self._replica.commits.newest, 0.0)
            else:
                accepted.append((item, refused))
        if batch.impossible_stamps:
            self._observer.on_impossible_stamps(batch.impossible_stamps)
        own: list[Delta] = []
        if batch.pending:
            own, joined = batch.encode()
            try:
                newest = self._replica.commits.newest + len(own)
                await self._append(
                    Step(newest, own, joined, self._unsynced | progress, synced_at=self._replica.synced_at)
                )
            except StorageFullError as error:
                for item, _ in accepted:
                    _fail(item, error)
                return
            for arisen in batch.install():
                self._observer.on_conflict(*arisen)
            self._store.changes.append(batch.pending)
            self._unsynced = {}
        else:
            self._unsynced |= progress
        self._replica.note(progress)
        now = self._clock.now_seconds()
        number = self._replica.commits.append(now, own)
        for item, refused in accepted:
            self._finish(item, refused, number, now)
        if own and self._publish is not None:
            self._publish()

    def _refuse_late(self, items: list[_Item]) -> Iterator[_Item]:
        """Yield the items but for what was sent before a purge that was noted while it waited."""
        for item in items:
            if isinstance(item, _Join) and item.push.vouched < self._replica.agreed:
                message = "the sender missed an agreement to purge keys"
                _fail(item, ServiceError("behind", message, "catch up, then push again"))
            else:
                yield item

    def _stage(self, batch: Batch, item: _Write | _Join, progress: dict[str, int]) -> int:
        """Add an item to the batch; return how many of its writes or deltas were refused."""
        refused = 0
        if isinstance(item, _Write):
            for each in item.items:
                try:
                    item.outcomes.append(batch.perform(each, is_named=item.is_named))
                except ServiceError as error:
                    item.outcomes.append(error)
                    refused += 1
            return refused
        push = item.push
        for delta in push.deltas:
            try:
                batch.join(delta)
            except MalformedError as error:
                _log.warning("delta refused: %s", error)
                refused += 1
        reached = max(self._replica.progress.get(push.replica, 0), progress.get(push.replica, 0))
        if push.replica and not refused and push.after <= reached < push.upto:
            progress[push.replica] = push.upto
        return refused

    async def _append(self, step: Step) -> None:
        payload = encode_step(step)
        with child_span("append", {"jarvis.bytes": len(payload)}):
            await asyncio.get_running_loop().run_in_executor(self._log_thread, self._journal.append, payload)
        if self._rest_timer is None:
            self._rest_timer = asyncio.get_running_loop().call_later(REST_SECONDS, self._call_for_rest)

    def _call_for_rest(self) -> None:
        self._is_rest_due = True
        self._wake.set()

    async def _rest(self) -> None:
        """Have the journal sync beside the log what it noted there, if it appended anything since it last did."""
        if self._rest_timer is None:
            return
        self._rest_timer.cancel()
        self._rest_timer = None
        self._is_rest_due = False
        await asyncio.get_running_loop().run_in_executor(self._log_thread, self._journal.rest)

    def _plan_burial(self, tombstones: list[Tombstone], keys: list[str], agreed: int) -> Step:
        replica = self._replica
        dots = (
            get_type(delta.tag).newest_dot(get_type(delta.tag).restore(delta.state), replica.origin)
            for tombstone in tombstones
            for delta in tombstone.states
        )
        return replace(
            replica.describe(),
            tombstones=tombstones,
            purged=keys,
            agreed=max(replica.agreed, agreed),
            floor=max(dots, default=0),
        )

    async def _take_alone(self, plan: Callable[[], Step | None]) -> bool:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._put(_Alone(plan, done))
        return await done

    async def _step(self, item: _Alone) -> None:
        step = item.plan()
        if step is not None:
            try:
                await self._append(step)
            except StorageFullError as error:
                _log.warning("what is to be forgotten stays: %s", error)
                step = None
            else:
                self._unsynced = {}
                keys = [tombstone.key for tombstone in step.tombstones]
                shown = [(key, 0) for key in keys if self._store.holds(key) and key not in self._store.vacant]
                self._replica.take(self._store, self._hybrid, step)
                if shown:
                    self._store.changes.append(shown)
                if step.placement is not None and self._on_placed is not None:
                    self._on_placed()
        if not item.done.done():
            item.done.set_result(step is not None)

    def _finish(self, item: _Write | _Join, refused: int, number: int, now: float) -> None:
        if isinstance(item, _Join):
            if refused:
                self._observer.on_refused(refused)
            if item.push.committed_at:
                self._observer.on_synced(max(0.0, now - item.push.committed_at))
        if item.done.done():
            return
        if isinstance(item, _Write):
            item.done.set_result(Commit(number, item.outcomes))
        else:
            item.done.set_result(refused)

    async def _start_checkpoint(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            number = await loop.run_in_executor(self._log_thread, self._journal.rotate)
        except OSError as error:
            _log.error("no new log could be started, the old one goes on: %s", error)
            self.checkpoint_error = f"no new log could be started: {error}"
            return
        self._checkpoint = asyncio.create_task(self._write_checkpoint(number, self._replica.describe()))

    async def _write_checkpoint(self, number: int, end: Step) -> None:
        """Write all states while writes go on."""
        try:
            for payload in encode_states(self._store):
                if self._stopping:
                    # Unfinished, it replaces nothing; and nobody may touch the files once the lock is given up.
                    return
                await asyncio.to_thread(self._journal.write_snapshot, number, [payload], last=False)
            await asyncio.to_thread(self._journal.write_snapshot, number, [encode_step(end)], last=True)
        except Exception as error:  # Whatever it is, the logs stay and grow, which somebody has to know.
            _log.exception("checkpoint %d failed, the logs stay", number)
            self.checkpoint_error = f"{type(error).__name__}: {error}"
        else:
            self.checkpoint_error = ""


def encode_states(store: Store) -> Iterator[bytes]:
    """Yield all that is held as steps, in slices between which the store may change.

    What grows meanwhile only adds to it. Tombstones go first: a key that is written meanwhile is whole in a later
    slice, and what is purged meanwhile is whole in the log.
    """
    for tombstones in cut(iter(store.tombstones), tombstone_bytes, CHECKPOINT_SLICE_BYTES):
        yield encode_step(Step(0, [], [], {}, tombstones=tombstones, forgotten=store.tombstones.forgotten))
    for part in store.slices(CHECKPOINT_SLICE_KEYS):
        states = (delta for address in part for delta in store.split(address, CHECKPOINT_SLICE_BYTES))
        for deltas in group_deltas(states, CHECKPOINT_SLICE_BYTES):
            yield encode_step(Step(0, [], deltas, {}))


def _weight(item: _Item) -> int:
    """Return for how many writes an item counts."""
    return len(item.items) if isinstance(item, _Write) else 1


def _fail(item: _Write | _Join, error: ServiceError) -> None:
    if not item.done.done():
        item.done.set_exception(error)
