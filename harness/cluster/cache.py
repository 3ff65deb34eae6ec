"""A cache of build results, keyed by the content of what they were built from.

A result is built in a scratch folder and moved into place whole, so an interrupted build leaves nothing that
looks finished, and the next one resumes with the parts that are.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path


def cache_root() -> Path:
    """The folder that holds every cached part: `$JARVIS_CACHE`, or `~/.cache/jarvis`."""
    return Path(os.environ.get("JARVIS_CACHE") or Path.home() / ".cache" / "jarvis")


def content_key(*inputs: str | bytes | Path) -> str:
    """Hash texts, bytes, files and whole folders into 12 hexadecimal digits.

    Folders count by the relative paths and contents of their files; byte-compiled Python does not count.
    """
    digest = hashlib.sha256()
    for chunk in _chunks(inputs):
        digest.update(len(chunk).to_bytes(8, "big"))
        digest.update(chunk)
    return digest.hexdigest()[:12]


def part_folder(name: str, key: str) -> Path:
    """Where `cached` puts part `name` with content `key`."""
    return cache_root() / "part" / f"{name}-{key}"


def _chunks(inputs: Iterable[str | bytes | Path]) -> Iterable[bytes]:
    for item in inputs:
        if isinstance(item, bytes):
            yield item
        elif isinstance(item, str):
            yield item.encode()
        elif item.is_dir():
            for file in sorted(path for path in item.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
                yield str(file.relative_to(item)).encode()
                yield file.read_bytes()
        else:
            yield item.read_bytes()


def cached(
    name: str, key: str, build: Callable[[Path], None], step: AbstractContextManager[None] | None = None
) -> Path:
    """Return the folder of part `name` with content `key`; call `build` on an empty scratch folder if it is missing.

    `step` is entered around the build alone: what is there already is not announced.
    Older results of the same part are removed once the new one is in place.
    """
    done = part_folder(name, key)
    if done.is_dir():
        return done
    parts = done.parent
    parts.mkdir(parents=True, exist_ok=True)
    # Two builders of one part would do the work twice and trip over each other at the end.
    with (parts / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.is_dir():
            with step or nullcontext():
                _build_whole(parts / f".{name}-{key}.scratch", done, build)
    for older in parts.glob(f"{name}-" + "[0-9a-f]" * 12):
        if older != done:
            shutil.rmtree(older, ignore_errors=True)
    return done


def _build_whole(scratch: Path, done: Path, build: Callable[[Path], None]) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        build(scratch)
        scratch.rename(done)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
