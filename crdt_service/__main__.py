"""The command line: ``node``, ``backend`` and ``secret``."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from crdt_service.backend import Backend
from crdt_service.kernel.config import read_config, read_secret, split_address
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.net.kubernetes import create_secret
from crdt_service.node import Node

EXIT_FAILED = 1
EXIT_USAGE = 2


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return 0 done, 1 failed, 2 wrong usage or configuration."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        if options.command == "secret":
            print(create_secret(options.namespace, options.name, options.key))
        elif options.command == "node":
            _run_node(options)
        else:
            _run_backend(options)
    except ServiceError as error:
        print(f"error: {error.message}\n  remedy: {error.remedy}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED
    except OSError as error:
        print(f"error: {error}\n  remedy: check the disk; the node recovers when it starts again", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _run_node(options: argparse.Namespace) -> None:
    node = Node(
        read_config(options.config),
        read_secret(options.secret_file),
        node_id=options.node_id,
        data_dir=options.data_dir,
        peers=[split_address(peer, "--peer") for peer in options.peer],
    )
    listen = split_address(options.listen, "--listen")
    metrics_listen = split_address(options.metrics_listen, "--metrics-listen")
    _run(lambda stopping: node.run(listen, metrics_listen, stopping))


def _run_backend(options: argparse.Namespace) -> None:
    peers = [split_address(peer, "--peer") for peer in options.peer]
    backend = Backend(read_config(options.config), read_secret(options.secret_file), peers=peers)
    listen = split_address(options.listen, "--listen")
    _run(lambda stopping: backend.run(listen, stopping))


def _run(serve: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run until SIGTERM or SIGINT."""

    async def run() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await serve(stopping)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="crdt_service", description="The Jarvis CRDT service.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", type=Path, required=True, help="JSON configuration file")
    shared.add_argument("--secret-file", type=Path, required=True, help="cluster secret, at least 32 bytes")
    shared.add_argument("--peer", action="append", default=[], help="HOST:PORT of a node, instead of DNS; repeatable")
    node = commands.add_parser("node", parents=[shared], help="store and replicate")
    node.add_argument("--node-id", required=True, help="name of this node, a DNS label")
    node.add_argument("--data-dir", type=Path, required=True, help="where its log lives")
    node.add_argument("--listen", required=True, help="HOST:PORT for peers and backends")
    node.add_argument("--metrics-listen", required=True, help="HOST:PORT for probes and metrics")
    backend = commands.add_parser("backend", parents=[shared], help="serve the API")
    backend.add_argument("--listen", required=True, help="HOST:PORT of the API")
    secret = commands.add_parser("secret", help="create the cluster secret, inside a pod")
    secret.add_argument("--namespace", required=True)
    secret.add_argument("--name", required=True)
    secret.add_argument("--key", required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
