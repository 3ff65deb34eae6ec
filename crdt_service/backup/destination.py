"""Where backups are: a folder of a volume. What a kill left behind is no backup, and goes with the next one."""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from crdt_service.backup.manifest import NAME, is_id
from crdt_service.disk.lock import LockError, take_lock
from crdt_service.kernel.error import ConfigError, ServiceError

_MODE = 0o640
_PART, _GONE = ".part", ".gone"
_UNFINISHED = re.compile(rf"\.(.+)(?:{re.escape(_PART)}|{re.escape(_GONE)})")
_BESIDE = ("lock", "lost+found")
# So many files of others are named.
STRANGERS_MAX = 10
_log = logging.getLogger(__name__)


class Destination(Protocol):
    """Keeps backups by id. Each method may raise OSError, or ServiceError with what to do."""

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Keep others from changing anything meanwhile, and remove what a kill left behind."""

    def backups(self) -> list[str]:
        """Return the ids of the backups that count, the oldest first."""

    def write(self, backup: str, name: str, data: bytes) -> None:
        """Write a file of a backup that does not count yet."""

    def publish(self, backup: str, manifest: bytes) -> None:
        """Have the backup count, once all of it is on the medium."""

    def abandon(self, backup: str) -> None:
        """Remove a backup that does not count."""

    def read(self, backup: str, name: str) -> bytes:
        """Return a file of a backup.

        Raises:
            FileNotFoundError: There is none.
        """

    def remove(self, backup: str) -> None:
        """Remove a backup; killed half-way, it does not count any more."""


class Folder:
    """Backups as folders of one folder; each gets its name by a rename, after all of it was synced."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """See `Destination`.

        Raises:
            ConfigError: The folder cannot be used.
            ServiceError: Another process has it.
        """
        try:
            descriptor = take_lock(self._path, _MODE)
        except LockError as error:
            raise ConfigError(
                f"--destination {self._path}: it cannot be locked: {error.strerror}", error.remedy
            ) from error
        except OSError as error:
            raise ConfigError(
                f"--destination {self._path}: {error.strerror}", "give a folder that this user may write"
            ) from error
        if descriptor is None:
            raise ServiceError(
                "backup_under_way", f"another backup is being written to {self._path}", "wait for its end"
            )
        try:
            self._tidy()
            yield
        finally:
            os.close(descriptor)

    def _tidy(self) -> None:
        """Remove what a kill left behind; leave alone what others put here, and say so."""
        strangers = []
        for path in sorted(self._path.iterdir()):
            unfinished = _UNFINISHED.fullmatch(path.name)
            if unfinished is not None and is_id(unfinished[1]) and path.is_dir():
                shutil.rmtree(path)
            elif path.name not in _BESIDE and not (is_id(path.name) and path.is_dir()):
                strangers.append(path.name)
        if strangers:
            _log.warning(
                "%s: left alone, for they are no backups: %s", self._path, ", ".join(strangers[:STRANGERS_MAX])
            )

    def backups(self) -> list[str]:
        """See `Destination`.

        Raises:
            ConfigError: The folder cannot be read.
        """
        try:
            return sorted(path.name for path in self._path.iterdir() if is_id(path.name) and path.is_dir())
        except OSError as error:
            raise ConfigError(f"--destination {self._path}: {error.strerror}", "check the path") from error

    def write(self, backup: str, name: str, data: bytes) -> None:
        """See `Destination`."""
        folder = self._part(backup)
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def publish(self, backup: str, manifest: bytes) -> None:
        """See `Destination`.

        Raises:
            ConfigError: There is such a backup already.
        """
        if (self._path / backup).exists():
            raise ConfigError(f"backup {backup}: there is one of this second already", "take it again")
        self.write(backup, NAME, manifest)
        _sync(self._part(backup))
        self._part(backup).rename(self._path / backup)
        _sync(self._path)

    def abandon(self, backup: str) -> None:
        """See `Destination`."""
        shutil.rmtree(self._part(backup), ignore_errors=True)

    def read(self, backup: str, name: str) -> bytes:
        """See `Destination`."""
        return (self._path / backup / name).read_bytes()

    def remove(self, backup: str) -> None:
        """See `Destination`."""
        gone = self._path / f".{backup}{_GONE}"
        (self._path / backup).rename(gone)
        _sync(self._path)
        shutil.rmtree(gone)

    def _part(self, backup: str) -> Path:
        return self._path / f".{backup}{_PART}"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
