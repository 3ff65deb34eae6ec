"""A whole cluster in one process, for a laptop: nodes and a backend on loopback, their data in one directory.

It runs the same `Node` and `Backend` as a cluster does; only how they are told of each other is simpler here. It must
not know Kubernetes, and nothing that production relies on may depend on it.
"""

import asyncio
import contextlib
import itertools
import random
import secrets
import shlex
import socket
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from crdt_service.access.keyring import Keyring
from crdt_service.backend import Backend
from crdt_service.disk.private import replace_private
from crdt_service.kernel.config import (
    Config,
    CrdtConfig,
    GossipConfig,
    PluginsConfig,
    RateLimitingConfig,
    SecurityConfig,
)
from crdt_service.kernel.error import ConfigError
from crdt_service.key_command import create_key
from crdt_service.membership.link import Endpoint
from crdt_service.net.cluster import ClusterIdentity
from crdt_service.node import Node, run_node

LOOPBACK = "127.0.0.1"
DATA_DIR = ".jarvis"
CLUSTER_NAME = "dev"
PORT = 8000
# Raising it allows more nodes in one process, which all share its one processor.
NODES_MAX = 9
# More owners cost more writes, and a majority of three survives the loss of one.
_FACTOR_MAX = 3
_PORTS = (20_000, 30_000)
_ASK_SECONDS = 0.05
_ASK_SECONDS_MAX = 2.0


class Developing(NamedTuple):
    """What `jarvis dev` was asked for.

    Attributes:
        data_dir: Where nodes, secret and keys are; made if it is missing.
        node_count: How many nodes; None for as many as the directory has, or one.
        port: Of the API, on loopback.
        with_keys: Whether requests need an API key.
    """

    data_dir: Path
    node_count: int | None
    port: int
    with_keys: bool


class DevCluster:
    """The nodes and the backend, not yet running.

    Attributes:
        url: Of the API.
        token_file: Has the token of an API key that may do everything; None if requests need none.
        node_count: How many nodes there are.

    Raises:
        ConfigError: The directory cannot be used, or has another number of nodes.
    """

    def __init__(self, asked: Developing) -> None:
        try:
            asked.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.node_count = _count_nodes(asked)
            _make_secret(asked.data_dir / "secret")
            keys_file: Path | None = None
            self.token_file: Path | None = None
            if asked.with_keys:
                keys_file, self.token_file = _make_key(asked.data_dir)
        except OSError as error:
            raise ConfigError(
                f"--data {asked.data_dir}: {error.strerror}", "give a directory that this user may write"
            ) from error
        identity = ClusterIdentity.of_files(asked.data_dir / "secret", CLUSTER_NAME)
        self.url = f"http://{LOOPBACK}:{asked.port}"
        config = _config(self.node_count, is_key_required=asked.with_keys)
        ports = _free_ports(2 * self.node_count)
        probes = [f"http://{LOOPBACK}:{port}/ready" for port in ports[self.node_count :]]
        self._awaited = (*probes, f"{self.url}/ready")
        addresses: list[Endpoint] = [(LOOPBACK, port) for port in ports[: self.node_count]]
        plugins = PluginsConfig("", [])
        self._nodes = [
            partial(
                run_node,
                partial(
                    Node,
                    config,
                    identity,
                    node_id=f"node-{number}",
                    data_dir=asked.data_dir / f"node-{number}",
                    peers=addresses,
                    zone=f"zone-{number}",
                    advertise=f"{LOOPBACK}:{address[1]}",
                    credentials=None,
                    plugins=plugins,
                    node_count=lambda: self.node_count,
                ),
                address,
                (LOOPBACK, probe_port),
            )
            for number, address, probe_port in zip(itertools.count(), addresses, ports[self.node_count :], strict=False)
        ]
        keyring = None if keys_file is None else Keyring(keys_file, time.time)
        self._backend = Backend(config, identity, peers=addresses, credentials=None, keyring=keyring, plugins=plugins)
        self._listen: Endpoint = (LOOPBACK, asked.port)

    async def run(self, stopping: asyncio.Event, on_ready: Callable[[], None]) -> None:
        """Serve until `stopping` is set or a part fails; call `on_ready` once the first write would be answered.

        Raises:
            ConfigError: An address cannot be listened on, or another process has the data.
            OSError: The disk failed.
        """
        ending, ending_nodes = asyncio.Event(), asyncio.Event()
        nodes = [asyncio.create_task(run(ending_nodes)) for run in self._nodes]
        backend = asyncio.create_task(self._backend.run(self._listen, ending))
        asked, telling = asyncio.create_task(stopping.wait()), asyncio.create_task(self._tell(on_ready))
        try:
            await asyncio.wait((*nodes, backend, asked), return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            telling.cancel()
            # The backend goes first: nodes still answer what it owes its callers.
            ending.set()
            await asyncio.wait((backend,))
            ending_nodes.set()
            await asyncio.wait(nodes)
        for part in (*nodes, backend):
            part.result()

    async def _tell(self, on_ready: Callable[[], None]) -> None:
        for url in self._awaited:
            while not await asyncio.to_thread(_is_ready, url):  # noqa: ASYNC110 - it is asked over HTTP, as by anyone.
                await asyncio.sleep(_ASK_SECONDS)
        on_ready()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_ASK_SECONDS_MAX):  # noqa: S310 - ours.
            return True
    except OSError:  # URLError is one.
        return False


