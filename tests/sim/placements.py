"""What nodes durably know of placements, as the judges see it: which were taken up, and who could acknowledge.

A set of owners would acknowledge a majority write of a slot if enough of them have taken up one and the same document.
Two such sets under two documents are disjoint, since a directory has taken up one at a time: then neither a majority
read nor a majority write of the one would meet those of the other.
"""

from msgspec.msgpack import encode

from crdt_service.kernel.slot import SLOTS, slot_of
from crdt_service.membership.document import is_joint, replicas_of
from crdt_service.membership.ownership import follow_document
from crdt_service.wire.message import Concern


class Placements:
    """What is durably known.

    Attributes:
        documents: Each that was ever taken up, by number.
        states: What each directory durably knows, by its name; not of those that are lost.
        findings: What must never be.
    """

    def __init__(self):
        self.documents = {}
        self.states = {}
        self.findings = []
        self._names = {}
        self._lost = set()
        self._accepted = {}
        self._ownerships = {}
        self._pairs = {}

    @property
    def newest(self):
        """The document with the greatest number, None before the first."""
        return self.documents[max(self.documents)] if self.documents else None

    def note(self, node, replica, state):
        """Note what a node's directory durably knows now."""
        self._names[node] = replica
        if state.accepted is not None:
            self._accepted.setdefault(encode(state.accepted), set()).add(replica)
        if state.document is not None:
            self._note_document(node, state.document)
        if replica in self._lost:
            return
        before = self.states.get(replica)
        self.states[replica] = state
        if before is None or before.document != state.document:
            self._find_two_majorities()

    def lose(self, node):
        """Note that a node's directory is gone, or is an older copy of itself from now on."""
        replica = self._names.get(node)
        if replica is not None:
            self._lost.add(replica)
            self.states.pop(replica, None)

    def spares(self, node):
        """Tell whether each majority outlives the loss of a node's disk, one more than were lost already."""
        document = self.newest
        if document is None or any(state.accepted is not None for state in self.states.values()):
            return False
        ownership = self.ownership(document.epoch)
        lost = self._lost | {self._names.get(node)}
        groups = {group for slot in range(SLOTS) for group in ownership.groups(slot)}
        return all(2 * len(lost.intersection(group.owners)) < group.size for group in groups) and (
            2 * len(lost & replicas_of(document.old)) < len(document.old.seats)
        )

    def ownership(self, epoch):
        """Return who owns what under a document."""
        if epoch not in self._ownerships:
            self._ownerships[epoch] = follow_document(self.documents[epoch])
        return self._ownerships[epoch]

    def owners(self, key):
        """Return the nodes that own a key under the newest document."""
        return self.ownership(max(self.documents)).owners(slot_of(key)) if self.documents else ()

    def has_always_owned(self, node, key):
        """Tell whether a node was an owner of a key under each document, so that it never handed it over."""
        even = [epoch for epoch in self.documents if epoch % 2 == 0]
        return all(node in self.ownership(epoch).owners(slot_of(key)) for epoch in even)

    def _note_document(self, node, document):
        known = self.documents.get(document.epoch)
        if known is None:
            self._check_decided(node, document)
            self.documents[document.epoch] = document
        elif known != document:
            self.findings.append(f"{node} has taken up another placement {document.epoch} than others")

    def _check_decided(self, node, document):
        before = self._find_before(document)
        if before is None and self.documents:
            self.findings.append(f"{node} has taken up placement {document.epoch}, which follows none")
            return
        if before is not None and not _follows(before, document):
            self.findings.append(f"{node} has taken up placement {document.epoch}, which cannot follow the one before")
        voters = replicas_of((before or document).old)
        accepted = voters & self._accepted.get(encode(document), set())
        if 2 * len(accepted) <= len(voters):
            count = f"{len(accepted)} of {len(voters)}"
            self.findings.append(f"{node} has taken up placement {document.epoch}, which {count} have accepted")

    def _find_before(self, document):
        """Return the document that this one follows, None if that is not known."""
        before = self.documents.get(document.epoch - 1)
        if before is None and document.reason == "accept_loss":  # It may take the place of a change under way.
            before = self.documents.get(document.epoch - 2)
        return before

    def _find_two_majorities(self):
        by_epoch = {}
        for replica, state in self.states.items():
            if state.document is not None:
                by_epoch.setdefault(state.document.epoch, set()).add(replica)
        for earlier, first in by_epoch.items():
            for later, second in by_epoch.items():
                if earlier < later and self._is_split(earlier, first, later, second):
                    self.findings.append(f"{sorted(first)} would acknowledge a write, and {sorted(second)} another one")

    def _is_split(self, earlier, first, later, second):
        if (earlier, later) not in self._pairs:
            one, two = self.ownership(earlier), self.ownership(later)
            self._pairs[earlier, later] = {(one.groups(slot), two.groups(slot)) for slot in range(SLOTS)}
        return any(
            _is_majority(groups, first) and _is_majority(others, second)
            for groups, others in self._pairs[earlier, later]
        )


def _is_majority(groups, replicas):
    return all(len(replicas.intersection(group.owners)) >= group.needed(Concern.MAJORITY) for group in groups)


def _follows(before, document):
    if document.reason == "accept_loss":
        return replicas_of(document.old) < replicas_of(before.old)
    if is_joint(document):
        return not is_joint(before) and document.old == before.old
    return is_joint(before) and document.old in (before.old, before.next)
