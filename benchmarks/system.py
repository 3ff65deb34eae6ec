"""What every system under measurement offers, so that one loop can drive them all."""

import asyncio
import contextlib
import os
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

NODES = 3
HOT_KEY = "hot"


class MissingError(Exception):
    """The system cannot be had here; the text says why and what would help."""


class Client(ABC):
    """One connection to one node, with one request under way at a time."""

    @abstractmethod
    async def write(self, key: str, value: str) -> None:
        """Write durably; return once it is acknowledged."""

    @abstractmethod
    async def fill(self, pairs: list[tuple[str, str]]) -> None:
        """Write many keys in whatever way is fastest; not part of any measured rate."""

    @abstractmethod
    async def has(self, key: str) -> bool:
        """Tell whether this node, by itself, shows the key."""

    async def see(self, key: str) -> None:
        """Return as soon as this node shows the key."""
        while not await self.has(key):
            pass

    async def increment(self) -> None:
        """Add one to the hot counter durably."""
        raise NotImplementedError

    async def count(self) -> int:
        """Return the hot counter as this node shows it."""
        raise NotImplementedError

    @abstractmethod
    async def close(self) -> None:
        """End the connection."""


class System(ABC):
    """Three nodes of one system below one directory; use as a context manager.

    Attributes:
        name: What `--only` calls it.
        acknowledges: What an acknowledged write has reached.
        write_nodes: The nodes that take writes.
        can_count: Whether it has a counter, or compare-and-swap to make one of.
    """

    name: ClassVar[str]
    acknowledges: ClassVar[str]
    write_nodes: ClassVar[tuple[int, ...]] = (0, 1, 2)
    can_count: ClassVar[bool] = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @abstractmethod
    def __enter__(self) -> Self:
        """Start all nodes."""

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """End all nodes."""

    @abstractmethod
    def pids(self) -> list[int]:
        """Return the processes of the nodes."""

    @abstractmethod
    def kill(self, node: int) -> None:
        """End a node as a crash would."""

    @abstractmethod
    def start(self, node: int) -> None:
        """Start an ended node on its old data."""

    @abstractmethod
    async def connect(self, node: int) -> Client:
        """Open a connection to one node."""

    async def prepare(self) -> None:  # noqa: B027 - most need nothing.
        """Do once what must be done before the first write."""

    async def is_serving(self, node: int, key: str) -> bool:
        """Tell whether a node that may be starting shows a key."""
        with contextlib.suppress(OSError, EOFError, ValueError):
            async with asyncio.timeout(2):
                client = await self.connect(node)
                try:
                    return await client.has(key)
                finally:
                    await client.close()
        return False


def find_binary(name: str, remedy: str) -> str:
    """Return a program's path, from the cache of `make bench` or PATH.

    Raises:
        MissingError: It is in neither.
    """
    cache = Path(os.environ.get("JARVIS_CACHE", "~/.cache/jarvis")).expanduser() / "bench/bin"
    found = shutil.which(name, path=f"{cache}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if found is None:
        raise MissingError(f"{name} is not installed: {remedy}")
    return found
