"""The one client loop that drives every system: fill, kill and restart, then interleaved rounds."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from benchmarks.processes import cpu_seconds, resident_mb
from benchmarks.results import Round, quantile
from benchmarks.system import Client, System

PHASE_SECONDS_MAX = 120
SETTLE_ATTEMPT_SECONDS_MAX = 5
# Replication that goes on after the last acknowledgement belongs to the writes.
SETTLE_SECONDS = 0.5
_WARM_KEYS = 1000


@dataclass(frozen=True)
class Load:
    """How much is measured."""

    clients: int
    seconds: float
    samples: int
    keys: int


@dataclass
class Run:
    """A system that runs, and what was measured of it."""

    system: System
    clients: list[Client] = field(default_factory=list)
    observers: list[Client] = field(default_factory=list)
    counted: int = 0
    round_number: int = 0
    rounds: list[Round] = field(default_factory=list)
    once: dict[str, float] = field(default_factory=dict)


async def prepare(run: Run, load: Load) -> None:
    """Fill, note the memory, kill and restart the node written to, and connect the clients."""
    async with asyncio.timeout(PHASE_SECONDS_MAX):
        system = run.system
        await system.prepare()
        await _fill(run, "warm", _WARM_KEYS)
        before = resident_mb(system.pids())
        await _fill(run, "fill", load.keys)
        await asyncio.sleep(SETTLE_SECONDS)
        grown = resident_mb(system.pids()) - before
        run.once["memory_mb"] = grown / len(system.pids()) * 100_000 / load.keys
        run.once["restart_s"] = await _restart(system, f"fill.{load.keys - 1}")
        await _settle(run)
        nodes = system.write_nodes
        run.clients = [await system.connect(nodes[number % len(nodes)]) for number in range(load.clients)]


async def _settle(run: Run) -> None:
    """Connect an observer per node, and wait until all follow again after the restart."""
    for attempt in itertools.count():
        with contextlib.suppress(OSError, EOFError, ValueError):  # A timeout is an OSError.
            run.observers = [await run.system.connect(node) for node in range(len(run.system.pids()))]
            async with asyncio.timeout(SETTLE_ATTEMPT_SECONDS_MAX):
                await _propagate(run, f"propagation.first.{attempt}")
            return
        await asyncio.sleep(SETTLE_SECONDS)


async def _fill(run: Run, prefix: str, keys: int) -> None:
    client = await run.system.connect(run.system.write_nodes[0])
    try:
        await client.fill([(f"{prefix}.{number}", f"{number:032d}") for number in range(keys)])
    finally:
        await client.close()


async def _restart(system: System, key: str) -> float:
    """Seconds from the start of the killed node until it serves `key`."""
    system.kill(0)
    started = time.perf_counter()
    system.start(0)
    while not await system.is_serving(0, key):  # noqa: ASYNC110 - the node is another process.
        await asyncio.sleep(0.01)
    return time.perf_counter() - started


async def measure_round(run: Run, load: Load) -> None:
    """Measure writes, then the hot counter, then propagation."""
    async with asyncio.timeout(PHASE_SECONDS_MAX):
        run.round_number += 1
        prefix = f"write.{run.round_number}"
        numbers = itertools.count()

        async def write(client: Client) -> None:
            number = next(numbers)
            await client.write(f"{prefix}.{number}", f"{number:032d}")

        cpu, own = cpu_seconds(run.system.pids()), time.process_time()
        taken, elapsed = await _loop(run.clients, write, load.seconds)
        own = time.process_time() - own
        await asyncio.sleep(SETTLE_SECONDS)
        cpu = cpu_seconds(run.system.pids()) - cpu
        measured: Round = {
            "writes_per_s": len(taken) / elapsed,
            "write_p50_ms": quantile(taken, 0.5) * 1000,
            "write_p99_ms": quantile(taken, 0.99) * 1000,
            "cpu_us": cpu / len(taken) * 1e6,
            "client_cpu_us": own / len(taken) * 1e6,
        }
        if run.system.can_count:
            taken, elapsed = await _loop(run.clients, lambda client: client.increment(), load.seconds)
            run.counted += len(taken)
            measured["increments_per_s"] = len(taken) / elapsed
            await _check_count(run)
        seen = [await _propagate(run, f"propagation.{run.round_number}.{number}") for number in range(load.samples)]
        measured["propagation_p50_ms"] = quantile(seen, 0.5) * 1000
        measured["propagation_p99_ms"] = quantile(seen, 0.99) * 1000
        run.rounds.append(measured)


async def _loop(
    clients: list[Client], act: Callable[[Client], Awaitable[None]], seconds: float
) -> tuple[list[float], float]:
    """Return the seconds that each action of all clients took, and how long all of it took."""
    taken: list[float] = []
    begun = time.perf_counter()
    end = begun + seconds

    async def work(client: Client) -> None:
        while (started := time.perf_counter()) < end:
            await act(client)
            taken.append(time.perf_counter() - started)

    await asyncio.gather(*map(work, clients))
    return taken, time.perf_counter() - begun


async def _check_count(run: Run) -> None:
    """A rate of increments that were lost would mean nothing."""
    end = time.perf_counter() + 10
    while (found := await run.observers[run.system.write_nodes[0]].count()) != run.counted:
        if time.perf_counter() > end:
            raise ValueError(f"{run.counted} increments were acknowledged, and the counter says {found}")
        await asyncio.sleep(0.05)


async def _propagate(run: Run, key: str) -> float:
    """Seconds from sending a write until it was acknowledged and both other nodes showed it."""
    nodes = run.system.write_nodes
    origin = nodes[run.round_number % len(nodes)]
    others = [client for node, client in enumerate(run.observers) if node != origin]
    started = time.perf_counter()
    await run.observers[origin].write(key, "0" * 32)
    await asyncio.gather(*(client.see(key) for client in others))
    return time.perf_counter() - started
