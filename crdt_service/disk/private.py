"""Writes files that hold secrets."""

import os
from pathlib import Path


def replace_private(path: Path, data: bytes) -> None:
    """Replace a file in one step, once the new content is synced; its owner alone may read it.

    Raises:
        OSError: It cannot be written.
    """
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
        target.write(data)
        target.flush()
        os.fsync(target.fileno())
    draft.replace(path)
