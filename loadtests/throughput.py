"""Measures the store itself: `python -m loadtests.throughput [--clients 32] [--seconds 5] [--samples 300]`.

Speaks the framed protocol straight to the nodes of a fresh loopback cluster, all on this machine's cores, so that no
HTTP client is measured instead. Propagation is from acknowledgement on one node to first sight on both others.
"""

import argparse
import asyncio
import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import uvloop

from crdt_service.net.channel import Channel
from crdt_service.net.handshake import BACKEND, Identity, dial
from crdt_service.wire.message import ReadRequest, WriteRequest
from loadtests.cluster import LoopbackCluster
from loadtests.propagation import quantiles

VALUE = b'{"assign": "%s"}' % (b"v" * 32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--samples", type=int, default=300)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        LoopbackCluster(Path(directory), sync_interval_seconds=5) as cluster,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        print(runner.run(measure(cluster, options.clients, options.seconds, options.samples)))
    return 0


async def measure(cluster: LoopbackCluster, clients: int, seconds: float, samples: int) -> str:
    secret = cluster.secret_file.read_bytes()
    async with contextlib.AsyncExitStack() as stack:
        ports = [port for port, _ in cluster.ports.values()]
        channels = [await stack.enter_async_context(connected(port, secret)) for port in ports]
        propagation = [await propagate(channels, number) for number in range(samples)]
        one = await load(channels[:1], "one", clients, seconds)
        all_nodes = await load(channels, "all", clients, seconds)
        hot = await load(channels[:1], "", clients, seconds)
    p50, p99 = quantiles(propagation)
    rows = [("propagation to both others p50 / p99", f"{p50:.2f} / {p99:.2f} ms")]
    for name, taken in (
        ("distinct keys, one node", one),
        ("distinct keys, all nodes", all_nodes),
        ("one counter", hot),
    ):
        p50, p99 = quantiles(taken)
        rows.append(
            (f"{name}, {clients} clients", f"{len(taken) / seconds:.0f} writes/s, p50 / p99 {p50:.1f} / {p99:.1f} ms")
        )
    return "\n".join(f"{name:<42}{value}" for name, value in rows)


@contextlib.asynccontextmanager
async def connected(port: int, secret: bytes) -> AsyncIterator[Channel]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    channel = Channel(reader, writer, await dial(reader, writer, secret, Identity(BACKEND, "loadtest", "")))
    running = asyncio.create_task(channel.run())
    try:
        yield channel
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def propagate(channels: list[Channel], number: int) -> float:
    """Milliseconds until all other nodes show a write."""
    origin, *others = channels[number % len(channels) :] + channels[: number % len(channels)]
    key = f"propagation-{number}"
    await origin.request(partial(WriteRequest, key=key, type_name="lww_register", op=VALUE))
    started = time.perf_counter()

    async def see(channel: Channel) -> None:
        while not (await channel.request(partial(ReadRequest, key=key))).type_name:
            pass

    await asyncio.gather(*map(see, others))
    return (time.perf_counter() - started) * 1000


async def load(channels: list[Channel], prefix: str, clients: int, seconds: float) -> list[float]:
    """Milliseconds of each write; without a prefix all go to one counter."""
    end = time.perf_counter() + seconds
    numbers = itertools.count()
    taken: list[float] = []

    async def work(channel: Channel) -> None:
        while (started := time.perf_counter()) < end:
            key = f"{prefix}-{next(numbers)}"
            build = partial(WriteRequest, key=key, type_name="lww_register", op=VALUE)
            if not prefix:
                build = partial(WriteRequest, key="hot", type_name="pn_counter", op=b'{"increment": 1}')
            await channel.request(build)
            taken.append((time.perf_counter() - started) * 1000)

    await asyncio.gather(*(work(channels[number % len(channels)]) for number in range(clients)))
    return taken


if __name__ == "__main__":
    sys.exit(main())
