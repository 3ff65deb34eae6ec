"""Where a node's CPU time goes under writes: `python -m benchmarks.hotspots [--majority] [--page FILE]`.

Three nodes and clients spread over them, as in `benchmarks`; one node runs under cProfile with its thread's CPU clock,
so waiting costs nothing. The profiler slows calls down, and small functions most: read it as an order, not as shares.
"""

import argparse
import asyncio
import pstats
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import uvloop

from benchmarks.measure import Load, Run, measure_round, prepare
from benchmarks.page import markdown, write_section
from benchmarks.systems.jarvis import Jarvis, JarvisMajority
from loadtests.cluster import LoopbackCluster, environment

_ROWS = 20
_STARTING = ("__main__.py", "node.py", "__init__.py")
_START = """
import cProfile, runpy, sys, time
profile = cProfile.Profile(time.thread_time)
file = sys.argv.pop(1)
try:
    profile.runcall(runpy.run_module, "crdt_service", run_name="__main__", alter_sys=True)
finally:
    profile.dump_stats(file)
"""


class _ProfiledCluster(LoopbackCluster):
    """A cluster whose last node is profiled; the first is killed and started again."""

    @property
    def profile_file(self) -> Path:
        return self.directory / "profile"

    def start_node(self, name: str, peers: Iterable[str] | None = None) -> None:
        if name != self.node_ids[-1]:
            return super().start_node(name, peers)
        arguments = [sys.executable, "-c", _START, str(self.profile_file), *self.node_arguments(name, peers)]
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(arguments, env=environment(), stdout=log, stderr=log)
        return None


def main() -> int:
    """Profile; return 0."""
    parser = argparse.ArgumentParser(prog="benchmarks.hotspots", description=__doc__)
    parser.add_argument("--majority", action="store_true", help="write with the concern `majority` instead of `one`")
    parser.add_argument("--seconds", type=float, default=5, help="of writes")
    parser.add_argument("--page", type=Path, help="Markdown file whose section `hotspots` to rewrite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jarvis-hotspots-") as directory:
        cluster = _ProfiledCluster(Path(directory) / "nodes", sync_interval_seconds=5)
        kind = JarvisMajority if options.majority else Jarvis
        with (
            kind(Path(directory) / "clients", cluster) as system,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            run = Run(system)
            load = Load(clients=32, seconds=options.seconds, samples=1, keys=1)
            runner.run(prepare(run, load))
            runner.run(measure_round(run, load))
            for client in (*run.clients, *run.observers):
                runner.run(client.close())
        text = build_table(pstats.Stats(str(cluster.profile_file)))
    print(text)
    if options.page:
        write_section(options.page, "hotspots", text)
    return 0


def build_table(stats: pstats.Stats) -> str:
    """Return the service's functions with the most CPU time, that of what they call included."""
    functions = stats.get_stats_profile().func_profiles
    total = sum(each.tottime for each in functions.values())
    ours = [(name, each) for name, each in functions.items() if _is_ours(each)]
    ours.sort(key=lambda item: item[1].cumtime, reverse=True)
    rows = [
        (f"`{name}` {_place(each)}", f"{each.cumtime:.2f}", f"{each.tottime:.2f}", each.ncalls)
        for name, each in ours[:_ROWS]
    ]
    return markdown(
        (f"function, of {total:.1f} s in all", "CPU s with what it calls", "its own", "calls and resumptions"), rows
    )


def _is_ours(function: pstats.FunctionProfile) -> bool:
    """Tell whether it serves writes: what starts the process contains all others."""
    return "/crdt_service/" in function.file_name and Path(function.file_name).name not in _STARTING


def _place(function: pstats.FunctionProfile) -> str:
    return "/".join(Path(function.file_name).parts[-2:])


if __name__ == "__main__":
    sys.exit(main())
