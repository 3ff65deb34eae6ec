"""Bytes to heal a partition: by the numbered commit log while it reaches back, by digests when it does not.

Requests and replies are encoded as they travel, by the code that answers them; heads of frames and TLS are not counted.
"""

import asyncio
import random

import msgspec

from benchmarks.page import markdown
from crdt_service.kernel.clock import HybridClock
from crdt_service.replication.commits import CommitLog
from crdt_service.store.batch import Batch
from crdt_service.store.store import Store
from crdt_service.wire.message import PushRequest, encode_message
from tests.unit.service.double import FakeClock
from tests.unit.service.side import Side, repairer

BATCH_KEYS = 4096
DIVERGENT = (100, 1000, 10_000, 100_000)
HOT_INCREMENTS = 10_000
REPLICA = "jarvis-crdt-0~478f0fb3"


def tables(keys):
    """Return what a peer is sent by the log, then what a repair moves between stores of so many keys."""
    one, two = Side("jarvis-crdt-0"), Side("jarvis-crdt-1")
    randomness = random.Random(1)
    names = [f"key-{number:08d}" for number in range(keys)]
    for start in range(0, len(names), BATCH_KEYS):
        deltas = one.write_all((name, randomness.randbytes(16)) for name in names[start : start + BATCH_KEYS])
        asyncio.run(two.join(deltas))
    counts = [count for count in DIVERGENT if count <= keys]
    log_rows = [measure_log(f"{count:,} registers", overwrite(one, names, count, randomness)) for count in counts]
    asyncio.run(repairer(one).repair(two, None))
    log_rows.append(measure_log(f"{HOT_INCREMENTS:,} increments of one counter", increment(HOT_INCREMENTS)))
    rows = [asyncio.run(measure_repair(one, two, names, count, randomness)) for count in (0, *counts)]
    log_head = ("by the commit log", "difference, bytes", "sent, bytes", "ratio", "pushes")
    head = (
        f"by digests, {keys:,} keys; divergent on each side",
        "difference, bytes",
        "moved, bytes",
        "ratio",
        "requests",
    )
    return f"{markdown(log_head, log_rows)}\n\n{markdown(head, rows)}"


def overwrite(side, names, count, randomness):
    """Return the deltas of one batch for each of so many distinct keys."""
    return side.write_all((name, randomness.randbytes(16)) for name in randomness.sample(names, count))


def increment(count):
    """Return the deltas of increments of one key, each committed by itself."""
    clock = HybridClock(FakeClock())
    store = Store(clock)
    deltas = []
    for _ in range(count):
        batch = Batch(store, clock, REPLICA)
        batch.write("hot", "pn_counter", b'{"increment": 1}')
        deltas += batch.encode()[0]
        batch.install()
    return deltas


def measure_log(title, deltas):
    """Return a row: what a peer that missed these commits is pushed, in proportion to the newest of each key."""
    log = CommitLog()
    log.append(1.0, deltas)
    assert log.reaches(0), "the log does not reach back so far"
    after = sent = pushes = 0
    while after < log.newest:
        push = log.take(after)
        sent += len(encode_message(PushRequest(pushes, REPLICA, after, push.upto, push.committed_at, push.deltas)))
        after = push.upto
        pushes += 1
    newest = {delta.key: delta for delta in deltas}
    return row(title, encoded_bytes(newest), sent, pushes)


async def measure_repair(one, two, names, count, randomness):
    """Return a row: both sides overwrote so many keys that the other did not see, then one repairs with the other."""
    deltas = [overwrite(side, names, count, randomness) for side in (one, two)]
    newest = {delta.key: delta for delta in (*deltas[0], *deltas[1])}
    two.requests.clear()
    two.moved_bytes = 0
    await repairer(one).repair(two, None)
    assert all(one.store.digest(key) == two.store.digest(key) for key in newest), "not healed"
    return row(f"{count:,}", encoded_bytes(newest), two.moved_bytes, len(two.requests))


def encoded_bytes(newest):
    return sum(len(msgspec.msgpack.encode(delta)) for delta in newest.values())


def row(title, difference, moved, requests):
    ratio = f"{moved / difference:.2f}" if difference else "-"
    return title, f"{difference:,}", f"{moved:,}", ratio, f"{requests:,}"
