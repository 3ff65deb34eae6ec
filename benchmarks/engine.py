"""Storage engines side by side: `python -m benchmarks.engine [--seconds 1] [--rounds 3] [--directory DIR]`.

Durable writes of 100-byte payloads at several batch sizes, one sync for each batch, in interleaved rounds; then the
time to read all records back after a restart, and what they take on disk. `journal` is the service's own, also without
allocating ahead (`append`) and with encryption (`sealed`).
"""

import argparse
import random
import secrets
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from crdt_service.disk.disk import Disk
from crdt_service.disk.journal import Journal
from crdt_service.wire.seal import Key

BATCHES = (1, 32, 256)
PAYLOAD_BYTES = 100
_MAP_BYTES = 8 << 30


class Engine(ABC):
    """A log of payloads below one directory."""

    @abstractmethod
    def append(self, payloads: list[bytes]) -> None:
        """Return once they are on the medium."""

    @abstractmethod
    def read_all(self) -> Iterable[bytes]:
        """Read back what an earlier process wrote."""

    @abstractmethod
    def close(self) -> None:
        """Release the directory."""


class OwnJournal(Engine):
    """The service's journal: one record for each batch."""

    disk: type[Disk] = Disk
    keys: tuple[Key, ...] = ()

    def __init__(self, directory: Path) -> None:
        self._journal = Journal(self.disk(directory), "node", random.SystemRandom(), self.keys)
        self._is_recovered = False

    def append(self, payloads: list[bytes]) -> None:
        if not self._is_recovered:
            for _ in self.read_all():
                pass
            self._is_recovered = True
        self._journal.append(msgspec.msgpack.encode(payloads))

    def read_all(self) -> Iterable[bytes]:
        return (payload for batch in self._journal.recover() for payload in _decode(batch))

    def close(self) -> None:
        self._journal.close()


class _AppendDisk(Disk):
    def allocate(self, descriptor: int, offset_bytes: int, size_bytes: int) -> None:
        pass


class AppendJournal(OwnJournal):
    """The same, enlarged by each write."""

    disk = _AppendDisk


class SealedJournal(OwnJournal):
    """The same, encrypted."""

    keys = (Key(secrets.token_bytes(32)),)


class Sqlite(Engine):
    """A table, in WAL mode with synchronous=FULL."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self._connection = sqlite3.connect(directory / "log.sqlite", isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, payload BLOB)")

    def append(self, payloads: list[bytes]) -> None:
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT INTO log (payload) VALUES (?)", [(payload,) for payload in payloads])
        self._connection.execute("COMMIT")

    def read_all(self) -> Iterable[bytes]:
        return (row[0] for row in self._connection.execute("SELECT payload FROM log ORDER BY id"))

    def close(self) -> None:
        self._connection.close()


class Lmdb(Engine):
    """A memory-mapped B+ tree, synced at each commit."""

    def __init__(self, directory: Path) -> None:
        import lmdb  # noqa: PLC0415 - may be missing.

        self._environment: Any = lmdb.open(str(directory), map_size=_MAP_BYTES)
        self._next = self._environment.stat()["entries"]

    def append(self, payloads: list[bytes]) -> None:
        with self._environment.begin(write=True) as transaction:
            for payload in payloads:
                transaction.put(self._next.to_bytes(8, "big"), payload, append=True)
                self._next += 1

    def read_all(self) -> Iterable[bytes]:
        with self._environment.begin() as transaction:
            yield from (payload for _, payload in transaction.cursor())

    def close(self) -> None:
        self._environment.close()


class RocksDict(Engine):
    """RocksDB's log-structured tree, synced at each batch."""

    def __init__(self, directory: Path) -> None:
        import rocksdict  # noqa: PLC0415 - may be missing.

        self._module: Any = rocksdict
        self._database = rocksdict.Rdict(str(directory), rocksdict.Options(raw_mode=True))
        options = rocksdict.WriteOptions()
        options.sync = True
        self._database.set_write_options(options)
        self._options = options
        self._next = 0

    def append(self, payloads: list[bytes]) -> None:
        batch = self._module.WriteBatch(raw_mode=True)
        for payload in payloads:
            batch.put(self._next.to_bytes(8, "big"), payload)
            self._next += 1
        self._database.write(batch, self._options)

    def read_all(self) -> Iterable[bytes]:
        return (payload for _, payload in self._database.items())

    def close(self) -> None:
        self._database.close()


