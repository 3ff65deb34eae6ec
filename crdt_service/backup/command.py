"""The command line of backups: one set of flags for all actions, so that one job's arguments serve any of them."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from crdt_service.backup.destination import Destination, Folder
from crdt_service.backup.job import Archive, Cluster, restore, take
from crdt_service.backup.manifest import Manifest
from crdt_service.backup.retention import Retention
from crdt_service.kernel.config import read_config, split_address
from crdt_service.kernel.error import ConfigError
from crdt_service.net.cluster import ClusterIdentity
from crdt_service.net.credentials import Credentials
from crdt_service.net.operator import Operator
from crdt_service.wire.seal import Key

ACTIONS = ("take", "list", "verify", "restore", "configuration", "prune")
_KEPT_MAX = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action and all flags but those of secrets and keys."""
    parser.add_argument("action", choices=ACTIONS, help="what to do; all take the same flags, and use those they need")
    parser.add_argument("--destination", required=True, help="folder of the backups, or s3://BUCKET/PREFIX")
    parser.add_argument("--s3-endpoint", default="", help="URL of the service that has the bucket")
    parser.add_argument("--s3-region", default="us-east-1", help="which the service expects in signatures")
    parser.add_argument("--s3-credentials", type=Path, help="folder with the files access-key-id and secret-access-key")
    parser.add_argument(
        "--backup", default="", help="id of a backup, as `list` shows it; the newest up to now if not given"
    )
    parser.add_argument("--config", type=Path, help="JSON configuration file of the nodes; for take and restore")
    parser.add_argument("--peer", action="append", default=[], help="HOST:PORT of a node; repeatable; name all of them")
    parser.add_argument(
        "--include", type=Path, action="append", default=[], help="folder of configuration to keep; repeatable"
    )
    parser.add_argument("--chart-version", default="", help="to note in the backup")
    parser.add_argument("--verify", action="store_true", help="read a backup back before it counts as taken")
    parser.add_argument("--none-is-fine", action="store_true", help="verify succeeds where there is no backup yet")
    parser.add_argument("--out", type=Path, help="folder to write the configuration of a backup to")
    for kind in ("hourly", "daily", "weekly"):
        parser.add_argument(
            f"--keep-{kind}",
            type=_count,
            help=f"{kind} backups to keep, 0 to {_KEPT_MAX}; with the other two, take removes others, as prune does",
        )


def run_backup(
    options: argparse.Namespace, keys: Sequence[Key], read_credentials: Callable[[], Credentials | None]
) -> None:
    """Do what the command line asks for; results are JSON on the standard output, progress is on the other.

    Raises:
        ServiceError: It cannot be done.
        OSError: The destination failed.
    """
    archive = Archive(_find_destination(options), keys)

    def cluster() -> Cluster:
        return _find_cluster(options, read_credentials())

    if options.action == "take":
        _take(options, archive, cluster())
    elif options.action == "list":
        _print([_summarize(manifest) for manifest in archive.manifests(_report)])
    elif options.action == "verify":
        if options.none_is_fine and not archive.destination.backups():
            _report("no backup was taken yet: nothing to verify")
            return
        manifest = archive.verify(archive.find(options.backup, _report))
        _report(f"backup {manifest.id} is whole: {manifest.keys} keys in {manifest.size_bytes} bytes")
        _print(_summarize(manifest))
    elif options.action == "restore":
        manifest = asyncio.run(restore(cluster(), archive, archive.find(options.backup, _report), _report))
        _print(_summarize(manifest))
    elif options.action == "configuration":
        _write_configuration(options, archive)
    else:
        archive.prune(_read_retention(options) or _refuse_prune(), _report)


def _take(options: argparse.Namespace, archive: Archive, cluster: Cluster) -> None:
    retention = _read_retention(options)
    manifest = asyncio.run(
        take(
            cluster,
            archive,
            _report,
            configuration=_read_files(options.include),
            chart_version=options.chart_version,
            is_verified=options.verify,
        )
    )
    for node in manifest.missed:
        _report(f"{node} was not read; other owners of all its slots were")
    _print(_summarize(manifest))
    if retention is not None:
        archive.prune(retention, _report, taken=manifest.id)


def _write_configuration(options: argparse.Namespace, archive: Archive) -> None:
    files = archive.read_configuration(archive.read_manifest(archive.find(options.backup, _report)))
    if options.out is None:
        _print({name: data.decode(errors="replace") for name, data in files.items()})
        return
    for name, data in files.items():
        (options.out / Path(name).name).write_bytes(data)
        _report(f"wrote {options.out / Path(name).name}")


def _find_destination(options: argparse.Namespace) -> Destination:
    if "://" not in options.destination:
        return Folder(Path(options.destination))
    if not options.s3_endpoint or options.s3_credentials is None:
        raise ConfigError(
            f"--destination {options.destination} needs --s3-endpoint and --s3-credentials", "give both, or a folder"
        )
    # Only where it is asked for: it is the one part of the service that is not needed for anything else.
    from crdt_service.backup.bucket import Bucket  # noqa: PLC0415

    return Bucket(
        options.destination,
        endpoint=options.s3_endpoint,
        region=options.s3_region,
        credentials=options.s3_credentials,
    )


def _find_cluster(options: argparse.Namespace, credentials: Credentials | None) -> Cluster:
    for flag, value in (("--secret-file", options.secret_file), ("--config", options.config), ("--peer", options.peer)):
        if not value:
            raise ConfigError(f"backup {options.action} needs {flag}", f"give {flag}")
    cluster = ClusterIdentity.of_files(options.secret_file, options.cluster_name_file or options.cluster_name)
    return Cluster(
        Operator(cluster, credentials),
        [split_address(peer, "--peer") for peer in options.peer],
        read_config(options.config).crdt,
    )


def _read_files(folders: Sequence[Path]) -> dict[str, bytes]:
    """Return the files of these folders by name; those whose names begin with a dot are a mount's own."""
    files: dict[str, bytes] = {}
    for folder in folders:
        try:
            for path in sorted(folder.iterdir()):
                if not path.name.startswith(".") and path.is_file():
                    files[path.name] = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"--include {folder}: {error.strerror}", "check the path") from error
    return files


def _read_retention(options: argparse.Namespace) -> Retention | None:
    counts = (options.keep_hourly, options.keep_daily, options.keep_weekly)
    if all(count is None for count in counts):
        return None
    return Retention(*(count or 0 for count in counts))


def _refuse_prune() -> NoReturn:
    raise ConfigError(
        "backup prune does not say what to keep", "give --keep-hourly, --keep-daily or --keep-weekly, or more of them"
    )


def _count(text: str) -> int:
    count = int(text)
    if not 0 <= count <= _KEPT_MAX:
        raise ValueError
    return count


def _summarize(manifest: Manifest) -> dict[str, object]:
    return {
        "id": manifest.id,
        "ended_at": manifest.ended_at,
        "keys": manifest.keys,
        "states": manifest.states,
        "size_bytes": manifest.size_bytes,
        "nodes": [node.node_id for node in manifest.nodes],
        "missed": manifest.missed,
        "configuration": manifest.configuration,
        "key_id": manifest.key_id,
    }


def _print(result: object) -> None:
    print(msgspec.json.encode(result).decode())


def _report(line: str) -> None:
    print(line, file=sys.stderr)
