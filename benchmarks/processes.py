"""Processes that are always ended, by their own ids, and what they use."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Self

from benchmarks.system import NODES, System

STOP_SECONDS_MAX = 20
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Processes:
    """Named processes below one directory, each in a session of its own, so that Ctrl-C reaches only us."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, arguments: list[str]) -> None:
        """Start `name`, which logs to a file of that name."""
        with (self.directory / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                arguments, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, name: str) -> None:
        """End a process as a crash would."""
        self._running[name].send_signal(signal.SIGKILL)
        self._running[name].wait()

    def stop(self) -> None:
        """End all: ask, wait, then kill."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def check(self) -> None:
        """Raise with the end of its log if a process has ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                log = (self.directory / f"{name}.log").read_text(errors="replace")[-500:]
                raise RuntimeError(f"{name} ended with {process.returncode}: {log}")

    def pids(self) -> list[int]:
        """Return the ids of all processes."""
        return [process.pid for process in self._running.values()]


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU time that the processes have used, user and system."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_SECOND


def resident_mb(pids: list[int]) -> float:
    """Return the memory that the processes hold, in MB of 10^6 bytes."""
    total_kib = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total_kib += int(line.split()[1])
    return total_kib * 1024 / 1e6


class ProcessSystem(System):
    """A system with one child process for each node."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._processes = Processes(directory)

    def __enter__(self) -> Self:
        for node in range(NODES):
            self.start(node)
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.stop()

    def pids(self) -> list[int]:
        """Return the processes of the nodes."""
        return self._processes.pids()

    def kill(self, node: int) -> None:
        """End a node as a crash would."""
        self._processes.kill(self._process(node))

    def _process(self, node: int) -> str:
        return f"{self.name}-{node}"
