"""What clients did and what anyone saw; all that the judges get."""

from dataclasses import dataclass, field
from enum import Enum

from crdt_service.datatypes.aw_set import AwSet


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
    outcome: Outcome = Outcome.PENDING
    answered: float = float("inf")
    code: str = ""

    @property
    def is_possible(self):
        """Tell whether it may have been applied."""
        return self.outcome is not Outcome.REFUSED


@dataclass(frozen=True)
class Seen:
    """The state behind what a node told a client."""

    node: str
    key: str
    tag: int
    state: bytes


@dataclass
class History:
    """Attributes: everything in order; `final` is, by node, the states by (key, tag) once it was quiet."""

    writes: list[Write] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    final: dict[str, dict[tuple[str, int], bytes]] = field(default_factory=dict)
    quiet: bool = False
    unavailable: list[str] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    queue_items: int = 0
    queue_items_max: int = 0
    outbox_bytes: int = 0
    outbox_bytes_max: int = 0

    def final_state(self, key, datatype):
        """Return the state that the first node ended with."""
        states = next(iter(self.final.values()))
        data = states.get((key, datatype.tag))
        return datatype.empty() if data is None else datatype.decode(data)

    def final_elements(self, key):
        """The elements of a set at the end."""
        datatype = AwSet()
        return set(datatype.value(self.final_state(key, datatype)))

    def by_key(self, type_name):
        """Return the writes of a type by key."""
        keys = {}
        for write in self.writes:
            if write.type == type_name:
                keys.setdefault(write.key, []).append(write)
        return keys
