"""What a listing of keys costs in CPU time: its index, once, and then each page."""

import random
import time

from benchmarks.page import markdown
from crdt_service.kernel.clock import HybridClock, SystemClock
from crdt_service.kernel.slot import slot_of
from crdt_service.replication.listing import answer_list
from crdt_service.replication.replica import Replica
from crdt_service.store.store import Store
from crdt_service.wire.message import ListRequest
from tests.measure.memory import in_fresh_process, payloads, resident_bytes

KEYS = (100_000, 1_000_000)
PAGES = 50


def tables(keys_max):
    """Return one table."""
    head = (
        "keys",
        "index, MB",
        "built in, s of CPU",
        "longest slot, ms",
        "a page of 1000, ms",
        "of 100, ms",
        "of 100 with a prefix of 8 keys, ms",
        "a new key, µs",
    )
    return markdown(head, [in_fresh_process(row, keys) for keys in KEYS if keys <= keys_max])


def row(keys):
    """Return the figures of a store of so many registers."""
    clock = HybridClock(SystemClock())
    store = Store(clock)
    Replica("a~1").replay(store, clock, payloads(clock, keys))
    while store.refresh_digests(1000):
        pass
    randomness = random.Random(1)
    shuffled = [randomness.sample(list(slot), len(slot)) for slot in store.slots]  # Keys of users come in no order.
    before, started = resident_bytes(), time.process_time()
    longest = 0.0
    for slot, some in enumerate(shuffled):
        slot_started = time.process_time()
        store.index.build(slot, some)
        longest = max(longest, time.process_time() - slot_started)
    built = time.process_time() - started
    megabytes = (resident_bytes() - before) / 1e6
    pages = [_page_ms(store, keys, *shape) for shape in ((1000, 0), (100, 0), (100, 7))]
    started = time.process_time()
    for number in range(1000):
        store.index.add(slot_of(f"new-{number}"), f"new-{number}")
    added = (time.process_time() - started) * 1000
    figures = (megabytes, built, longest * 1000, *pages, added)
    return (f"{keys:,}", *(f"{figure:.{1 if figure > 1 else 2}f}" for figure in figures))


def _page_ms(store, keys, limit, prefix_digits):
    """Return the milliseconds of a page from anywhere, on average."""
    randomness = random.Random(1)
    started = time.process_time()
    for _ in range(PAGES):
        after = f"key-{randomness.randrange(keys):08d}"
        prefix = after[: 4 + prefix_digits] if prefix_digits else ""
        answer_list(store, ListRequest(1, prefix, after if not prefix else "", limit))
    return (time.process_time() - started) / PAGES * 1000
