"""Measures what one backend takes: `python -m loadtests.capacity [--seconds 4] [--bare]`.

Batches beside the store's own writes, one write at half load, and three times as many clients as fill it. All on this
machine's cores, the clients included; over HTTPS with API keys unless `--bare`. The rates are those of one run: compare
them with each other only.
"""

import argparse
import asyncio
import itertools
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import uvloop

from crdt_service.wire.message import Concern
from loadtests.cluster import LoopbackCluster
from loadtests.propagation import quantiles
from loadtests.throughput import measure_store

BATCH = 16
CLIENTS = 32
# Clients that fill a backend, of which three times as many are let loose on it.
FULL = 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--bare", action="store_true", help="without TLS and API keys")
    options = parser.parse_args()
    is_secured = not options.bare
    with (
        tempfile.TemporaryDirectory() as directory,
        LoopbackCluster(
            Path(directory), sync_interval_seconds=5, tls=is_secured, api_keys=is_secured, environment="production"
        ) as cluster,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        print(runner.run(measure(cluster, options.seconds)))
    return 0


async def measure(cluster: LoopbackCluster, seconds: float) -> str:
    target = Target(cluster)
    own = len(await measure_store(cluster, Concern.ONE, CLIENTS, seconds)) / seconds
    batches = await load(target, lambda number: batch(number, BATCH), CLIENTS // 4, seconds)
    batched = batches.count(200) * BATCH / seconds
    single = await load(target, write, FULL, seconds)
    peak = single.count(200) / seconds
    half = await load(target, write, FULL, seconds, rate=peak / 2)
    over = await load(target, write, 3 * FULL, seconds)
    goodput = over.count(200) / seconds
    p50, p99 = quantiles(half.taken)
    rows = [
        ("the store's own writes", f"{own:.0f} /s"),
        (f"through the API in batches of {BATCH}", f"{batched:.0f} /s, {batched / own:.2f} of the store's own"),
        (f"single writes, {FULL} clients", f"{peak:.0f} /s, {single.failures()} failed"),
        ("at half of that, p50 / p99", f"{p50:.1f} / {p99:.1f} ms, {half.failures()} failed"),
        (f"{3 * FULL} clients", f"{goodput:.0f} /s, {goodput / peak:.2f} of the peak, {over.failures()} refused"),
    ]
    return "\n".join(f"{name:<40}{value}" for name, value in rows)


class Target:
    """The backend of a loopback cluster."""

    def __init__(self, cluster: LoopbackCluster) -> None:
        self.port = cluster.api_port
        self.context = cluster.trust if isinstance(cluster.trust, ssl.SSLContext) else None
        token = cluster.token_file.read_text().strip() if cluster.api_keys else ""
        self._head = f"Authorization: Bearer {token}\r\n".encode() if token else b""

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a new connection."""
        name = "localhost" if self.context else None
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context, server_hostname=name)

    def encode(self, path: str, body: object) -> bytes:
        """Return a request."""
        data = msgspec.json.encode(body)
        start = b"POST %b HTTP/1.1\r\nHost: localhost\r\n" % path.encode()
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (start, self._head, len(data), data)


@dataclass
class Outcome:
    """Milliseconds of each answer, and its status."""

    taken: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def count(self, status: int) -> int:
        return self.statuses.count(status)

    def failures(self) -> int:
        return len(self.statuses) - self.count(200)


def write(number: int) -> tuple[str, object]:
    return (f"/v1/keys/capacity-{number}?value=false", {"type": "lww_register", "op": {"assign": "v" * 32}})


def batch(number: int, size: int) -> tuple[str, object]:
    writes = [
        {"key": f"batch-{number}-{item}", "type": "lww_register", "op": {"assign": "v" * 32}} for item in range(size)
    ]
    return "/v1/batch/write", {"writes": writes}


async def load(
    target: Target, build: Callable[[int], tuple[str, object]], clients: int, seconds: float, rate: float | None = None
) -> Outcome:
    """Send requests, each client one after the other; with a rate, all together as many a second, evenly."""
    outcome = Outcome()
    numbers = itertools.count(time.time_ns())
    connections = await asyncio.gather(*(target.connect() for _ in range(clients)))
    begun = time.perf_counter()
    end = begun + seconds

    async def work(client: int) -> None:
        reader, writer = connections[client]
        for turn in itertools.count():
            if rate is not None:
                # A client that is late sends at once, and its delay counts.
                due = begun + (turn * clients + client) / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            started = time.perf_counter() if rate is None else due
            if started >= end:
                break
            writer.write(target.encode(*build(next(numbers))))
            outcome.statuses.append(await read_status(reader))
            outcome.taken.append((time.perf_counter() - started) * 1000)
        writer.close()

    await asyncio.gather(*(work(client) for client in range(clients)))
    return outcome


async def read_status(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    await reader.readexactly(size)
    return int(head.split(b" ", 2)[1])


if __name__ == "__main__":
    sys.exit(main())
