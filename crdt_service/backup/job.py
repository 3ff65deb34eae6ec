"""Takes, verifies, restores and prunes backups, over any destination."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from crdt_service import VERSION
from crdt_service.backup.data import (
    CONFIGURATION,
    FILE_BYTES_MAX,
    FileMaker,
    read_configuration,
    read_states,
    states_name,
)
from crdt_service.backup.destination import Destination
from crdt_service.backup.manifest import (
    FORMAT,
    NAME,
    DamagedBackupError,
    File,
    Manifest,
    Source,
    decode_manifest,
    encode_manifest,
    make_id,
    peek,
)
from crdt_service.backup.merge import Merge
from crdt_service.backup.nodes import Nodes, Reading, check_unmoved, connect
from crdt_service.backup.retention import Retention, choose_kept
from crdt_service.kernel.clock import DRIFT_SECONDS_MAX
from crdt_service.kernel.config import CrdtConfig
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.membership.link import Endpoint
from crdt_service.metrics.backup import FAILURE_KEY, SUCCESS_KEY, TYPE, Failure, Success, encode_operation
from crdt_service.net.operator import Operator
from crdt_service.wire.message import Delta
from crdt_service.wire.seal import Key

ATTEMPTS_MAX = 3
# A node takes a backup whose job was killed for abandoned after a minute.
_UNDER_WAY_SECONDS_MAX = 90.0
_UNDER_WAY_PAUSE_SECONDS = 5.0
# `GET /v1/conflicts` lists all of them.
_REPORTED_KEYS_MAX = 100
# What may be over when it is tried once more: a node that restarts, slots that are handed over.
_PASSING = frozenset({"backup_outrun", "backup_unknown", "node_unreachable", "outcome_unknown"})

Report = Callable[[str], None]


@dataclass(frozen=True)
class Cluster:
    """Where the nodes are, and what proves who asks.

    Attributes:
        peers: Nodes to begin with; all that they know are asked as well.
        config: How they replicate.
    """

    operator: Operator
    peers: Sequence[Endpoint]
    config: CrdtConfig


@dataclass(frozen=True)
class Archive:
    """Backups of one destination, and the keys that open them; the first seals new ones, without any they are plain."""

    destination: Destination
    keys: Sequence[Key] = ()
    randomness: random.Random = field(default_factory=random.SystemRandom)
    clock: Callable[[], float] = time.time

    def find(self, backup: str, report: Report) -> str:
        """Return an id as it is, or the newest one for an empty one, but for those of the future, which are reported.

        Raises:
            ConfigError: There is no such backup.
        """
        backups = self.destination.backups()
        if not backups or backup not in ("", *backups):
            raise ConfigError(f"there is no backup {backup}".rstrip(), "see `backup list` for those that there are")
        if backup:
            return backup
        past, future = self._split(backups)
        if future:
            report(f"{_show_future(future)}: none of them is taken unless --backup names it")
        if not past:
            raise ConfigError(_show_future(future), "name the one to use by --backup, or set this machine's clock")
        return past[-1]

    def read_manifest(self, backup: str) -> Manifest:
        """Return what a backup says of itself.

        Raises:
            ConfigError: Its key is not given.
            DamagedBackupError: It was altered.
        """
        return decode_manifest(self._read(backup, NAME), backup, self.keys)

    def manifests(self, report: Report) -> list[Manifest]:
        """Return what each backup says of itself, believed as it stands; report those that say nothing.

        Those of the future are reported, too.
        """
        manifests = []
        backups = self.destination.backups()
        if future := self._split(backups)[1]:
            report(_show_future(future))
        for backup in backups:
            try:
                manifests.append(peek(self._read(backup, NAME), backup))
            except ServiceError as error:
                report(f"{error.message}; {error.remedy}")
        return manifests

    def verify(self, backup: str) -> Manifest:
        """Read all of a backup; return what it says of itself.

        Raises:
            ConfigError: Its key is not given.
            DamagedBackupError: It is not whole.
        """
        manifest = self.read_manifest(backup)
        states = sum(map(len, self.read_states(manifest)))
        names = sorted(self.read_configuration(manifest))
        if (states, names) != (manifest.states, manifest.configuration):
            raise DamagedBackupError(backup, f"its files hold other than {NAME} says")
        return manifest

    def read_states(self, manifest: Manifest) -> Iterator[list[Delta]]:
        """Yield all states of a backup.

        Raises:
            ServiceError: As `verify`.
        """
        for file in manifest.files:
            if file.name != CONFIGURATION:
                yield from read_states(self._read(manifest.id, file.name), manifest.id, file, self.keys)

    def read_configuration(self, manifest: Manifest) -> dict[str, bytes]:
        """Return the files of configuration of a backup.

        Raises:
            ServiceError: As `verify`.
        """
        files: dict[str, bytes] = {}
        for file in manifest.files:
            if file.name == CONFIGURATION:
                files |= read_configuration(self._read(manifest.id, file.name), manifest.id, file, self.keys)
        return files

    def prune(self, retention: Retention, report: Report, *, taken: str = "") -> None:
        """Remove the backups that retention does not keep; of those that are whole the newest stays in any case.

        Those of the future count towards no period, and stay until their time has come: either the clock that named
        them was ahead, or this one is behind.

        Args:
            retention: Which to keep.
            report: Called with a line for each that is removed, and for those of the future.
            taken: One that stays, whatever its time: it was just taken.

        Raises:
            ServiceError: None is whole, so none is removed.
            OSError: The destination failed.
        """
        with self.destination.lock():
            backups = self.destination.backups()
            past, future = self._split(backups)
            if future:
                report(f"{_show_future(future)}: they count towards no period, and are not removed")
            going = sorted(set(past) - choose_kept(past, retention) - {taken})
            if not going:
                return
            good = self._find_good(past)
            for backup in going:
                if backup != good:
                    self.destination.remove(backup)
                    report(f"removed {backup}")

    def _split(self, backups: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the ids of backups up to now, and those of the future, the oldest first; clocks may drift a little."""
        latest = make_id(self.clock() + DRIFT_SECONDS_MAX)
        return [each for each in backups if each <= latest], [each for each in backups if each > latest]

    def _find_good(self, backups: Sequence[str]) -> str:
        error: ServiceError | None = None
        for backup in reversed(backups):
            try:
                return self.verify(backup).id
            except ServiceError as found:
                error = error or found
        assert error is not None, "there are backups to remove"  # noqa: S101
        raise error

    def _read(self, backup: str, name: str) -> bytes:
        try:
            return self.destination.read(backup, name)
        except FileNotFoundError as error:
            raise DamagedBackupError(backup, f"{name} is missing") from error


