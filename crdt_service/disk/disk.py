"""The few file operations that the journal needs, so that a test can make each of them fail."""

import os
from pathlib import Path

from crdt_service.disk.lock import LockError, take_lock
from crdt_service.kernel.error import ConfigError

_MODE = 0o600


class Disk:
    """The real disk below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def lock(self) -> int:
        """Take the directory for this process; return the descriptor that holds it, until it is closed.

        Raises:
            ConfigError: The directory cannot be used, or another process has it.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            descriptor = take_lock(self.directory, _MODE)
        except LockError as error:
            raise ConfigError(
                f"--data-dir {self.directory}: it cannot be locked: {error.strerror}", error.remedy
            ) from error
        except OSError as error:
            raise ConfigError(
                f"--data-dir {self.directory}: {error.strerror}", "give a directory that this user may write"
            ) from error
        if descriptor is None:
            raise ConfigError(
                f"--data-dir {self.directory}: another process writes there",
                "stop it, or give each node its own directory",
            )
        return descriptor

    def names(self) -> list[str]:
        """Return the names of all files."""
        return sorted(path.name for path in self.directory.iterdir())

    def size(self, name: str) -> int:
        """Return a file's size in bytes."""
        return (self.directory / name).stat().st_size

    def read(self, name: str, offset_bytes: int, size_bytes: int) -> bytes:
        """Return that many bytes of a file, fewer only at its end."""
        with (self.directory / name).open("rb", buffering=0) as file:
            file.seek(offset_bytes)
            parts = []
            while size_bytes and (part := file.read(size_bytes)):
                parts.append(part)
                size_bytes -= len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)

    def open(self, name: str) -> int:
        """Open a file for writing, made if absent; return its descriptor."""
        return os.open(self.directory / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _MODE)

    def allocate(self, descriptor: int, offset_bytes: int, size_bytes: int) -> None:
        """Enlarge a file by zeros whose blocks are reserved, so that a sync of what is written there is cheaper."""
        os.posix_fallocate(descriptor, offset_bytes, size_bytes)

    def write(self, descriptor: int, data: bytes, offset_bytes: int) -> None:
        """Write all of `data` at an offset."""
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset_bytes)
            view = view[written:]
            offset_bytes += written

    def sync(self, descriptor: int) -> None:
        """Wait until what was written is on the medium."""
        os.fdatasync(descriptor)

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Cut a file."""
        os.ftruncate(descriptor, size_bytes)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old`."""
        (self.directory / old).rename(self.directory / new)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.directory / name).unlink(missing_ok=True)

    def sync_directory(self) -> None:
        """Wait until created, renamed and removed names are on the medium."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