def introduce(cluster: DevCluster, data_dir: Path) -> str:
    """Return what a person is told once the cluster is ready: where it is, and how to write and read."""
    nodes = "1 node" if cluster.node_count == 1 else f"{cluster.node_count} nodes"
    header = token = ""
    if cluster.token_file is not None:
        header = f' -H "Authorization: Bearer $(cat {shlex.quote(str(cluster.token_file))})"'
        token = f", token=read_token_file(Path({str(cluster.token_file)!r}))"
    key = f"{cluster.url}/v1/keys/visits"
    return "\n".join(
        (
            f"Jarvis is ready at {cluster.url} ({nodes}, data in {data_dir})",
            "",
            f"""  write   curl -X POST{header} {key} -d '{{"type": "pn_counter", "op": {{"increment": 1}}}}'""",
            f"  read    curl{header} {key}",
            f"""  Python  Client("{cluster.url}"{token}).write("visits", "pn_counter", {{"increment": 1}})""",
            "",
            "Ctrl-C stops it; the data stays.",
        )
    )


def _config(node_count: int, *, is_key_required: bool) -> Config:
    return Config(
        environment="development",
        crdt=CrdtConfig(
            cluster_enabled=True,
            sync_interval_seconds=1.0,
            clustered_factor=min(node_count, _FACTOR_MAX),
            gossip=GossipConfig(enabled=True, interval_seconds=1.0, fanout=3),
            conflict_resolution="advanced",
            conflict_rules=[],
        ),
        security=SecurityConfig(
            api_key_required=is_key_required,
            rate_limiting=RateLimitingConfig(enabled=False, requests_per_minute=1000, burst_limit=2000),
        ),
        peer_service="localhost",
        peer_port=8001,
    )


def _count_nodes(asked: Developing) -> int:
    if asked.node_count is not None and not 1 <= asked.node_count <= NODES_MAX:
        raise ConfigError(f"--nodes {asked.node_count}", f"give 1 to {NODES_MAX}")
    there = sum(1 for path in asked.data_dir.glob("node-*") if path.is_dir())
    if there and asked.node_count not in {None, there}:
        raise ConfigError(
            f"--nodes {asked.node_count}: the data in {asked.data_dir} is of {there}",
            f"give --nodes {there}, or another directory by --data",
        )
    return there or asked.node_count or 1


def _make_secret(path: Path) -> None:
    if not path.exists():
        replace_private(path, secrets.token_hex(32).encode())


def _make_key(data_dir: Path) -> tuple[Path, Path]:
    """Return the files of API keys and of a token, which are made if they are missing."""
    keys_file, token_file = data_dir / "api-keys.json", data_dir / "token"
    if not token_file.exists():
        keys_file.unlink(missing_ok=True)  # A start that was cut off between the two.
        token = create_key(keys_file, "dev", "admin", prefixes=(), not_before=None, expires_at=None, rate_limit=None)
        replace_private(token_file, token.encode())
    return keys_file, token_file


def _free_ports(count: int) -> list[int]:
    """Return ports of loopback that nothing listens on now, all different.

    They are below those that the kernel gives to connections that go out, so that none takes one before a node does.
    """
    free: list[int] = []
    while len(free) < count:
        port = random.randrange(*_PORTS)  # noqa: S311 - no secret.
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind((LOOPBACK, port))
            if port not in free:
                free.append(port)
    return free