async def take(
    cluster: Cluster,
    archive: Archive,
    report: Report,
    *,
    configuration: Mapping[str, bytes],
    chart_version: str = "",
    is_verified: bool = True,
) -> Manifest:
    """Take a backup of all nodes while they go on reading and writing, and tell the nodes of it.

    Everything that they acknowledged before is in it, but for what only nodes hold that are down.

    Args:
        cluster: The nodes.
        archive: Where it goes.
        report: Called with a line of progress.
        configuration: Files to keep in it, by name.
        chart_version: Of the release.
        is_verified: Read it back before it counts as a success.

    Raises:
        ServiceError: A slot has no owner that answers, another backup is under way, or nodes came and went.
        OSError: The destination is full or failed.
    """
    began = archive.clock()
    try:
        with archive.destination.lock():
            manifest = await _try_repeatedly(cluster, archive, report, configuration, chart_version)
        if is_verified:
            await asyncio.to_thread(archive.verify, manifest.id)
    except (ServiceError, OSError):
        with contextlib.suppress(ServiceError):
            await _tell(cluster, FAILURE_KEY, Failure(archive.clock()))
        raise
    await _tell(cluster, SUCCESS_KEY, Success(began, archive.clock(), manifest.size_bytes, manifest.keys))
    return manifest


async def restore(cluster: Cluster, archive: Archive, backup: str, report: Report) -> Manifest:
    """Join all states of a backup into their owners; all of it is checked before anything is sent.

    A join only adds, and joined again a state changes nothing: an interrupted restore is simply begun again.

    Raises:
        ServiceError: The backup is not whole, or a slot has no owner that answers, or states were refused; all is
            restored, and keys hold several types.
    """
    manifest = await asyncio.to_thread(archive.verify, backup)
    refused = sent = 0
    async with connect(cluster.operator, cluster.peers, cluster.config) as nodes:
        nodes.check_covered(list(nodes.channels))
        for states in archive.read_states(manifest):
            refused += await nodes.restore(states)
            sent += len(states)
            if sent * 10 // manifest.states > (sent - len(states)) * 10 // manifest.states:
                report(f"restored {sent} of {manifest.states} states")
        collisions = await nodes.find_collisions()
    restored = {delta.key for states in archive.read_states(manifest) for delta in states} if collisions else set()
    colliding = sorted(restored & collisions.keys())
    for key in colliding[:_REPORTED_KEYS_MAX]:
        shown, *others = collisions[key]
        report(f"key {key!r} is shown as {shown}, and holds {', '.join(others)}, too")
    if refused:
        raise RefusedStatesError(refused)
    if colliding:
        raise CollidingTypesError(len(colliding))
    return manifest


