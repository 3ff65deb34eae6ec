"""A directory that one process at a time may write to, by a lock that ends with its holder, even with kill -9."""

import fcntl
import os
from pathlib import Path


class LockError(OSError):
    """A file system has no locks, or they failed: NFS without its lock service, and some drivers of volumes."""

    remedy = "use a volume whose file system has locks (flock), or have them work; no process need be looked for"


def take_lock(directory: Path, mode: int) -> int | None:
    """Take the directory; return the descriptor that holds it until it is closed, or None while another process has it.

    Args:
        directory: Which; the file `lock` in it is made when it is missing.
        mode: Permissions of that file.

    Raises:
        LockError: The file system refuses the lock itself.
        OSError: The file cannot be opened.
    """
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise LockError(error.errno, error.strerror) from error
    return descriptor
