"""Measures the store itself: `python -m loadtests.throughput [--clients 32] [--seconds 5] [--concern one] [--tls]`.

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
from crdt_service.net.cluster import ClusterIdentity
from crdt_service.net.credentials import BACKEND_NAME, Credentials
from crdt_service.net.dial import open_channel
from crdt_service.net.handshake import BACKEND, Identity
from crdt_service.wire.message import Concern, ReadRequest, WriteItem, WriteManyRequest, WriteRequest
from loadtests.cluster import LoopbackCluster
from loadtests.propagation import quantiles

BATCH_ITEMS = 16
VALUE = b'{"assign": "%s"}' % (b"v" * 32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--concern", choices=[each.name.lower() for each in Concern], default="one")
    parser.add_argument("--tls", action="store_true", help="mutual TLS between all processes")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        LoopbackCluster(Path(directory), sync_interval_seconds=5, tls=options.tls) as cluster,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        print(
            runner.run(
                measure(cluster, Concern[options.concern.upper()], options.clients, options.seconds, options.samples)
            )
        )
    return 0


async def measure(cluster: LoopbackCluster, concern: Concern, clients: int, seconds: float, samples: int) -> str:
    identity, credentials = ClusterIdentity.of_files(cluster.secret_file, cluster.name), read_credentials(cluster)
    async with contextlib.AsyncExitStack() as stack:
        ports = [port for port, _ in cluster.ports.values()]
        channels = [await stack.enter_async_context(connected(port, identity, credentials)) for port in ports]
        propagation = [await propagate(channels, number) for number in range(samples)]
        rows = []
        for name, targets, prefix, batch in (
            ("distinct keys, one node", channels[:1], "one", 1),
            (f"the same in batches of {BATCH_ITEMS}", channels[:1], "many", BATCH_ITEMS),
            ("distinct keys, all nodes", channels, "all", 1),
            ("one counter", channels[:1], "", 1),
        ):
            before = cluster.cpu_seconds()
            taken = await load(targets, prefix, concern, clients, seconds, batch=batch)
            # Pushes that were still under way are the next load's.
            count = len(taken) * batch
            cost = (cluster.cpu_seconds() - before) / count * 1e6
            p50, p99 = quantiles(taken)
            rate = f"{count / seconds:.0f} writes/s, {cost:.0f} CPU us each, p50 / p99 {p50:.1f} / {p99:.1f} ms"
            rows.append((f"{name}, {clients} clients", rate))
    p50, p99 = quantiles(propagation)
    rows.insert(0, ("propagation to both others p50 / p99", f"{p50:.2f} / {p99:.2f} ms"))
    return "\n".join(f"{name:<42}{value}" for name, value in rows)


async def measure_store(cluster: LoopbackCluster, concern: Concern, clients: int, seconds: float) -> list[float]:
    """Milliseconds of each write of distinct keys, spread over all nodes."""
    identity, credentials = ClusterIdentity.of_files(cluster.secret_file, cluster.name), read_credentials(cluster)
    async with contextlib.AsyncExitStack() as stack:
        ports = [port for port, _ in cluster.ports.values()]
        channels = [await stack.enter_async_context(connected(port, identity, credentials)) for port in ports]
        return await load(channels, "own", concern, clients, seconds, batch=1)


def read_credentials(cluster: LoopbackCluster) -> Credentials | None:
    """Of the backend, for which the load passes itself off."""
    files = cluster.certificates.get(BACKEND_NAME)
    return Credentials(files.certificate, files.key, files.authority, BACKEND_NAME) if files else None


@contextlib.asynccontextmanager
async def connected(port: int, cluster: ClusterIdentity, credentials: Credentials | None) -> AsyncIterator[Channel]:
    _, channel = await open_channel("127.0.0.1", port, cluster, Identity(BACKEND, "loadtest", ""), credentials)
    try:
        yield channel
    finally:
        channel.close()


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


async def load(
    channels: list[Channel], prefix: str, concern: Concern, clients: int, seconds: float, *, batch: int
) -> list[float]:
    """Milliseconds of each request of so many writes; without a prefix all go to one counter."""
    end = time.perf_counter() + seconds
    numbers = itertools.count()
    taken: list[float] = []

    async def work(channel: Channel) -> None:
        while (started := time.perf_counter()) < end:
            key = f"{prefix}-{next(numbers)}"
            build = partial(WriteRequest, key=key, type_name="lww_register", op=VALUE, concern=concern)
            if batch > 1:
                keys = (f"{prefix}-{next(numbers)}" for _ in range(batch))
                items = [WriteItem(key, "lww_register", VALUE) for key in keys]
                build = partial(WriteManyRequest, items=items, concern=concern)
            elif not prefix:
                build = partial(
                    WriteRequest, key="hot", type_name="pn_counter", op=b'{"increment": 1}', concern=concern
                )
            await channel.request(build)
            taken.append((time.perf_counter() - started) * 1000)

    await asyncio.gather(*(work(channels[number % len(channels)]) for number in range(clients)))
    return taken


if __name__ == "__main__":
    sys.exit(main())
