"""What tells that a file changed without reading it."""

from pathlib import Path

FileVersion = tuple[int, int, int] | None


def read_version(path: Path) -> FileVersion:
    """Return what changes whenever a file is written to, renamed over, or behind another link; None without a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
