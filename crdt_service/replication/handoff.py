"""Handing slots over: when a node may forget what it holds and does not own any more.

Under an even document it may once a majority of a slot's owners has confirmed, under that document, to hold all that
this node holds. Never under an odd one: a change that is given up leaves the slot with old owners, who would lack it.

Where there is no document yet, every owner must have confirmed since the placement last changed here, and each must
have seen itself as an owner, without a break, from before that comparison until after it. Views of the placement may
differ: of two nodes that count on each other, the one that confirmed last saw itself as an owner then. So it collects
its own confirmations later than that, and the other must be an owner again by then, and confirms only what it holds.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial


class Handoff:
    """Confirmations by slot: which owner holds all of which version of the slot."""

    def __init__(self) -> None:
        self._confirmed: dict[int, dict[str, int]] = {}

    def reset(self) -> None:
        """Forget all confirmations: the placement has changed."""
        self._confirmed.clear()

    def confirm(self, owner: str, versions: Mapping[int, int]) -> None:
        """Note that `owner` owns these slots and holds all that they held at these versions."""
        for slot, version in versions.items():
            self._confirmed.setdefault(slot, {})[owner] = version

    def done(
        self, surplus: Collection[int], versions: Sequence[int], is_enough: Callable[[int, Callable[[str], bool]], bool]
    ) -> list[int]:
        """Return those of the slots held and not owned that enough owners hold as they are, at `versions` by slot."""
        return [slot for slot in surplus if is_enough(slot, partial(self._is_confirmed, slot, versions[slot]))]

    def _is_confirmed(self, slot: int, version: int, owner: str) -> bool:
        return self._confirmed.get(slot, {}).get(owner) == version
