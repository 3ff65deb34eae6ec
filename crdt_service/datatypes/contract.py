"""What every data type promises; tests/unit/service/test_law.py holds each one to it.

A delta is a state: joining it is all that replication ever does. States are lattices, so deltas may be lost, repeated
or reordered, and a repair may send the whole state instead.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who writes and when.

    Attributes:
        replica: The id that names this replica's dots and counter entries.
        tick: Returns a fresh hybrid logical stamp.
    """

    replica: str
    tick: Callable[[], int]


class Datatype(ABC, Generic[S]):
    """One replicated type; instances hold no state of their own.

    Attributes:
        name: Its name in the API.
        tag: Its number on the wire and on disk, 1 to 127, never reused.
        version: The version of its encoding.
    """

    name: str
    tag: int
    version: int

    @abstractmethod
    def empty(self) -> S:
        """Return the bottom state, from which nothing was written."""

    @abstractmethod
    def apply(self, state: S, pending: S, op: bytes, origin: Origin) -> S:
        """Return the delta of a JSON operation on ``state`` joined with ``pending``; change neither.

        `pending` is what the current batch has done and no disk has yet.

        Raises:
            OperationError: The operation is malformed or exceeds a limit.
        """

    @abstractmethod
    def join(self, state: S, delta: S) -> S:
        """Return the least upper bound; may change and return `state`, never `delta`; costs the size of `delta`."""

    @abstractmethod
    def value(self, state: S) -> object:
        """Return what readers see, as something that JSON can hold."""

    @abstractmethod
    def encode(self, state: S) -> bytes:
        """Return the canonical bytes: equal states, equal bytes."""

    @abstractmethod
    def decode(self, data: bytes) -> S:
        """Return the state of canonical bytes.

        Raises:
            MalformedError: The bytes break the format, its limits, or are not canonical.
        """

    def digest(self, state: S) -> bytes:
        """Return 8 bytes that tell unequal states apart."""
        return hashlib.blake2b(self.encode(state), digest_size=8).digest()

    def newest_stamp(self, state: S) -> int:
        """Return the newest hybrid logical stamp in the state, 0 if it carries none."""
        return 0
