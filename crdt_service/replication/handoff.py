"""Handing slots over: when a node may forget what it holds and does not own any more.

It may once every owner has confirmed to hold all that this node holds, since the placement last changed here, and each
saw itself as an owner, without a break, from before that comparison until after it. Views of the placement may differ:
of two nodes that count on each other, the one that confirmed last saw itself as an owner then, so it collects its own
confirmations later than that, and the other must be an owner again by then, and confirms only what it holds.
"""

from collections.abc import Callable, Collection, Mapping, Sequence


class Handoff:
    """Confirmations by slot: which owner holds all of which version of the slot."""

    def __init__(self) -> None:
        self._confirmed: dict[int, dict[str, int]] = {}

    def reset(self) -> None:
        """Forget all confirmations: the placement has changed."""
        self._confirmed.clear()

    def confirm(self, node_id: str, versions: Mapping[int, int]) -> None:
        """Note that `node_id` owns these slots and holds all that they held at these versions."""
        for slot, version in versions.items():
            self._confirmed.setdefault(slot, {})[node_id] = version

    def done(
        self, surplus: Collection[int], versions: Sequence[int], owners: Callable[[int], tuple[str, ...]]
    ) -> list[int]:
        """Return those of the slots held and not owned that every owner holds as they are, at `versions` by slot."""
        return [
            slot
            for slot in surplus
            if owners(slot) and all(self._is_confirmed(slot, owner, versions[slot]) for owner in owners(slot))
        ]

    def _is_confirmed(self, slot: int, owner: str, version: int) -> bool:
        return self._confirmed.get(slot, {}).get(owner) == version
