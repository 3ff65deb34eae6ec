"""The command line: processes (``node``, ``backend``), jobs in the cluster, and commands of an operator."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import uvloop

from crdt_service import VERSION
from crdt_service.access.keyring import Keyring
from crdt_service.access.limit import Limit
from crdt_service.backend import Backend
from crdt_service.backup.command import add_arguments, run_backup
from crdt_service.certificates.renewal import Plan, read_wanted, renew
from crdt_service.dev import DATA_DIR, NODES_MAX, PORT, DevCluster, Developing, introduce
from crdt_service.kernel.config import (
    Config,
    check_node_count,
    join_address,
    read_config,
    read_encryption_keys,
    read_node_count,
    read_plugins,
    split_address,
)
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.kernel.ident import check_node_id, check_zone
from crdt_service.key_command import create_key, draw_token, install_keys, list_keys, revoke_key, rotate_key
from crdt_service.net.certificate import read_server_certificate
from crdt_service.net.cluster import ClusterIdentity
from crdt_service.net.credentials import BACKEND_NAME, OPERATOR_NAME, Credentials, read_credentials
from crdt_service.net.files import raise_open_files
from crdt_service.net.kubernetes import CONFIG_MAP, SECRET, Kubernetes, create_empty, create_secret, create_volume
from crdt_service.net.operator import Operator
from crdt_service.node import Node, run_node
from crdt_service.placement_command import PlacementCommand
from crdt_service.resize import Resizing
from crdt_service.telemetry.log import configure_logging
from crdt_service.telemetry.recorder import make_recorder
from crdt_service.telemetry.trace import Recorder
from crdt_service.wire.seal import Key

_DESCRIPTION = "Jarvis, the shared, conflict-free state of distributed AI agents."
EXIT_FAILED = 1
EXIT_USAGE = 2
FACTOR_MAX = 100
_OVERLAP_HOURS_MAX = 24 * 366
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on.


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return 0 done, 1 failed, 2 wrong usage or configuration."""
    options = _parser().parse_args(arguments)
    configure_logging("development", options.command)
    try:
        options.run(options)
    except ServiceError as error:
        print(f"error: {error.message}\n  remedy: {error.remedy}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED
    except OSError as error:
        then = "; the node recovers when it starts again" if options.command == "node" else " and the path"
        print(f"error: {error}\n  remedy: check the disk{then}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _create_secret(options: argparse.Namespace) -> None:
    print(create_secret(Kubernetes(options.namespace), options.name, options.key))


def _create_empty(options: argparse.Namespace) -> None:
    api = Kubernetes(options.namespace)
    for kind, names in ((SECRET, options.secret), (CONFIG_MAP, options.configmap)):
        for name in names:
            print(create_empty(api, kind, name))


def _create_volume(options: argparse.Namespace) -> None:
    print(
        create_volume(
            Kubernetes(options.namespace),
            options.name,
            size=options.size,
            storage_class=options.storage_class,
            release=options.release,
            component=options.component,
        )
    )


def _renew_certificates(options: argparse.Namespace) -> None:
    peers = [read_wanted(text, is_peer=True) for text in options.peer]
    servers = [read_wanted(text, is_peer=False) for text in options.server]
    plan = Plan(options.authority, options.bundle, dict([*peers, *servers]))
    renew(Kubernetes(options.namespace), plan, datetime.now(UTC), print)


def _create_key(options: argparse.Namespace) -> None:
    per_minute, burst = options.requests_per_minute, options.burst_limit
    if (per_minute is None) != (burst is None):
        raise ConfigError("--requests-per-minute and --burst-limit go together", "give both or none")
    token = create_key(
        options.file,
        options.name,
        options.scope,
        prefixes=tuple(options.prefix),
        not_before=options.not_before,
        expires_at=options.expires_at,
        rate_limit=None if per_minute is None else Limit(per_minute, burst),
    )
    print(token)


def _rotate_key(options: argparse.Namespace) -> None:
    if not 0 <= options.overlap_hours <= _OVERLAP_HOURS_MAX:
        raise ConfigError(f"--overlap-hours {options.overlap_hours}", f"give 0 to {_OVERLAP_HOURS_MAX}")
    overlap = timedelta(hours=options.overlap_hours)
    print(rotate_key(options.file, options.id, overlap, lambda: datetime.now(UTC)))


def _draw_token(options: argparse.Namespace) -> None:
    print(draw_token(Kubernetes(options.namespace), options.keys_secret, options.token_secret))


def _install_keys(options: argparse.Namespace) -> None:
    print(install_keys(Kubernetes(options.namespace), options.keys_secret, options.token_secret))


def _read_moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment


def _back_up(options: argparse.Namespace) -> None:
    run_backup(options, _read_encryption_keys(options), lambda: _read_credentials(options, OPERATOR_NAME))


def _run_node(options: argparse.Namespace) -> None:
    config = read_config(options.config)
    recorder = _observe(config, "jarvis-crdt", check_node_id(options.node_id))
    listen = split_address(options.listen, "--listen")
    metrics_listen = split_address(options.metrics_listen, "--metrics-listen")
    make = partial(
        Node,
        config,
        _read_cluster(options, config.peer_service),
        node_id=options.node_id,
        data_dir=options.data_dir,
        peers=[split_address(peer, "--peer") for peer in options.peer],
        zone=check_zone(options.zone),
        advertise=_advertise(options.advertise, options.listen),
        credentials=_read_credentials(options, check_node_id(options.node_id)),
        keys=_read_encryption_keys(options),
        recorder=recorder,
        plugins=read_plugins(options.plugins),
        node_count=_node_count(options) if config.crdt.cluster_enabled else lambda: 0,
    )

    _run(partial(run_node, make, listen, metrics_listen), recorder)


def _node_count(options: argparse.Namespace) -> Callable[[], int]:
    """Return what tells how many nodes there are to be: a file, a flag, or else how many addresses there are.

    Raises:
        ConfigError: None of them says it.
    """
    if options.node_count_file is not None:
        return partial(read_node_count, options.node_count_file)
    if options.node_count is not None:
        count = check_node_count(options.node_count, "--node-count")
    elif options.peer:
        count = len({*options.peer, _advertise(options.advertise, options.listen)} - {""})
    else:
        raise ConfigError(
            "how many nodes there are to be is not given",
            "give --node-count, --node-count-file, or the address of every node by --peer",
        )
    return lambda: count


def _advertise(given: str, listen: str) -> str:
    """Return where others reach this node: what was given, or where it listens unless that is everywhere."""
    if given:
        return join_address(*split_address(given, "--advertise"))
    host, port = split_address(listen, "--listen")
    return "" if host in _EVERYWHERE or not port else listen


def _run_resize(options: argparse.Namespace) -> None:
    if options.nodes is not None and options.nodes < 1:
        raise ConfigError(f"--nodes {options.nodes}: a cluster has a node at least", "give 1 or more")
    if not 0 <= options.replication_factor <= FACTOR_MAX:
        raise ConfigError(f"--replication-factor {options.replication_factor}", f"give 1 to {FACTOR_MAX}")
    peers = [split_address(peer, "--peer") for peer in options.peer]
    files = (options.tls_cert, options.tls_key, options.tls_ca)
    if all(file is not None and not file.exists() for file in files):
        # Who turns TLS on may get certificates only once this job is over; what runs until then has no TLS either.
        print("there are no certificates yet: nodes are asked without TLS", file=sys.stderr)
        options.tls_cert = options.tls_key = options.tls_ca = None
    resizing = Resizing(_operator(options), peers, _report)
    asyncio.run(resizing.abort() if options.abort else resizing.resize(options.nodes, options.replication_factor))


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _placement(options: argparse.Namespace) -> PlacementCommand:
    return PlacementCommand(_operator(options), [split_address(peer, "--peer") for peer in options.peer], _report)


def _show_placement(options: argparse.Namespace) -> None:
    print("\n".join(asyncio.run(_placement(options).show())))


def _accept_loss(options: argparse.Namespace) -> None:
    def confirm(lost: list[str]) -> None:
        typed = options.yes
        if typed is None:
            typed = _read_line(f"type the names again to give {', '.join(lost)} up for ever: ").split()
        if set(typed) not in (set(lost), set(options.seats)):
            raise ConfigError(
                f"{' '.join(typed) or 'nothing'} was confirmed, not {' '.join(lost)}",
                "give the same seats again, nothing was changed",
            )

    print("\n".join(asyncio.run(_placement(options).accept_loss(options.seats, confirm))))


def _confirm_loss(options: argparse.Namespace) -> None:
    print("\n".join(asyncio.run(_placement(options).confirm_loss())))


def _read_line(prompt: str) -> str:
    """Ask a person; empty if there is none."""
    print(prompt, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline()


def _operator(options: argparse.Namespace) -> Operator:
    name = check_node_id(options.name)
    return Operator(_read_cluster(options), _read_credentials(options, name), name)


def _read_cluster(options: argparse.Namespace, default: str = "") -> ClusterIdentity:
    return ClusterIdentity.of_files(options.secret_file, options.cluster_name_file or options.cluster_name or default)


def _read_encryption_keys(options: argparse.Namespace) -> list[Key]:
    return [Key(key) for path in options.encryption_key_file for key in read_encryption_keys(path)]


def _run_backend(options: argparse.Namespace) -> None:
    raise_open_files()
    config = read_config(options.config)
    recorder = _observe(config, BACKEND_NAME, socket.gethostname())
    backend = Backend(
        config,
        _read_cluster(options, config.peer_service),
        peers=[split_address(peer, "--peer") for peer in options.peer],
        credentials=_read_credentials(options, BACKEND_NAME),
        zone=check_zone(options.zone),
        linger_seconds=options.linger,
        certificate=read_server_certificate(options.https_cert, options.https_key),
        recorder=recorder,
        keyring=_read_keyring(options.api_keys_file, config.security.api_key_required),
        plugins=read_plugins(options.plugins),
    )
    listen = split_address(options.listen, "--listen")
    _run(lambda stopping: backend.run(listen, stopping), recorder)


def _run_dev(options: argparse.Namespace) -> None:
    raise_open_files()
    configure_logging("development", "dev", level=logging.DEBUG if options.verbose else logging.WARNING)
    cluster = DevCluster(Developing(options.data, options.nodes, options.port, options.with_keys))
    _run(lambda stopping: cluster.run(stopping, lambda: print(introduce(cluster, options.data), flush=True)), None)


def _read_keyring(path: Path | None, is_required: bool) -> Keyring | None:
    if (path is not None) != is_required:
        given, says = ("is given", "off") if path else ("is missing", "on")
        raise ConfigError(
            f"--api-keys-file {given} while security.api_key_required is {says}", "change either, so that they agree"
        )
    return None if path is None else Keyring(path, time.time)


def _read_credentials(options: argparse.Namespace, name: str) -> Credentials | None:
    return read_credentials(options.tls_cert, options.tls_key, options.tls_ca, name)


def _observe(config: Config, service: str, name: str) -> Recorder | None:
    """Log as the environment asks for; return what records spans, if anything does."""
    configure_logging(config.environment, name)
    return make_recorder(os.environ, service=service, instance=name, version=VERSION)


def _run(serve: Callable[[asyncio.Event], Awaitable[None]], recorder: Recorder | None) -> None:
    """Run until SIGTERM or SIGINT."""

    async def run() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await serve(stopping)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
    finally:
        if recorder is not None:
            recorder.close()


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 300:
        raise ValueError
    return seconds


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise ValueError
    return port


def _name() -> str:
    """Return what this was called as: the installed command, or the module."""
    called = Path(sys.argv[0]).stem
    return called if called == "jarvis" else "python -m crdt_service"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_name(), description=_DESCRIPTION, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    access = argparse.ArgumentParser(add_help=False)
    _add_access(access, is_secret_required=True)
    shared = argparse.ArgumentParser(add_help=False, parents=[access])
    shared.add_argument("--config", type=Path, required=True, help="JSON configuration file")
    shared.add_argument("--plugins", type=Path, help="JSON file of plugins; a node takes strategies from it")
    shared.add_argument("--peer", action="append", default=[], help="HOST:PORT of a node, instead of DNS; repeatable")
    sealed = argparse.ArgumentParser(add_help=False)
    sealed.add_argument(
        "--encryption-key-file",
        type=Path,
        action="append",
        default=[],
        help="encrypts what is written: 32 bytes or more, plain or in base64; repeat for older keys to read with, "
        "or give a directory with encryption-key and older ones",
    )
    node = commands.add_parser("node", parents=[shared, sealed], help="store and replicate")
    node.set_defaults(run=_run_node)
    node.add_argument("--node-id", required=True, help="name of this node, a DNS label")
    node.add_argument("--data-dir", type=Path, required=True, help="where its log lives")
    node.add_argument("--listen", required=True, help="HOST:PORT for peers and backends")
    node.add_argument("--advertise", default="", help="HOST:PORT where peers reach it, if it listens everywhere")
    node.add_argument("--zone", default="", help="where it runs; replicas are spread over zones")
    node.add_argument("--metrics-listen", required=True, help="HOST:PORT for probes and metrics")
    counts = node.add_mutually_exclusive_group()
    counts.add_argument(
        "--node-count", help="how many nodes there are to be; as many as addresses are given by --peer if it is not"
    )
    counts.add_argument("--node-count-file", type=Path, help="a file that says it, and may change")
    backend = commands.add_parser("backend", parents=[shared], help="serve the API")
    backend.set_defaults(run=_run_backend)
    backend.add_argument("--listen", required=True, help="HOST:PORT of the API")
    backend.add_argument("--zone", default="", help="where it runs; owners there are asked first")
    backend.add_argument(
        "--linger",
        type=_seconds,
        default=0.0,
        help="seconds, 0 to 300, for which requests are still served after SIGTERM, until load balancers know",
    )
    backend.add_argument(
        "--api-keys-file", type=Path, help="hashes of API keys; needed if the configuration asks for them"
    )
    _add_dev(commands.add_parser("dev", help="a cluster in this process, on loopback, for a laptop"))
    _add_key_commands(commands.add_parser("api-key", help="change a file of API keys"))
    backend.add_argument("--https-cert", type=Path, help="PEM certificate of the API; with the next one, HTTPS")
    backend.add_argument("--https-key", type=Path, help="PEM file of its private key")
    _add_jobs(commands)
    _add_placement_commands(commands, access)
    backup = commands.add_parser("backup", parents=[sealed], help="take, verify, restore and remove backups")
    backup.set_defaults(run=_back_up)
    _add_access(backup, is_secret_required=False)
    add_arguments(backup)
    return parser


def _add_dev(dev: argparse.ArgumentParser) -> None:
    dev.set_defaults(run=_run_dev)
    dev.add_argument("--nodes", type=int, help=f"1 to {NODES_MAX}; as many as the data is of, or 1, if not given")
    dev.add_argument(
        "--data", type=Path, default=Path(DATA_DIR), help=f"directory of all data; {DATA_DIR} if not given"
    )
    dev.add_argument("--port", type=_port, default=PORT, help=f"of the API; {PORT} if not given")
    dev.add_argument("--with-keys", action="store_true", help="make an API key, and refuse requests without one")
    dev.add_argument("--verbose", action="store_true", help="log everything, not only warnings")


def _add_placement_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", access: argparse.ArgumentParser
) -> None:
    asking = argparse.ArgumentParser(add_help=False, parents=[access])
    asking.add_argument("--peer", action="append", required=True, help="HOST:PORT of any node; repeatable")
    asking.add_argument(
        "--as",
        dest="name",
        default=OPERATOR_NAME,
        help=f"whom the certificate is for: {OPERATOR_NAME} if not given, or a node, inside its pod",
    )
    resize = commands.add_parser(
        "resize", parents=[asking], help="decide how many nodes there are to be; wait for those that go"
    )
    resize.set_defaults(run=_run_resize)
    changes = resize.add_mutually_exclusive_group(required=True)
    changes.add_argument("--nodes", type=int, help="how many nodes there are to be, at least 1")
    changes.add_argument("--abort", action="store_true", help="give up the change that is under way")
    resize.add_argument(
        "--replication-factor", type=int, default=0, help="owners of each slot; as many as nodes were told if not given"
    )
    placement = commands.add_parser("placement", help="show who owns what; go on without disks that are lost")
    actions = placement.add_subparsers(dest="action", required=True)
    actions.add_parser("show", parents=[asking], help="show seats and what is under way").set_defaults(
        run=_show_placement
    )
    lose = actions.add_parser(
        "accept-loss", parents=[asking], help="go on without seats whose disks are lost; gives their data up"
    )
    lose.set_defaults(run=_accept_loss)
    lose.add_argument("seats", nargs="+", metavar="SEAT", help="as `placement show` has it, or its node")
    lose.add_argument("--yes", nargs="+", metavar="SEAT", help="the same again, instead of typing them when asked")
    confirm = actions.add_parser("confirm-loss", parents=[asking], help="no longer tell of the accepted loss")
    confirm.set_defaults(run=_confirm_loss)


def _add_access(parser: argparse.ArgumentParser, *, is_secret_required: bool) -> None:
    parser.add_argument(
        "--secret-file",
        type=Path,
        required=is_secret_required,
        help="cluster secret, at least 32 bytes; or two, each on a line, while they are rotated",
    )
    names = parser.add_mutually_exclusive_group()
    names.add_argument(
        "--cluster-name",
        default="",
        help="the same for all processes of a cluster; if not given, for a node and a backend peer_service of the "
        "configuration, for other commands that of the node that is asked",
    )
    names.add_argument("--cluster-name-file", type=Path, help="a file that says it, and may change")
    parser.add_argument("--tls-cert", type=Path, help="PEM certificate of this process; with the next two, mutual TLS")
    parser.add_argument("--tls-key", type=Path, help="PEM file of its private key")
    parser.add_argument("--tls-ca", type=Path, help="PEM file of the authority that all processes' certificates are of")


def _add_key_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("file", type=Path, help="the key file")
    named = argparse.ArgumentParser(add_help=False, parents=[shared])
    named.add_argument("id", help="as `list` shows it")
    create = commands.add_parser("create", parents=[shared], help="add a key and print its token, once")
    create.set_defaults(run=_create_key)
    create.add_argument("--name", required=True, help="what to call it, 1 to 64 printable ASCII characters")
    create.add_argument("--scope", required=True, choices=["read", "write", "admin"], help="each includes those before")
    create.add_argument("--prefix", action="append", default=[], help="keys it may touch begin so; repeatable")
    create.add_argument("--not-before", type=_read_moment, help="ISO 8601 with a time zone")
    create.add_argument("--expires-at", type=_read_moment, help="ISO 8601 with a time zone")
    create.add_argument("--requests-per-minute", type=int, help="with the next, a limit of its own")
    create.add_argument("--burst-limit", type=int, help="requests that may come at once")
    shown = commands.add_parser("list", parents=[shared], help="show all keys, without hashes")
    shown.set_defaults(run=lambda options: print(list_keys(options.file).decode()))
    revoke = commands.add_parser("revoke", parents=[named], help="remove a key")
    revoke.set_defaults(run=lambda options: revoke_key(options.file, options.id))
    rotate = commands.add_parser("rotate", parents=[named], help="add a successor and let the key expire")
    rotate.set_defaults(run=_rotate_key)
    rotate.add_argument("--overlap-hours", type=float, default=24.0, help="for how long both are good; 24 if not given")
    draw = commands.add_parser("draw", help="create the first key's Secrets, that of the key file empty, inside a pod")
    draw.set_defaults(run=_draw_token)
    install = commands.add_parser("install", help="fill the empty Secret of the first key, inside a pod")
    install.set_defaults(run=_install_keys)
    for command in (draw, install):
        command.add_argument("--namespace", required=True)
        command.add_argument("--keys-secret", required=True, help="of the key file")
        command.add_argument("--token-secret", required=True, help="of the token")


def _add_jobs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add what jobs run inside the cluster, with rights of their own."""
    secret = commands.add_parser("secret", help="create the cluster secret, inside a pod")
    secret.set_defaults(run=_create_secret)
    secret.add_argument("--namespace", required=True)
    secret.add_argument("--name", required=True)
    secret.add_argument("--key", required=True)
    empty = commands.add_parser("empty", help="create Secrets and ConfigMaps for another job to fill, inside a pod")
    empty.set_defaults(run=_create_empty)
    empty.add_argument("--namespace", required=True)
    for flag in ("--secret", "--configmap"):
        empty.add_argument(flag, action="append", default=[], metavar="NAME", help="repeatable")
    volume = commands.add_parser("volume", help="claim a volume, inside a pod")
    volume.set_defaults(run=_create_volume)
    volume.add_argument("--namespace", required=True)
    volume.add_argument("--name", required=True, help="of the claim")
    volume.add_argument("--release", required=True, help="and the next: values of the claim's labels")
    volume.add_argument("--component", required=True)
    volume.add_argument("--size", required=True, help="such as 10Gi")
    volume.add_argument("--storage-class", default="", help="empty for the cluster's default")
    certificates = commands.add_parser("certificates", help="create or renew the cluster's certificates, inside a pod")
    certificates.set_defaults(run=_renew_certificates)
    certificates.add_argument("--namespace", required=True)
    certificates.add_argument("--authority", required=True, help="Secret of the authority and its private key")
    certificates.add_argument("--bundle", required=True, help="ConfigMap of the certificates of trusted authorities")
    for flag, use in (("--peer", "mutual TLS"), ("--server", "an HTTPS server")):
        text = f"Secret of a certificate for {use}, and its names; repeatable"
        certificates.add_argument(flag, action="append", default=[], metavar="SECRET=NAME,NAME", help=text)


if __name__ == "__main__":
    sys.exit(main())
