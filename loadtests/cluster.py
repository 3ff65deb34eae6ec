"""A real cluster on loopback: three nodes and a backend, each its own process, on ports that nobody else has."""

import contextlib
import json
import os
import random
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from loadtests.authority import Authority, Files

READY_SECONDS_MAX = 60
_PORTS = range(20_000, 30_000)
_given: set[int] = set()
_RULE: Mapping[str, Any] = {"prefix": "", "type": "any", "sources": []}
_PLUGIN: Mapping[str, Any] = {"required": False, "timeout_ms": 1000, "memory_mib": 256, "settings": {}}
ROOT = Path(__file__).resolve().parent.parent


class LoopbackCluster:
    """Nodes ``node-0`` … below one directory, each in its own zone; use as a context manager.

    With `tls` the API is HTTPS, and all processes speak mutual TLS with each other.

    Attributes:
        peers: Nodes whose addresses every process is told.
        node_count: How many nodes each node is told that there are to be.
        api_keys_file: Given to backends if `api_keys`; its first key is of scope admin, and `client` sends it.
        token_file: Holds the token of that key.
        plugins_dir: Where nodes and the backend find plugins.
    """

    def __init__(
        self,
        directory: Path,
        node_count: int = 3,
        sync_interval_seconds: float = 1.0,
        *,
        replication_factor: int | None = None,
        gossip_interval_seconds: float = 1.0,
        tls: bool = False,
        environment: str = "development",
        conflict_resolution: str = "advanced",
        conflict_rules: Iterable[Mapping[str, Any]] = (),
        api_keys: bool = False,
        rate_limiting: Mapping[str, Any] | None = None,
        plugins: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.node_ids = [f"node-{number}" for number in range(node_count)]
        self.peers = self.node_ids
        self.node_count = node_count
        self.config_file = directory / "config.json"
        self.secret_file = directory / "secret"
        self.plugins_dir = directory / "plugins"
        self.plugins_file = directory / "plugins.json"
        self.ports = {name: (free_port(), free_port()) for name in self.node_ids}
        self.key_files: list[Path] = []
        self.api_port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.authority = Authority(directory / "certificates") if tls else None
        self.certificates: dict[str, Files] = {}
        if self.authority is not None:
            self.certificates = {name: self.authority.issue(name) for name in (*self.node_ids, "jarvis-backend")}
            self.certificates["api"] = self.authority.issue("localhost", "127.0.0.1")
        # By which its processes know each other: `peer_service` of the configuration.
        self.name = f"{directory.name}-{secrets.token_hex(4)}"
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.api_port}"
        self.trust = ssl.create_default_context(cafile=str(self.authority.file)) if self.authority else True
        self.client = httpx.Client(timeout=15, verify=self.trust)
        self.plugins_file.write_text(
            json.dumps({"directory": str(self.plugins_dir), "plugins": [{**_PLUGIN, **plugin} for plugin in plugins]})
        )
        self.secret_file.write_text(secrets.token_hex(32))
        self.api_keys_file = directory / "api-keys.json"
        self.api_keys = api_keys
        self.token_file = directory / "token"
        if api_keys:
            self.token_file.touch(mode=0o600)
            self.token_file.write_text(self.create_api_key("--scope", "admin"))
            self.client.headers["authorization"] = f"Bearer {self.token_file.read_text()}"
        self.config_file.write_text(
            json.dumps(
                {
                    "environment": environment,
                    "crdt": {
                        "cluster_enabled": True,
                        "sync_interval_seconds": sync_interval_seconds,
                        "replication_factor": replication_factor or node_count,
                        "gossip": {"enabled": True, "interval_seconds": gossip_interval_seconds, "fanout": 3},
                        "conflict_resolution": conflict_resolution,
                        "conflict_rules": [{**_RULE, **rule} for rule in conflict_rules],
                    },
                    "security": {
                        "api_key_required": api_keys,
                        "rate_limiting": rate_limiting
                        or {"enabled": False, "requests_per_minute": 1000, "burst_limit": 2000},
                    },
                    "peer_service": self.name,
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
            # By the metrics, because a rate limit counts requests to the API.
            known = f'jarvis_members{{state="alive"}} {len(self.node_ids)}.0\n'
            page = f"{self.url}/metrics"
            wait_until(lambda: known in self.client.get(page).text, "all members to be known", self.logs)
            for name in self.node_ids:
                wait_until(partial(self.is_synced, name), f"{name} to hold what it owns", self.logs)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def node_arguments(self, name: str, peers: Iterable[str] | None = None) -> list[str]:
        """Arguments of a node that knows these peers, or all."""
        peer_port, metrics_port = self.ports[name]
        return [
            "node",
            *("--config", str(self.config_file), "--secret-file", str(self.secret_file)),
            *("--node-id", name, "--data-dir", str(self.directory / name), "--zone", f"zone-{name[-1]}"),
            *("--plugins", str(self.plugins_file), "--node-count", str(self.node_count)),
            *("--listen", f"127.0.0.1:{peer_port}", "--metrics-listen", f"127.0.0.1:{metrics_port}"),
            *(argument for file in self.key_files for argument in ("--encryption-key-file", str(file))),
            *self.peer_arguments(peers),
            *self._tls(name),
        ]

    def start_node(self, name: str, peers: Iterable[str] | None = None) -> None:
        self._start(name, self.node_arguments(name, peers))

    def start_backend(self, name: str = "backend", port: int | None = None) -> None:
        shared = ["--config", str(self.config_file), "--secret-file", str(self.secret_file)]
        listen = ["--listen", f"127.0.0.1:{self.api_port if port is None else port}"]
        listen += ["--plugins", str(self.plugins_file)]
        keys = ["--api-keys-file", str(self.api_keys_file)] if self.api_keys else []
        tls = self._tls("jarvis-backend")
        if "api" in self.certificates:
            api = self.certificates["api"]
            tls += ["--https-cert", str(api.certificate), "--https-key", str(api.key)]
        self._start(name, ["backend", *shared, *listen, *keys, *self.peer_arguments(), *tls])

    def create_api_key(self, *arguments: str) -> str:
        """Add a key to the file, under a name of its own unless one is given, and return its token."""
        return self.run_api_key("create", "--name", f"test-{secrets.token_hex(4)}", *arguments)

    def run_api_key(self, action: str, *arguments: str) -> str:
        """Change the file of API keys, as an operator does; return what is printed."""
        given = command("api-key", action, str(self.api_keys_file), *arguments)
        return subprocess.run(given, env=environment(), capture_output=True, text=True, check=True).stdout.strip()

    def command_of(self, name: str, arguments: list[str]) -> list[str]:
        """The whole command line of a process."""
        return command(*arguments)

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

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the service to its end, as an operator who holds the secret."""
        given = [*arguments, "--secret-file", str(self.secret_file), *self.peer_arguments()]
        return subprocess.run(
            command(*given), env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    def get(self, path: str) -> Any:
        return self.client.get(self.url + path).raise_for_status().json()

    def post(self, path: str, body: object) -> Any:
        return self.client.post(self.url + path, json=body).raise_for_status().json()

    def alive(self) -> list[str]:
        """Ids of the members that the backend holds for alive."""
        return [member["id"] for member in self.get("/v1/cluster")["members"] if member["state"] == "alive"]

    def is_synced(self, name: str) -> bool:
        """Whether a node has compared with the other owners; until then it shows no values of its own."""
        checks = self.client.get(f"http://127.0.0.1:{self.ports[name][1]}/health").json()["checks"]
        return all(check["passed"] for check in checks if check["name"] == "synced")

    def metrics(self, name: str) -> str:
        return self.probe(name, "/metrics").raise_for_status().text

    def probe(self, name: str, path: str) -> httpx.Response:
        """What a node's probes answer."""
        return self.client.get(f"http://127.0.0.1:{self.ports[name][1]}{path}")

    def cpu_seconds(self) -> float:
        """CPU time that all processes have used."""
        ticks = 0
        for process in self.processes.values():
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def logs(self) -> str:
        """The end of every process' log, for a report."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in self._log_files())

    def all_logs(self) -> str:
        """All that every process logged, for a test."""
        return "\n".join(path.read_text() for path in self._log_files())

    def _log_files(self) -> list[Path]:
        return sorted(self.directory.glob("*.log"))

    def peer_arguments(self, names: Iterable[str] | None = None) -> list[str]:
        ports = [self.ports[name][0] for name in (self.peers if names is None else names)]
        return [argument for port in ports for argument in ("--peer", f"127.0.0.1:{port}")]

    def _tls(self, name: str) -> list[str]:
        return self.certificates[name].arguments() if name in self.certificates else []

    def _start(self, name: str, arguments: list[str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.command_of(name, arguments), env=environment(), stdout=log, stderr=log
            )


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "crdt_service", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def free_port() -> int:
    """A port that nothing listens on now, another one each time.

    Below those that the kernel gives to connections that go out, so that none of them takes it before it is used.
    """
    while True:
        port = random.randrange(_PORTS.start, _PORTS.stop)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


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
