"""Resident memory of small registers, and the time to take them in again from the log after a restart."""

import gc
import hashlib
import multiprocessing
import os
import random
import tempfile
import time
from pathlib import Path

from benchmarks.page import markdown
from crdt_service.datatypes.lww_register import LwwRegister
from crdt_service.disk.disk import Disk
from crdt_service.disk.journal import Journal
from crdt_service.kernel.clock import HybridClock, SystemClock
from crdt_service.replication.replica import Replica
from crdt_service.store.store import Store
from crdt_service.wire.message import Delta, Step, encode_step

REPLICAS = ("jarvis-crdt-0~478f0fb3", "jarvis-crdt-1~0c61a0de", "jarvis-crdt-2~9b1d52c4")
NODE_ID = "jarvis-crdt-0"
KEYS = (100_000, 1_000_000)
BATCH_KEYS = 256


def tables(keys_max):
    """Return one table."""
    head = ("keys", "MB", "MB per 10⁵ keys", "restart, s", "its digests, s", "log, MB")
    return markdown(head, [row(keys) for keys in KEYS if keys <= keys_max])


def row(keys):
    with tempfile.TemporaryDirectory(prefix="jarvis-memory-") as directory:
        in_fresh_process(write_log, Path(directory), keys)
        log_bytes = sum(file.stat().st_size for file in Path(directory).rglob("*") if file.is_file())
        grown_bytes, replay_seconds, digest_seconds = in_fresh_process(replay, Path(directory))
    megabytes = grown_bytes / 1e6
    return (
        f"{keys:,}",
        f"{megabytes:.1f}",
        f"{megabytes * 1e5 / keys:.1f}",
        f"{replay_seconds:.2f}",
        f"{digest_seconds:.2f}",
        f"{log_bytes / 1e6:.1f}",
    )


def in_fresh_process(function, *arguments):
    """A heap that nothing was freed in."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def write_log(directory, keys):
    """Write batches of registers with distinct values of 32 bytes, a record each."""
    journal = Journal(Disk(directory), NODE_ID, random.SystemRandom())
    assert [] == list(journal.recover())
    for payload in payloads(HybridClock(SystemClock()), keys):
        journal.append(payload)
    journal.close()


def replay(directory):
    """Return (bytes of resident memory grown, seconds to read and replay the log, seconds of digests after that)."""
    clock = HybridClock(SystemClock())
    Replica(REPLICAS[0]).replay(Store(clock), clock, payloads(clock, BATCH_KEYS))  # What loads lazily is there now.
    journal = Journal(Disk(directory), NODE_ID, random.SystemRandom())
    store = Store(clock)
    before, started = resident_bytes(), time.perf_counter()
    Replica(REPLICAS[0]).replay(store, clock, journal.recover())
    replayed = time.perf_counter()
    while store.refresh_digests(BATCH_KEYS):
        pass
    ended = time.perf_counter()
    grown = resident_bytes() - before
    journal.close()
    return grown, replayed - started, ended - replayed


def payloads(clock, keys):
    datatype = LwwRegister()
    for start in range(0, keys, BATCH_KEYS):
        deltas = []
        for number in range(start, min(start + BATCH_KEYS, keys)):
            value = hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()
            state = (clock.tick(), REPLICAS[number % len(REPLICAS)], f'"{value}"'.encode())
            deltas.append(Delta(f"key-{number:08d}", datatype.tag, datatype.version, datatype.encode(state)))
        yield encode_step(Step(0, [], deltas, {}))


def resident_bytes():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
