"""The one door to the store: gathers writes and deltas, syncs them as one record, then shows and pushes them."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from crdt_service.kernel.clock import Clock, HybridClock
from crdt_service.kernel.error import MalformedError, ServiceError, StorageFullError
from crdt_service.replication.port import Journal, Observer
from crdt_service.store.batch import Batch
from crdt_service.store.store import Address, Reading, Store
from crdt_service.wire.message import Delta, encode_batch

# Raising it makes one sync serve more writes, and each of them wait longer.
BATCH_ITEMS_MAX = 512
BATCH_BYTES_MAX = 4 << 20
# Raising it queues more in memory when the disk stalls, instead of refusing.
QUEUE_ITEMS_MAX = 8192
CHECKPOINT_SLICE_KEYS = 256

Publish = Callable[[float, list[Delta]], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Write:
    key: str
    type: str
    op: bytes
    done: asyncio.Future[Reading]


@dataclass(frozen=True, slots=True)
class _Join:
    deltas: list[Delta]
    committed_at: float
    done: asyncio.Future[int]


class Committer:
    """Group commit. Readers and peers see a batch only after its sync; a refused batch leaves no trace."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        *,
        replica: str,
        clock: Clock,
        hybrid: HybridClock,
        observer: Observer,
        log_bytes_max: int,
    ) -> None:
        self._store = store
        self._journal = journal
        self._replica = replica
        self._clock = clock
        self._hybrid = hybrid
        self._observer = observer
        self._publish: Publish | None = None
        self._log_bytes_max = log_bytes_max
        self._queue: list[_Write | _Join] = []
        self._wake = asyncio.Event()
        self._stopping = False
        self._checkpoint: asyncio.Task[None] | None = None
        self._log_thread = ThreadPoolExecutor(1, "log")

    def subscribe(self, publish: Publish) -> None:
        """Have `publish` called with the commit time in seconds and the deltas of every local commit."""
        self._publish = publish

    async def write(self, key: str, type_name: str, op: bytes) -> Reading:
        """Apply a JSON operation durably; return the value after its batch.

        Raises:
            ServiceError: It was refused and changed nothing.
        """
        done: asyncio.Future[Reading] = asyncio.get_running_loop().create_future()
        self._put(_Write(key, type_name, op, done))
        return await done

    async def join(self, deltas: list[Delta], committed_at: float) -> int:
        """Join a peer's deltas durably; return how many broke a rule and were left out."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._put(_Join(deltas, committed_at, done))
        return await done

    async def run(self) -> None:
        """Commit batches until `stop`, then what is still queued; nothing touches the journal after that.

        Raises:
            OSError: The disk failed; the process must end.
        """
        while self._queue or not self._stopping:
            await self._wake.wait()
            items = self._take()
            if not self._queue and not self._stopping:
                self._wake.clear()
            await self._commit(items)
            self._observer.on_storage(self._journal.log_bytes)
            if self._journal.log_bytes > self._log_bytes_max and (self._checkpoint is None or self._checkpoint.done()):
                await self._start_checkpoint()
        if self._checkpoint is not None:
            await self._checkpoint

    def _take(self) -> list[_Write | _Join]:
        """Return the next batch: at least one item, and few enough bytes for one record and one push."""
        count = total = 0
        for item in self._queue[:BATCH_ITEMS_MAX]:
            total += len(item.op) if isinstance(item, _Write) else sum(len(delta.state) for delta in item.deltas)
            if count and total > BATCH_BYTES_MAX:
                break
            count += 1
        items, self._queue = self._queue[:count], self._queue[count:]
        return items

    def stop(self) -> None:
        """Refuse new items; `run` ends once it has answered those it has."""
        self._stopping = True
        self._wake.set()

    def _put(self, item: _Write | _Join) -> None:
        if self._stopping:
            raise ServiceError("stopping", "the node is stopping", "retry on another node")
        if len(self._queue) >= QUEUE_ITEMS_MAX:
            raise ServiceError("overloaded", "too many writes are waiting for the disk", "retry later")
        self._queue.append(item)
        self._wake.set()

    async def _commit(self, items: list[_Write | _Join]) -> None:
        batch = Batch(self._store, self._hybrid, self._replica)
        accepted: list[tuple[_Write | _Join, int]] = []
        for item in items:
            try:
                accepted.append((item, _stage(batch, item)))
            except ServiceError as error:
                _fail(item, error)
        if batch.absurd_stamps:
            self._observer.on_absurd_stamps(batch.absurd_stamps)
        written: list[Delta] = []
        if batch.pending:
            deltas = batch.encode()
            payload = encode_batch(deltas)
            written = batch.pick_written(deltas)
            try:
                await asyncio.get_running_loop().run_in_executor(self._log_thread, self._journal.append, payload)
            except StorageFullError as error:
                self._observer.on_disk_error()
                for item, _ in accepted:
                    _fail(item, error)
                return
            except OSError:
                self._observer.on_disk_error()
                raise
            batch.install()
        now = self._clock.now_seconds()
        for item, refused in accepted:
            self._finish(item, refused, now)
        if written and self._publish is not None:
            self._publish(now, written)

    def _finish(self, item: _Write | _Join, refused: int, now: float) -> None:
        if isinstance(item, _Join):
            if refused:
                self._observer.on_refused(refused)
            if item.committed_at:
                self._observer.on_synced(max(0.0, now - item.committed_at))
            if not item.done.done():
                item.done.set_result(refused)
        elif not item.done.done():
            reading = self._store.read(item.key)
            assert reading is not None, "a committed key reads"  # noqa: S101
            item.done.set_result(reading)

    async def _start_checkpoint(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            number = await loop.run_in_executor(self._log_thread, self._journal.rotate)
        except OSError as error:
            self._observer.on_disk_error()
            _log.error("no new log could be started, the old one goes on: %s", error)
            return
        self._checkpoint = asyncio.create_task(self._write_checkpoint(number))

    async def _write_checkpoint(self, number: int) -> None:
        """Write all states, in slices between which writes go on; states that grow meanwhile only add to it."""
        addresses: list[Address] = list(self._store.states)
        try:
            for start in range(0, len(addresses), CHECKPOINT_SLICE_KEYS):
                if self._stopping:
                    # Unfinished, it replaces nothing; and nobody may touch the files once the lock is given up.
                    return
                part = addresses[start : start + CHECKPOINT_SLICE_KEYS]
                payload = encode_batch([self._store.encode(address) for address in part])
                await asyncio.to_thread(self._journal.write_snapshot, number, [payload], last=False)
            await asyncio.to_thread(self._journal.write_snapshot, number, [], last=True)
        except OSError as error:
            self._observer.on_disk_error()
            _log.error("checkpoint %d failed, the logs stay: %s", number, error)


def _stage(batch: Batch, item: _Write | _Join) -> int:
    """Add an item to the batch; return how many of its deltas were refused."""
    if isinstance(item, _Write):
        batch.write(item.key, item.type, item.op)
        return 0
    refused = 0
    for delta in item.deltas:
        try:
            batch.join(delta)
        except MalformedError as error:
            _log.warning("delta refused: %s", error)
            refused += 1
    return refused


def _fail(item: _Write | _Join, error: ServiceError) -> None:
    if not item.done.done():
        item.done.set_exception(error)
