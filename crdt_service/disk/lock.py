"""A directory that one process at a time may write to, by a lock that ends with its holder, even with kill -9."""

import fcntl
import os
from pathlib import Path


def take_lock(directory: Path, mode: int) -> int | None:
    """Take the directory; return the descriptor that holds it until it is closed, or None while another process has it.

    Args:
        directory: Which; the file `lock` in it is made when it is missing.
        mode: Permissions of that file.

    Raises:
        OSError: The file cannot be opened.
    """
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
