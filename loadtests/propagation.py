"""Measures a cluster through its API: `python -m loadtests.propagation [--url URL] [--clients 32] [--seconds 5]`.

Without `--url` it starts a loopback cluster; with it, `JARVIS_API_KEY_FILE` names a file with an API key, if one is
needed. Propagation is from a write's acknowledgement on one node to its first sight on every other, polled through the
backend, so it includes a read's round trip.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from crdt_service.client import NEVER, AsyncClient, NotFoundError, read_token_file
from loadtests.cluster import LoopbackCluster

SECONDS_MAX = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="backend API, for example of a port-forward")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--samples", type=int, default=200, help="writes whose propagation is measured")
    options = parser.parse_args()
    with ExitStack() as stack:
        url = options.url
        if url is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            url = stack.enter_context(LoopbackCluster(Path(directory), sync_interval_seconds=5)).url
        print(asyncio.run(measure(url, options.clients, options.seconds, options.samples)))
    return 0


async def measure(url: str, clients: int, seconds: float, samples: int) -> str:
    async with connect(url) as client:
        nodes = [member.id for member in (await client.cluster()).members if member.state == "alive"]
        prefix = f"measure-{time.time_ns()}"
        propagation = [await propagate(client, nodes, f"{prefix}-{number}") for number in range(samples)]
        writes, write_p50, write_p99 = await load(url, prefix, clients, seconds)
    p50, p99 = quantiles(propagation)
    rows = [
        ("propagation to all others p50 / p99", f"{p50:.1f} / {p99:.1f} ms"),
        (f"writes at {clients} clients", f"{writes / seconds:.0f} /s"),
        ("write p50 / p99", f"{write_p50:.1f} / {write_p99:.1f} ms"),
    ]
    return "\n".join(f"{name:<38}{value}" for name, value in rows)


def connect(url: str) -> AsyncClient:
    file = os.environ.get("JARVIS_API_KEY_FILE")
    token = read_token_file(Path(file)) if file else None
    return AsyncClient(url, token=token, timeout_seconds=SECONDS_MAX, retry=NEVER)


async def propagate(client: AsyncClient, nodes: list[str], key: str) -> float:
    """Milliseconds until all other nodes show a write."""
    origin, *others = nodes[hash(key) % len(nodes) :] + nodes[: hash(key) % len(nodes)]
    await write(client, key, origin)
    started = time.perf_counter()

    async def see(node: str) -> None:
        while time.perf_counter() - started < SECONDS_MAX:
            with suppress(NotFoundError):
                await client.read(key, node=node)
                return
        raise TimeoutError(f"{key} did not reach {node}")

    await asyncio.gather(*map(see, others))
    return (time.perf_counter() - started) * 1000


async def load(url: str, prefix: str, clients: int, seconds: float) -> tuple[int, float, float]:
    """Writes done, and their p50 and p99 in milliseconds."""
    end = time.perf_counter() + seconds
    taken: list[float] = []
    numbers = itertools.count()

    async def work() -> None:
        async with connect(url) as client:  # A pool that all share would be measured instead.
            while (started := time.perf_counter()) < end:
                await write(client, f"{prefix}-load-{next(numbers)}")
                taken.append((time.perf_counter() - started) * 1000)

    await asyncio.gather(*(work() for _ in range(clients)))
    return len(taken), *quantiles(taken)


async def write(client: AsyncClient, key: str, node: str | None = None) -> None:
    await client.write(key, "lww_register", {"assign": "v" * 32}, node=node)


def quantiles(values: list[float]) -> tuple[float, float]:
    """(p50, p99)."""
    cuts = statistics.quantiles(values, n=100)
    return cuts[49], cuts[98]


if __name__ == "__main__":
    sys.exit(main())
