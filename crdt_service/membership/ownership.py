"""Who owns which slots under one document, and how many of them make a quorum; pure.

Owners are named by their directories, so that one that lost its disk is another owner. Before there is a document they
are named by their nodes, and follow the live members, as in the release before.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from crdt_service.kernel.slot import SLOTS
from crdt_service.membership.placement import Placement
from crdt_service.wire.message import Concern, OwnerSet, PlacementDocument

ALL = frozenset(range(SLOTS))


class Group(NamedTuple):
    """Owners of a slot that make quorums among themselves.

    Attributes:
        owners: Their names, the preferred one first.
        size: How many there should be: a node that knows of fewer must not take them for all.
    """

    owners: tuple[str, ...]
    size: int

    def needed(self, concern: Concern) -> int:
        """Return how many of them `concern` asks for."""
        if concern is Concern.ONE:
            return 1
        return self.size if concern is Concern.ALL else self.size // 2 + 1


class Ownership:
    """Owners of all slots.

    Args:
        old: Where slots are now, and where they are to be if that is another set.
        document: What it follows from; None for the live members.

    Attributes:
        epoch: The document's number, 0 without one.
        document: The document.
        members: The zone of each node that has a seat, or is a live member, by node id.
        nodes: The node id of each who has a seat, or is a live member, by name.
        replication_factor: Owners per slot.
    """

    def __init__(self, placements: tuple[Placement, ...], document: PlacementDocument | None = None) -> None:
        self.document = document
        self.epoch = 0 if document is None else document.epoch
        self.members: dict[str, str] = {}
        for placement in reversed(placements):
            self.members |= placement.members
        self.replication_factor = placements[-1].replication_factor
        self._placements = placements
        self._names = [dict[str, str]()] if document is None else [_names(document.old)]
        if document is not None and document.next is not None:
            self._names.append(_names(document.next))
        self.nodes = {name: node_id for names in self._names for node_id, name in names.items()}
        if document is None:
            self.nodes = {node_id: node_id for node_id in self.members}
        self._groups: dict[int, tuple[Group, ...]] = {}
        self._owned: dict[str, frozenset[int]] = {}

    @property
    def is_joint(self) -> bool:
        """Whether two sets own slots together."""
        return len(self._placements) > 1

    @property
    def copies_all(self) -> bool:
        """Whether copies read every seat."""
        return self.document is not None and self.document.copies_all

    def name(self, node_id: str, replica: str) -> str:
        """Return the name of a process as an owner."""
        return node_id if self.document is None else replica

    def owners(self, slot: int) -> tuple[str, ...]:
        """Return the node ids of a slot's owners, the preferred one first and old ones before those to come."""
        if not self.is_joint:
            return self._placements[0].owners(slot)
        return tuple(dict.fromkeys(node for placement in self._placements for node in placement.owners(slot)))

    def groups(self, slot: int) -> tuple[Group, ...]:
        """Return the groups of a slot's owners, by name, of which a quorum needs its part of each."""
        groups = self._groups.get(slot)
        if groups is None:
            sets = [self._group(number, slot) for number in range(len(self._placements))]
            if self.copies_all:
                sets = sets[-1:]  # Of the old ones nothing was promised.
            groups = self._groups[slot] = tuple(dict.fromkeys(sets))
        return groups

    def owns(self, name: str) -> frozenset[int]:
        """Return the slots of which `name` is an owner, old or to come."""
        owned = self._owned.get(name)
        if owned is None:
            owned = frozenset[int]().union(*(self._owns(number, name) for number in range(len(self._placements))))
            owned = self._owned[name] = ALL if len(owned) == SLOTS else owned
        return owned

    def owned_after(self, name: str) -> frozenset[int]:
        """Return the slots that `name` owns once a change ends."""
        return self._owns(len(self._placements) - 1, name)

    def moving(self) -> frozenset[int]:
        """Return the slots whose owners change."""
        if not self.is_joint:
            return frozenset()
        if self.copies_all:
            return ALL
        return frozenset(slot for slot in range(SLOTS) if len(self.groups(slot)) > 1)

    def uncopied(self, copied: Callable[[str], frozenset[int]]) -> dict[str, int]:
        """Return how many slots each owner to come has to copy still, by node id; those that have copied all left out.

        Args:
            copied: Returns what an owner has copied in this epoch, by name.
        """
        moving = self.moving()
        left = {name: len((moving & self.owned_after(name)) - copied(name)) for name in self.nodes} if moving else {}
        return {self.nodes[name]: count for name, count in left.items() if count}

    def sources(self, slot: int) -> tuple[tuple[str, ...], int]:
        """Return (whom a copy of a slot may read, how many of them it must)."""
        if self.copies_all:
            names = tuple(self._names[0].values())
            return names, len(names)
        group = self._group(0, slot)
        return group.owners, group.needed(Concern.MAJORITY)

    def is_quorum(self, slot: int, concern: Concern, has: Callable[[str], bool]) -> bool:
        """Tell whether those of whom `has` is true are as many owners of a slot as `concern` asks for."""
        return all(sum(map(has, group.owners)) >= group.needed(concern) for group in self.groups(slot))

    def count(self) -> dict[str, int]:
        """Return how many slots each node owns once a change ends."""
        return self._placements[-1].count()

    def _group(self, number: int, slot: int) -> Group:
        placement = self._placements[number]
        owners = placement.owners(slot)
        if self.document is None:
            return Group(owners, placement.replication_factor)
        names = self._names[number]
        return Group(tuple(names[node_id] for node_id in owners), len(owners))

    def _owns(self, number: int, name: str) -> frozenset[int]:
        node_id = name
        if self.document is not None:
            node_id = next((node for node, replica in self._names[number].items() if replica == name), "")
        if node_id not in self._placements[number].members:
            return frozenset()
        placement = self._placements[number]
        return ALL if len(placement.members) <= placement.replication_factor else placement.owns(node_id)


def follow_members(members: Mapping[str, str], replication_factor: int) -> Ownership:
    """Return the owners where there is no document: the live members, by node id with their zones."""
    return Ownership((Placement(members, replication_factor),))


def follow_document(document: PlacementDocument) -> Ownership:
    """Return the owners under a document."""
    sets = (document.old,) if document.next is None else (document.old, document.next)
    return Ownership(tuple(Placement(_zones(owners), owners.factor) for owners in sets), document)


def _zones(owners: OwnerSet) -> dict[str, str]:
    return {seat.node_id: seat.zone for seat in owners.seats}


def _names(owners: OwnerSet) -> dict[str, str]:
    return {seat.node_id: seat.replica for seat in owners.seats}
