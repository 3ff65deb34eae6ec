"""A real cluster on loopback: three nodes and a backend, each its own process, on ports the kernel picks."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

READY_SECONDS_MAX = 60
ROOT = Path(__file__).resolve().parent.parent


class LoopbackCluster:
    """Nodes ``node-0`` … below one directory; use as a context manager."""

    def __init__(self, directory: Path, node_count: int = 3, sync_interval_seconds: float = 1.0) -> None:
        self.directory = directory
        self.node_ids = [f"node-{number}" for number in range(node_count)]
        self.config_file = directory / "config.json"
        self.secret_file = directory / "secret"
        self.ports = {name: (free_port(), free_port()) for name in self.node_ids}
        self.api_port = free_port()
        self.url = f"http://127.0.0.1:{self.api_port}"
        self.client = httpx.Client(timeout=15)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.secret_file.write_text(secrets.token_hex(32))
        self.config_file.write_text(
            json.dumps(
                {
                    "environment": "development",
                    "crdt": {
                        "cluster_enabled": True,
                        "sync_interval_seconds": sync_interval_seconds,
                        "replication_factor": node_count,
                    },
                    "peer_service": "localhost",
                    "peer_port": 8001,
                }
            )
        )

    def __enter__(self) -> "LoopbackCluster":
        try:
            for name in self.node_ids:
                self.start_node(name)
            self.start_backend()
            for name in self.node_ids:
                self.wait_ready(name)
            wait_until(lambda: self.get("/health")["status"] == "healthy", "the cluster to be healthy", self.logs)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def node_arguments(self, name: str) -> list[str]:
        peer_port, metrics_port = self.ports[name]
        return [
            "node",
            *("--config", str(self.config_file), "--secret-file", str(self.secret_file)),
            *("--node-id", name, "--data-dir", str(self.directory / name)),
            *("--listen", f"127.0.0.1:{peer_port}", "--metrics-listen", f"127.0.0.1:{metrics_port}"),
            *self._peers(),
        ]

    def start_node(self, name: str) -> None:
        self._start(name, self.node_arguments(name))

    def start_backend(self) -> None:
        shared = ["--config", str(self.config_file), "--secret-file", str(self.secret_file)]
        self._start("backend", ["backend", *shared, "--listen", f"127.0.0.1:{self.api_port}", *self._peers()])

    def kill(self, name: str) -> None:
        """End a process as a crash would."""
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def stop(self) -> dict[str, int]:
        """End all processes as an operator would; return their exit codes."""
        self.client.close()
        for process in self.processes.values():
            process.terminate()
        return {name: process.wait(READY_SECONDS_MAX) for name, process in self.processes.items()}

    def wait_ready(self, name: str) -> None:
        url = f"http://127.0.0.1:{self.ports[name][1]}/ready"

        def probe() -> bool:
            if self.processes[name].poll() is not None:
                raise RuntimeError(f"{name} ended with {self.processes[name].returncode}\n{self.logs()}")
            return self.client.get(url).is_success

        wait_until(probe, f"{name} to be ready", self.logs)

    def get(self, path: str) -> Any:
        return self.client.get(self.url + path).raise_for_status().json()

    def post(self, path: str, body: object) -> Any:
        return self.client.post(self.url + path, json=body).raise_for_status().json()

    def metrics(self, name: str) -> str:
        return self.client.get(f"http://127.0.0.1:{self.ports[name][1]}/metrics").raise_for_status().text

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text()[-2000:]}" for path in sorted(self.directory.glob("*.log"))
        )

    def _peers(self) -> list[str]:
        return [argument for port, _ in self.ports.values() for argument in ("--peer", f"127.0.0.1:{port}")]

    def _start(self, name: str, arguments: list[str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command(*arguments), env=environment(), stdout=log, stderr=log)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "crdt_service", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(
    probe: Callable[[], object],
    what: str,
    explain: Callable[[], str] = lambda: "",
    seconds_max: float = READY_SECONDS_MAX,
) -> Any:
    """Poll until `probe` is true; tell the last state when it never is."""
    end = time.monotonic() + seconds_max
    last: object = None
    while time.monotonic() < end:
        try:
            last = probe()
        except (httpx.HTTPError, KeyError) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(0.05)
    raise TimeoutError(f"waited {seconds_max} s for {what}; last: {last!r}\n{explain()}")
