"""What every data type promises; tests/unit/service/test_law.py holds each one to it.

A delta is a state: joining it is all that replication ever does. States are lattices, so deltas may be lost, repeated
or reordered, and a repair may send the whole state instead.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who writes and when.

    Attributes:
        replica: The id that names this replica's dots and counter entries.
        tick: Returns a fresh hybrid logical stamp.
        floor: Highest counter of the replica's dots in keys that were purged: later dots exceed it, so none is reused.
        now_milliseconds: Returns the latest wall clock of the nodes, of which stamps may be ahead by far where one was
            wrong; None if stamps are to tell.
        may_note_presence: Whether all who get the write can read that a key is there and empty; the release before
            takes that for malformed.
    """

    replica: str
    tick: Callable[[], int]
    floor: int = 0
    now_milliseconds: Callable[[], int] | None = None
    may_note_presence: bool = True


class Datatype(ABC, Generic[S]):
    """One replicated type; instances hold no state of their own.

    Attributes:
        name: Its name in the API.
        tag: Its number on the wire and on disk, 1 to 127, never reused.
        version: The version of its encoding.
        operation: Its operations as JSON: one member of the struct, or its one required member, names what is done.
        can_clear: Whether ``{"clear": true}`` empties a key of it, so that it reads as missing and can be purged.
        is_repeatable: Whether any operation applied twice, at two replicas and whenever, leaves what it leaves once.
    """

    name: str
    tag: int
    version: int
    operation: type[msgspec.Struct]
    can_clear: bool = False
    is_repeatable: bool = False

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

    def restore(self, data: bytes) -> S:
        """Return the state of bytes that `encode` made and a checksum has guarded since; need not check them again.

        Raises:
            MalformedError: They are none.
        """
        return self.decode(data)

    def split(self, state: S, bytes_max: int) -> Iterator[S]:
        """Yield states whose join is `state`, each encoded in about `bytes_max` or less (arXiv:1803.02750, section 4).

        Any of them may be joined alone, in any order and again. A type whose states are small yields `state` itself;
        what cannot be divided may be larger.
        """
        yield state

    def digest(self, state: S) -> bytes:
        """Return 8 bytes that tell unequal states apart."""
        return hashlib.blake2b(self.encode(state), digest_size=8).digest()

    def is_blind(self, op: bytes) -> bool:
        """Tell whether what an operation does is the same whatever its writer holds of the key.

        If so, a node that holds nothing of it may take the operation: the delta joins to the same value. Limits and
        stamps alone depend on what a node has seen. One that is malformed counts as such: `apply` refuses it anywhere.
        """
        return False

    def is_vacant(self, state: S) -> bool:
        """Tell whether nothing is there to be read, and only what was seen go is remembered; vacant ones join to such.

        A type that cannot be emptied is vacant only where nothing was ever written.
        """
        return bool(state == self.empty())

    def newest_dot(self, state: S, replica: str) -> int:
        """Return the highest counter of a dot of `replica` in the state, 0 if it has none."""
        return 0

    def newest_stamp(self, state: S) -> int:
        """Return the newest hybrid logical stamp in the state, 0 if it carries none."""
        return 0
