"""Jarvis and its rivals side by side: `python -m benchmarks [--only jarvis,redis] [--page FILE] [--plot FILE]`.

Three nodes of each on loopback, all synced before they acknowledge, driven by one client loop in interleaved rounds.
A system that cannot be had is listed with the reason.
"""

import argparse
import asyncio
import importlib
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import uvloop
from rich.console import Console

from benchmarks.measure import Load, Run, measure_round, prepare
from benchmarks.page import write_section
from benchmarks.results import Result, build_page, build_table, medians, ranges, to_plain
from benchmarks.system import MissingError, System

SYSTEMS = {
    "jarvis": "jarvis:Jarvis",
    "jarvis-1": "jarvis:JarvisOneNode",
    "jarvis-tls": "jarvis:JarvisTls",
    "jarvis-majority": "jarvis:JarvisMajority",
    "jarvis-majority-tls": "jarvis:JarvisMajorityTls",
    "redis": "redis:Redis",
    "redis-py": "redis:RedisPy",
    "nats": "nats:Nats",
    "etcd": "etcd:Etcd",
}
_NOTES = """\
Only like is compared with like: `one` with redis, which sync on the node written to; majority with nats and etcd.
jarvis, redis and etcd are driven over bare connections; nats and redis-py through their libraries, see client CPU.
etcd's JSON gateway over persistent connections costs it something that gRPC would not.
Seen by all: from sending a write until it was acknowledged and both others showed it, nothing else under way."""


def main() -> int:
    """Measure; return 0 unless Jarvis itself could not be measured."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", help=f"some of {','.join(SYSTEMS)}")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="of writes and of increments, in each round")
    parser.add_argument("--samples", type=int, default=100, help="propagated writes in each round")
    parser.add_argument("--keys", type=int, default=100_000, help="before the restart and the rounds")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--page", type=Path, help="Markdown file whose section `systems` to rewrite")
    parser.add_argument("--plot", type=Path, help="PNG file to write")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(SYSTEMS)
    if unknown := [name for name in names if name not in SYSTEMS]:
        parser.error(f"unknown: {', '.join(unknown)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    load_before = os.getloadavg()[0]
    load = Load(options.clients, options.seconds, options.samples, options.keys)
    console = Console(width=None if sys.stdout.isatty() else 240)
    with tempfile.TemporaryDirectory(prefix="jarvis-bench-") as directory:
        sync_us = measure_sync(Path(directory))
        results = measure_all(names, load, options.rounds, Path(directory))
    console.print(build_table(results))
    for result in results:
        if result.missing:
            console.print(f"{result.name} is missing: {result.missing}", style="yellow", markup=False)
    console.print(f"{_NOTES}\nOne 4 KiB append and fdatasync here: {sync_us:.0f} µs.", markup=False, highlight=False)
    setting = {
        **vars(load),
        "rounds": options.rounds,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "sync_us": sync_us,
        "load_before": load_before,
    }
    if options.output:
        options.output.write_text(json.dumps(to_plain(results, setting), indent=2) + "\n")
    if options.page:
        write_section(options.page, "systems", build_page(results, setting))
    if options.plot:
        importlib.import_module("benchmarks.plot").draw(results, options.plot)
    return 1 if any(result.missing for result in results if result.name.startswith("jarvis")) else 0


def measure_all(names: list[str], load: Load, rounds: int, directory: Path) -> list[Result]:
    """Start all, measure them in turn, and end them whatever happens."""
    results = {name: Result(name) for name in names}
    runs: dict[str, Run] = {}
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        for name in names:
            try:
                own = directory / name
                own.mkdir()
                system = load_system(name)(own)
                runs[name] = Run(stack.enter_context(system))
                results[name].acknowledges = system.acknowledges
            except (MissingError, ImportError) as error:
                results[name].missing = str(error)

        def attempt(name: str, what: str) -> None:
            """One system's failure costs the others nothing."""
            say(f"{name}: {what}")
            try:
                runner.run(prepare(runs[name], load) if what == "prepare" else measure_round(runs[name], load))
            except Exception as error:
                results[name].missing = f"failed in {what}: {type(error).__name__}: {error}"
                runs.pop(name).system.__exit__()  # It would disturb the others.

        for name in list(runs):
            attempt(name, "prepare")
        for number in range(rounds):
            for name in list(runs):
                attempt(name, f"round {number + 1}")
        for name, run in runs.items():
            results[name].values = {**medians(run.rounds), **run.once}
            results[name].ranges = ranges(run.rounds)
        for run in runs.values():
            for client in (*run.clients, *run.observers):
                runner.run(client.close())
    return list(results.values())


def load_system(name: str) -> type[System]:
    """Return a system's class; its client library may be missing."""
    module, _, attribute = SYSTEMS[name].partition(":")
    found: type[System] = getattr(importlib.import_module(f"benchmarks.systems.{module}"), attribute)
    return found


def measure_sync(directory: Path, count: int = 100) -> float:
    """Return the median µs of an append and its sync, which bounds every system here."""
    taken = []
    descriptor = os.open(directory / "sync", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        for _ in range(count):
            started = time.perf_counter()
            os.write(descriptor, bytes(4096))
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - started)
    finally:
        os.close(descriptor)
    return statistics.median(taken) * 1e6


def say(text: str) -> None:
    """Show progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # All processes have ended by now.
        sys.exit(128 + signal.SIGINT)
