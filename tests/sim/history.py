"""What clients did and what anyone saw; all that the judges get."""

from dataclasses import dataclass, field
from enum import Enum

from crdt_service.datatypes.aw_set import AwSet
from crdt_service.wire.message import Concern
from tests.sim.placements import Placements


class Outcome(Enum):
    PENDING = "pending"
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"  # It surely changed nothing.
    UNKNOWN = "unknown"


@dataclass(eq=False)
class Write:
    """One operation, sent once; `sent` and `answered` are virtual seconds."""

    node: str
    key: str
    type: str
    verb: str
    argument: object
    sent: float
    concern: Concern = Concern.ONE
    outcome: Outcome = Outcome.PENDING
    answered: float = float("inf")
    code: str = ""
    is_lost: bool = False

    @property
    def is_possible(self):
        """Tell whether it may have been applied."""
        return self.outcome is not Outcome.REFUSED

    @property
    def is_kept(self):
        """Tell whether it must never be lost: acknowledged, and not only by a disk that was lost."""
        return self.outcome is Outcome.ACKNOWLEDGED and not self.is_lost


@dataclass(frozen=True)
class Seen:
    """The state behind what a node told a client, in which life of its disk, and when it was asked and answered."""

    node: str
    key: str
    tag: int
    state: bytes
    disk: int
    sent: float = 0.0
    answered: float = 0.0


@dataclass
class History:
    """Attributes: everything in order.

    `final` is, by node, the states by (key, tag) once it was quiet, and `owners` who should hold each key then; `disks`
    counts the disks that each node has lost; `placements` is what was durably known of who owns what;
    `clock_error_seconds` how far two clocks may be apart, and `calm_at` when all faults had ended; `is_purging` whether
    deleted keys are forgotten within the world's time, and `vacant` those that are not, by node, long after calm;
    `told` is, by node, the types of each key that an answer to a read names once it was quiet.
    """

    writes: list[Write] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    final: dict[str, dict[tuple[str, int], bytes]] = field(default_factory=dict)
    told: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    quiet: bool = False
    owners: dict[str, tuple[str, ...]] = field(default_factory=dict)
    quorum_reads: list[Seen] = field(default_factory=list)
    disks: dict[str, int] = field(default_factory=dict)
    placements: Placements = field(default_factory=Placements)
    clock_error_seconds: float = 0.0
    calm_at: float = float("inf")
    is_purging: bool = False
    vacant: dict[str, list[str]] = field(default_factory=dict)
    unavailable: list[str] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    queue_items: int = 0
    queue_items_max: int = 0
    commits_bytes: int = 0
    commits_bytes_max: int = 0

    def final_state(self, key, datatype):
        """Return the state that the key's first owner ended with."""
        data = self.final[self.owners[key][0]].get((key, datatype.tag)) if key in self.owners else None
        return datatype.empty() if data is None else datatype.decode(data)

    def is_settled(self, node, key):
        """Tell whether `node` owned `key` all the time, so that it never handed it over."""
        return self.placements.has_always_owned(node, key)

    def lose_disk(self, node, since=float("-inf")):
        """Note that a node lost what its disk got since then: what only it has acknowledged later may be gone."""
        self.disks[node] += 1
        self.placements.lose(node)
        for write in self.writes:
            is_alone = write.node == node and write.concern is Concern.ONE
            if is_alone and write.outcome is not Outcome.REFUSED and write.answered > since:
                write.is_lost = True

    def final_elements(self, key):
        """The elements of a set at the end."""
        datatype = AwSet()
        return set(datatype.value(self.final_state(key, datatype)))

    def clears(self, key):
        """Return when the last deletion of a key that may have been applied was answered, -inf if there was none."""
        ends = (
            write.answered if write.outcome is Outcome.ACKNOWLEDGED else float("inf")
            for write in self.writes
            if write.key == key and write.verb == "clear" and write.is_possible
        )
        return max(ends, default=float("-inf"))

    def by_key(self, type_name):
        """Return the writes of a type by key."""
        keys = {}
        for write in self.writes:
            if write.type == type_name:
                keys.setdefault(write.key, []).append(write)
        return keys
