"""Copies of damaged files, kept for whoever wants to know what happened or to read more out of them."""

import logging
import re

from crdt_service.disk.disk import Disk

# Raising it keeps the traces of more incidents, each as large as a log.
COPIES_MAX = 2
_PART_BYTES = 1 << 20
_NAME = re.compile(r"damaged-(?:mark|log-\d+)-(\d+)")

_log = logging.getLogger(__name__)


def keep_copy(disk: Disk, name: str) -> None:
    """Copy a file to `damaged-<name>-<n>` and remove all but the newest such copies.

    A disk without room for it is logged: recovery goes on without a copy.
    """
    copies = _find_copies(disk)
    copy = f"damaged-{name}-{max(copies, default=0) + 1}"
    try:
        _copy(disk, name, f"{copy}.new")
        disk.rename(f"{copy}.new", copy)
        for _, old in sorted(_find_copies(disk).items())[:-COPIES_MAX]:
            disk.remove(old)
        disk.sync_directory()
    except OSError as error:
        _log.warning("%s: no copy of the damaged %s could be kept: %s", disk.directory, name, error)
        return
    _log.warning("%s: the damaged %s is kept as %s", disk.directory, name, copy)


def _find_copies(disk: Disk) -> dict[int, str]:
    return {int(found[1]): name for name in disk.names() if (found := _NAME.fullmatch(name))}


def _copy(disk: Disk, name: str, copy: str) -> None:
    descriptor = disk.open(copy)
    try:
        offset_bytes = 0
        while part := disk.read(name, offset_bytes, _PART_BYTES):
            disk.write(descriptor, part, offset_bytes)
            offset_bytes += len(part)
        disk.sync(descriptor)
    except OSError:
        disk.remove(copy)
        raise
    finally:
        disk.close(descriptor)
