"""What one more operation costs as a key grows, and as the store does."""

import statistics
import time

from benchmarks.page import markdown
from crdt_service.datatypes.pn_counter import PnCounter
from crdt_service.kernel.clock import HybridClock, SystemClock
from crdt_service.store.batch import Batch
from crdt_service.store.store import Store

REPLICA = "jarvis-crdt-0~478f0fb3"
# One key holds no more than the last of them; a counter has an entry per replica, of which it takes 4096.
SIZES = (100, 1000, 10_000)
REPLICAS = (100, 1000, 4000)
KEYS = (100, 1000, 10_000, 100_000, 1_000_000)
OPERATIONS = {
    "aw_set, elements": ("aw_set", b'{"add": "element-%08d"}'),
    "g_set, elements": ("g_set", b'{"add": "element-%08d"}'),
    "map, fields": ("map", b'{"update": {"field-%08d": {"type": "lww_register", "op": {"assign": 1}}}}'),
}
FILLED_OPERATIONS = 500
MEASURED = 50
MEASURED_KEYS = 1000


def tables(keys_max):
    """Return a table by elements of one key and one by keys of the store."""
    rows = [(name, *measure_key(*OPERATIONS[name])) for name in OPERATIONS]
    rows.append(("pn_counter, replicas (100, 1000, 4000)", *measure_counter()))
    head = ("one key", *(f"µs at {size:,}" for size in SIZES), "last ÷ first", "digest, µs at the last")
    sizes = [keys for keys in KEYS if keys <= keys_max]
    grown = measure_keys(sizes)
    store_head = ("keys in the store", *(f"{keys:,}" for keys in sizes), "last ÷ first")
    row = ("µs per write of a new register", *(f"{each:.1f}" for each in grown), f"{grown[-1] / grown[0]:.2f}")
    return f"{markdown(head, rows)}\n\n{markdown(store_head, [row])}"


def measure_key(type_name, op):
    """Return cells: µs of an operation that brings a key to each size, their ratio, µs of its digest after that."""
    taken = []
    for size in SIZES:
        store, clock = new_store()
        fill(store, clock, type_name, [op % number for number in range(size - MEASURED)])
        ops = [op % number for number in range(size - MEASURED, size)]
        taken.append(statistics.median(write(store, clock, "key", type_name, each) for each in ops))
    return cells(taken, store)


def measure_counter():
    """Return the same cells for increments of a counter that so many replicas have written."""
    taken = []
    datatype = PnCounter()
    for replicas in REPLICAS:
        store, clock = new_store()
        batch = Batch(store, clock, REPLICA)
        for number in range(replicas - 1):
            other, other_clock = new_store()
            own = Batch(other, other_clock, f"jarvis-crdt-{number}~0c61a0de")
            own.write("key", datatype.name, b'{"increment": 1}')
            batch.join(own.encode()[0][0])
        batch.install()
        increments = [b'{"increment": 1}'] * MEASURED
        taken.append(statistics.median(write(store, clock, "key", datatype.name, each) for each in increments))
    return cells(taken, store)


def measure_keys(sizes):
    """Return µs per write of a new key in a store that holds so many."""
    store, clock = new_store()
    taken = []
    for size in sizes:
        for start in range(len(store), size, FILLED_OPERATIONS):
            batch = Batch(store, clock, REPLICA)
            for number in range(start, min(size, start + FILLED_OPERATIONS)):
                batch.write(f"key-{number:08d}", "lww_register", b'{"assign": "%032d"}' % number)
            batch.install()
        while store.refresh_digests(FILLED_OPERATIONS):
            pass
        ops = [(f"new-{size}-{number}", b'{"assign": "%032d"}' % number) for number in range(MEASURED_KEYS)]
        taken.append(statistics.median(write(store, clock, key, "lww_register", op) for key, op in ops))
    return taken


def new_store():
    clock = HybridClock(SystemClock())
    return Store(clock), clock


def fill(store, clock, type_name, ops):
    for start in range(0, len(ops), FILLED_OPERATIONS):
        batch = Batch(store, clock, REPLICA)
        for op in ops[start : start + FILLED_OPERATIONS]:
            batch.write("key", type_name, op)
        batch.install()


def write(store, clock, key, type_name, op):
    """Return the µs of one operation in a batch of its own, with the bytes for disk and peers, without their I/O."""
    started = time.perf_counter()
    batch = Batch(store, clock, REPLICA)
    batch.write(key, type_name, op)
    batch.encode()
    batch.install()
    return (time.perf_counter() - started) * 1e6


def cells(taken, store):
    started = time.perf_counter()
    while store.refresh_digests(1):
        pass
    digest = (time.perf_counter() - started) * 1e6
    return *(f"{each:.1f}" for each in taken), f"{taken[-1] / taken[0]:.2f}", f"{digest:.0f}"
