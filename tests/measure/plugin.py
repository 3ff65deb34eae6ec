"""What a call of a plugin costs, in a process of its own and in a thread: ``python -m tests.measure.plugin``."""

import asyncio
import contextlib
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import uvloop

from benchmarks.page import markdown
from crdt_service.kernel.config import PluginConfig, PluginsConfig
from crdt_service.plugins.caller import Caller
from crdt_service.plugins.host import Plugins
from crdt_service.plugins.load import load
from crdt_service.plugins.message import PassWrites, Write
from crdt_service.plugins.worker import Plugin

SOURCE = """
from crdt_service.plugins.hook import hookimpl

@hookimpl
def validate_write(key, op):
    assert op

@hookimpl
def transform_write(op):
    return op
"""
OP = msgspec.json.encode({"assign": {"id": 7, "name": "x" * 100, "tags": ["a", "b"]}})
CALLS = 4000
ROUNDS = 5
AT_ONCE = (1, 32)
BATCH = 16


async def measure():
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "measured.py").write_text(SOURCE)
        config = PluginConfig("measured", True, 10_000, 256, {})
        plugins = Plugins(PluginsConfig(directory, [config]))
        running = asyncio.create_task(plugins.run(lambda _: None))
        await plugins.wait_tried()
        plugin = Plugin(load("measured", directory), {})
        pool = ThreadPoolExecutor(4)
        loop = asyncio.get_running_loop()

        def in_process(writes):
            return plugin.answer(PassWrites(Caller(), tuple(writes)))

        async def in_place(writes):
            in_process(writes)

        async def in_a_thread(writes):
            async with asyncio.timeout(10):
                await loop.run_in_executor(pool, in_process, writes)

        async def in_its_process(writes):
            await plugins.pass_writes(writes, Caller())

        ways = {"in place, nothing bounded": in_place, "a thread": in_a_thread, "a process": in_its_process}
        rows = []
        for name, call in ways.items():
            cells = [await take(call, at_once, 1) for at_once in AT_ONCE]
            cells.append(await take(call, 1, BATCH))
            rows.append((name, *(f"{each:.0f}" for each in cells)))
        running.cancel()
        pool.shutdown()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        none = Plugins(PluginsConfig("", []))
        started = time.perf_counter()
        for _ in range(100_000):
            assert not none.passes_writes
        nothing = (time.perf_counter() - started) * 1e4
        head = ("µs per call", *(f"{number} at once" for number in AT_ONCE), f"{BATCH} writes in one call")
        return f"{markdown(head, rows)}\n\nWithout plugins a write costs {nothing:.0f} ns more, its call included."


async def take(call, at_once, size):
    """Return µs of wall time per call, the median of some rounds."""
    writes = [Write(f"orders/{number}", "lww_register", OP) for number in range(size)]

    async def some():
        for _ in range(CALLS // at_once):
            await call(writes)

    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        await asyncio.gather(*(some() for _ in range(at_once)))
        taken.append((time.perf_counter() - started) / CALLS * 1e6)
    return statistics.median(taken)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(measure()))
