"""Copying slots: what a node has to read before it answers for a slot alone, or counts as one that has it all; pure.

Each next owner reads a slot from a majority of its old ones, each of which has taken up the same document before it
answers. Of whatever a majority acknowledged under an earlier document, one of them holds it. Owners that stay do the
same: they may lack what the others acknowledged.
"""

from collections.abc import Iterable
from typing import NamedTuple

from crdt_service.kernel.slot import SLOTS

Slots = frozenset[int]
_NONE: Slots = frozenset()


class Source(NamedTuple):
    """Whom a slot may be read from, by name, and how many of them it must be."""

    names: tuple[str, ...]
    needed: int


class Copies:
    """Slots that are to be copied, and who was read so far.

    Attributes:
        needed: The slots that are to be copied still.
    """

    def __init__(self) -> None:
        self.needed: dict[int, Source] = {}
        self._read: dict[int, set[str]] = {}

    def begin(self, me: str, sources: dict[int, Source]) -> None:
        """Copy these slots and no others from now on.

        Args:
            me: This node's name: what it holds itself counts as read.
            sources: By slot; those that are to be copied already from the same go on.
        """
        kept = {slot for slot, source in sources.items() if self.needed.get(slot) == source}
        self._read = {
            slot: self._read[slot] if slot in kept else {me} & set(source.names) for slot, source in sources.items()
        }
        self.needed = dict(sources)

    @property
    def complete(self) -> Slots:
        """The slots of which enough was read."""
        return self._complete(self.needed)

    def wanted(self, name: str) -> Slots:
        """Return the slots that are to be read from `name`."""
        return frozenset(
            slot for slot, source in self.needed.items() if name in source.names and name not in self._read[slot]
        )

    def note(self, name: str, slots: Iterable[int]) -> Slots:
        """Note that all was read that `name` holds of some slots; return those that are complete now."""
        read = [slot for slot in slots if slot in self.needed]
        for slot in read:
            self._read[slot].add(name)
        return self._complete(read)

    def _complete(self, slots: Iterable[int]) -> Slots:
        return frozenset(slot for slot in slots if len(self._read[slot]) >= self.needed[slot].needed)


def encode_bits(slots: Slots) -> bytes:
    """Return a bit per slot, the lowest first; empty for none."""
    return sum(1 << slot for slot in slots).to_bytes(SLOTS // 8, "little") if slots else b""


def decode_bits(data: bytes) -> Slots:
    """Return the slots whose bits are set."""
    bits = int.from_bytes(data, "little")
    return frozenset(slot for slot in range(SLOTS) if bits >> slot & 1) if bits else _NONE