ENGINES: dict[str, Callable[[Path], Engine]] = {
    "journal": OwnJournal,
    "journal append": AppendJournal,
    "journal sealed": SealedJournal,
    "sqlite WAL FULL": Sqlite,
    "lmdb": Lmdb,
    "rocksdict": RocksDict,
}


def main() -> int:
    """Measure all; return 0."""
    parser = argparse.ArgumentParser(prog="benchmarks.engine", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1, help="of writes for each batch size, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="on the disk to measure; one in memory shows the CPU's share")
    parser.add_argument("--records", type=int, default=1_000_000, help="read back; a tenth of it, too")
    options = parser.parse_args()
    payloads = [secrets.token_bytes(PAYLOAD_BYTES) for _ in range(max(BATCHES))]
    rates: dict[tuple[str, int], list[float]] = {}
    table = Table("engine", *(f"ops/s at {batch}" for batch in BATCHES), title="medians (lowest - highest)")
    for count in (options.records // 10, options.records):
        table.add_column(f"s to read {count:,}")
    table.add_column("B/record")
    with tempfile.TemporaryDirectory(prefix="jarvis-engine-", dir=options.directory) as parent:
        names = [name for name in ENGINES if _is_there(name, Path(parent) / "probe")]
        for number in range(options.rounds):
            for batch in BATCHES:
                for name in names:
                    _say(f"round {number + 1}, batches of {batch}: {name}")
                    rate = _measure_writes(ENGINES[name], Path(parent) / "writes", payloads[:batch], options.seconds)
                    rates.setdefault((name, batch), []).append(rate)
        for name in names:
            row = [_show(rates[name, batch]) for batch in BATCHES]
            for count in (options.records // 10, options.records):
                _say(f"reading {count:,} back: {name}")
                seconds, size = _measure_reading(ENGINES[name], Path(parent) / "reading", payloads, count)
                row.append(f"{seconds:.2f}")
            table.add_row(name, *row, f"{size / options.records:.0f}")
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0


def _is_there(name: str, directory: Path) -> bool:
    try:
        ENGINES[name](directory).close()
    except ImportError as error:
        print(f"{name} is missing: {error}")
        return False
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return True


def _measure_writes(create: Callable[[Path], Engine], directory: Path, batch: list[bytes], seconds: float) -> float:
    """Return durable payloads per second."""
    engine = create(directory)
    count = 0
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        engine.append(batch)
        count += len(batch)
    engine.close()
    shutil.rmtree(directory)
    return count / elapsed


def _measure_reading(
    create: Callable[[Path], Engine], directory: Path, batch: list[bytes], count: int
) -> tuple[float, int]:
    """Return how many seconds reading them back took, and what they take on disk in bytes."""
    engine = create(directory)
    for start in range(0, count, len(batch)):
        engine.append(batch[: count - start])
    engine.close()
    size = sum(path.stat().st_blocks * 512 for path in directory.iterdir())
    started = time.perf_counter()
    engine = create(directory)
    found = sum(1 for _ in engine.read_all())
    elapsed = time.perf_counter() - started
    engine.close()
    shutil.rmtree(directory)
    if found != count:
        raise ValueError(f"{count} were written, and {found} were found")
    return elapsed, size


def _show(rates: list[float]) -> str:
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} - {max(rates):,.0f})"


def _decode(batch: bytes) -> list[bytes]:
    return msgspec.msgpack.decode(batch, type=list[bytes])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