async def _tell(cluster: Cluster, key: str, record: Success | Failure) -> None:
    async with connect(cluster.operator, cluster.peers, cluster.config) as nodes:
        await nodes.write(key, TYPE, encode_operation(record))


async def _try_repeatedly(
    cluster: Cluster, archive: Archive, report: Report, configuration: Mapping[str, bytes], chart_version: str
) -> Manifest:
    end = time.monotonic() + _UNDER_WAY_SECONDS_MAX
    attempts = 0
    while True:
        backup = make_id(archive.clock())
        try:
            async with connect(cluster.operator, cluster.peers, cluster.config) as nodes:
                return await _take_once(
                    nodes, archive, backup, report, configuration=configuration, chart_version=chart_version
                )
        except ServiceError as error:
            archive.destination.abandon(backup)
            attempts += error.code in _PASSING
            is_waiting = error.code == "backup_under_way" and time.monotonic() < end
            if not is_waiting and (error.code not in _PASSING or attempts == ATTEMPTS_MAX):
                raise
            report(f"{error.message}; trying again")
        except BaseException:
            archive.destination.abandon(backup)
            raise
        await asyncio.sleep(_UNDER_WAY_PAUSE_SECONDS)


async def _take_once(
    nodes: Nodes,
    archive: Archive,
    backup: str,
    report: Report,
    *,
    configuration: Mapping[str, bytes],
    chart_version: str,
) -> Manifest:
    began = archive.clock()
    nodes.check_covered(list(nodes.channels))
    readings = await nodes.read(f"{backup}-{archive.randomness.getrandbits(64):016x}")
    nodes.check_covered([reading.node_id for reading in readings if reading.is_synced])
    _compare_clocks(began, readings, report)
    files = _Files(archive, backup)
    files.maker.add_configuration(configuration)
    await files.write()
    merge = Merge([reading.parts() for reading in readings])
    async for states in merge:
        files.maker.add_states(states)
        if len(files.maker) >= FILE_BYTES_MAX:
            await files.write()
    if len(files.maker):
        await files.write()
    check_unmoved(readings)
    manifest = Manifest(
        format=FORMAT,
        id=backup,
        began_at=_show_time(began),
        ended_at=_show_time(archive.clock()),
        service_version=VERSION,
        chart_version=chart_version,
        key_id=archive.keys[0].id if archive.keys else "",
        nodes=[Source(each.node_id, each.replica, each.total) for each in sorted(readings, key=lambda r: r.node_id)],
        missed=nodes.missed,
        keys=merge.keys,
        states=merge.states,
        configuration=sorted(configuration),
        files=files.written,
    )
    encoded = encode_manifest(manifest, archive.keys)
    await asyncio.to_thread(archive.destination.publish, backup, encoded)
    return decode_manifest(encoded, backup, archive.keys)


class _Files:
    """The files of a backup under way: that of the configuration first."""

    def __init__(self, archive: Archive, backup: str) -> None:
        self._archive = archive
        self._backup = backup
        self.written: list[File] = []
        self.maker = self._make(CONFIGURATION)

    async def write(self) -> None:
        """Write the file that is being made, and begin the next."""
        file, data = self.maker.finish()
        # Beside the event loop: nodes that are not asked for a minute take the backup for abandoned.
        await asyncio.to_thread(self._archive.destination.write, self._backup, file.name, data)
        self.written.append(file)
        self.maker = self._make(states_name(len(self.written) - 1))

    def _make(self, name: str) -> FileMaker:
        key = self._archive.keys[0] if self._archive.keys else None
        return FileMaker(self._backup, name, key, self._archive.randomness)


def _compare_clocks(began: float, readings: Sequence[Reading], report: Report) -> None:
    """Report if the clock that names this backup differs from those of nodes."""
    offset = max((began - reading.started_at for reading in readings), key=abs)
    if abs(offset) > DRIFT_SECONDS_MAX:
        report(f"this machine's clock is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} a node's: set it")


def _show_future(backups: Sequence[str]) -> str:
    if len(backups) == 1:
        return f"the backup {backups[0]} is of the future"
    return f"{len(backups)} backups are of the future, {backups[0]} to {backups[-1]}"


def _show_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class RefusedStatesError(ServiceError):
    """Some of a backup's states were not taken."""

    def __init__(self, count: int) -> None:
        super().__init__(
            "states_refused",
            f"{count} states were refused, all others are restored",
            "see the nodes' logs",
        )


class CollidingTypesError(ServiceError):
    """Keys of a backup hold several types, once all of it is restored."""

    def __init__(self, count: int) -> None:
        super().__init__(
            "types_collide",
            f"everything is restored, and {count} of its keys hold several types, of which readers see one",
            "see GET /v1/conflicts; read, write or delete each of them by its name with ?type=",
        )
