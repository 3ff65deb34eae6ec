"""What a node durably is besides its states: its names, its own commits, and how far it has those of others."""

from collections.abc import Iterable

import msgspec

from crdt_service.kernel.clock import HybridClock
from crdt_service.replication.commits import CommitLog
from crdt_service.store.batch import Batch
from crdt_service.store.store import Store
from crdt_service.wire.message import PlacementState, Step, decode_step


class Replica:
    """The identity and progress of one data directory.

    Attributes:
        id: Names the directory, its commits and its seat. It is drawn with the directory, and again where the directory
            is found to be no longer what others know it for.
        origin: Names its dots and counter entries. It is `id` until slots are handed over: with them it forgets which
            dots it gave to their keys, so from then on it writes under a new one.
        commits: Its own newest deltas.
        progress: By replica, the number up to which everything of it that concerns this one is here.
        agreed: Number of the newest agreement to purge keys that is known here, and whose tombstones and those of all
            before are; wall-clock milliseconds, 0 for none.
        promised: Number of one that this node has just voted for, 0 for none.
        floor: Highest counter that dots of `origin` had in purged keys.
        synced_at: When this node last held all that it should, in wall-clock seconds; 0 for never.
        placement: What it knows of placements.
    """

    def __init__(self, replica_id: str) -> None:
        self.id = self._drawn = replica_id
        self.origin = replica_id
        self.commits = CommitLog()
        self.progress: dict[str, int] = {}
        self.agreed = 0
        self.promised = 0
        self.floor = 0
        self.synced_at = 0.0
        self.placement = PlacementState()

    @property
    def epoch(self) -> int:
        """Number of the placement that this node has taken up, 0 for none."""
        document = self.placement.document
        return 0 if document is None else document.epoch

    @property
    def vouched(self) -> int:
        """Number of the newest agreement of which this node holds nothing that it made others forget."""
        return max(self.agreed, self.promised)

    def describe(self) -> Step:
        """Return the step that restores this, without states and deltas."""
        return Step(
            self.commits.newest,
            [],
            [],
            dict(self.progress),
            origin=self.origin,
            agreed=self.agreed,
            floor=self.floor,
            synced_at=self.synced_at,
            placement=None if self.placement == PlacementState() else self.placement,
            replica=self.id if self.id != self._drawn else "",
        )

    def rename(self, name: str) -> Step:
        """Return the step that makes another directory of this one: it has the states, and never promised anything."""
        return msgspec.structs.replace(
            self.describe(),
            newest=0,
            progress={},
            origin=name,
            floor=0,
            is_rebuilt=True,
            placement=PlacementState(self.placement.document),
            replica=name,
        )

    def replay(self, store: Store, clock: HybridClock, payloads: Iterable[bytes]) -> None:
        """Take in the steps of this replica's own log.

        Raises:
            MalformedError: A payload is refused.
        """
        for payload in payloads:
            self.take(store, clock, decode_step(payload))

    def take(self, store: Store, clock: HybridClock, step: Step) -> None:
        """Do what a durable step says.

        Raises:
            MalformedError: It is refused.
        """
        for slot in step.dropped:
            store.drop(slot)
        if step.replica:
            self.id = step.replica
        if step.placement is not None:
            self.placement = step.placement
        if step.is_rebuilt:
            self.commits = CommitLog(step.newest)
            self.progress = {}
        for tombstone in step.tombstones:
            store.bury(tombstone)
        store.tombstones.forgotten = max(store.tombstones.forgotten, step.forgotten)
        self.commits.forget([key for key in step.purged if not store.holds(key)])
        batch = Batch(store, clock, self.origin)
        for delta in (*step.own, *step.joined):
            batch.restore(delta)
        batch.install()
        self.commits.restore(step.newest, step.own)
        self.note(step.progress)
        if step.origin and step.origin != self.origin:
            self.origin, self.floor = step.origin, 0
        self.floor = max(self.floor, step.floor)
        self.agreed = max(self.agreed, step.agreed)
        if step.synced_at:  # The latest word, not the greatest: a clock that was ahead may have been set since.
            self.synced_at = step.synced_at

    def note(self, progress: dict[str, int]) -> None:
        """Take in progress, which never goes back."""
        for replica, number in progress.items():
            self.progress[replica] = max(self.progress.get(replica, 0), number)
