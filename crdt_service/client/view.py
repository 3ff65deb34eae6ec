"""What the service answers, as structs; members that a newer service adds are ignored."""

from typing import Any, Literal

import msgspec


class Sibling(msgspec.Struct, frozen=True):
    """One of several concurrent writes.

    Attributes:
        node: The node that took it.
        replica: The node's replica id.
        time: RFC 3339 in UTC.
        bytes: Size of the value as JSON.
        value: The value; None, too, where it is too large for the answer.
    """

    node: str
    replica: str
    time: str
    bytes: int
    value: Any = None


class Undecided(msgspec.Struct, frozen=True):
    """A rule that matched and could not decide, and why."""

    rule: str
    strategy: str
    because: str


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """One conflict and what was decided.

    Attributes:
        field: Names of the map's fields that lead to the register; empty if it is the key itself.
        type: The type that holds the siblings.
        rule: Where the rule that decided stands.
        strategy: Its strategy.
        because: One sentence.
        undecided: Rules before it that matched and could not decide.
        sibling_count: How many siblings there are.
        siblings: The first hundred.
        value: What readers see; None, too, where it is too large for the answer.
        other_types: Where the key holds several types, those beside `type`, which readers see; there are no siblings
            and no value then.
    """

    field: list[str]
    type: str
    rule: str
    strategy: str
    because: str
    undecided: list[Undecided]
    sibling_count: int
    siblings: list[Sibling]
    value: Any = None
    other_types: list[str] = []


class Conflict(Resolution, frozen=True, kw_only=True):
    """The same in a listing: `key` holds it, `node` told it."""

    key: str
    node: str


class ConflictPage(msgspec.Struct, frozen=True):
    """Some conflicts, what the next page is asked for with, and nodes whose conflicts may be missing."""

    conflicts: list[Conflict]
    cursor: str | None
    unanswered: list[str]


class ConflictSummary(msgspec.Struct, frozen=True):
    """The conflicts of a key.

    Attributes:
        places: How many places hold siblings.
        strategies: Those that decide.
        resolutions: The first hundred, where they were asked for.
        other_types: Further types that the key holds: read, write or delete one by naming it.
    """

    places: int
    strategies: list[str]
    resolutions: list[Resolution] = []
    other_types: list[str] = []


class Key(msgspec.Struct, frozen=True):
    """A key as one node has it.

    Attributes:
        key: Its name.
        type: Its type, or the one of its types that was asked for.
        node: The node that answered.
        value: What it holds; None, too, after a deletion, and after a write that asked for no value.
        conflict: How concurrent writes were decided, and which other types the key holds; None without any.
        etag: Stands for what it holds, the same on all nodes that hold the same; empty where that was not read.
        replayed: The write had been applied before, under the same idempotency key, and was not again.
    """

    key: str
    type: str
    node: str
    value: Any = None
    conflict: ConflictSummary | None = None
    etag: str = ""
    replayed: bool = False


class ListedKey(msgspec.Struct, frozen=True):
    """A key of a listing: its name, its type, what stands for what it holds, and further types where it has any."""

    key: str
    type: str
    etag: str
    other_types: list[str] = []


class KeyPage(msgspec.Struct, frozen=True):
    """Some keys, what the next page is asked for with, and nodes whose keys may be missing."""

    keys: list[ListedKey]
    cursor: str | None
    unanswered: list[str]


class ItemError(msgspec.Struct, frozen=True):
    """Why an item of a batch was refused; `code` is one of the service's."""

    code: str
    message: str
    remedy: str


class Item(msgspec.Struct, frozen=True):
    """What became of an item of a batch: what it alone would have been answered.

    Attributes:
        status: The HTTP status, 200 if it was done.
        key: Its key.
        type: The key's type; empty if it was refused, as the others then are.
        node: The node that answered.
        value: What the key holds, where it was asked for.
        conflict: As in `Key`.
        etag: As in `Key`.
        replayed: As in `Key`.
        error: Why it was refused, None if it was not.
    """

    status: int
    key: str
    type: str = ""
    node: str = ""
    value: Any = None
    conflict: ConflictSummary | None = None
    etag: str = ""
    replayed: bool = False
    error: ItemError | None = None


class Batch(msgspec.Struct, frozen=True):
    """What became of each item, in their order."""

    results: list[Item]


class Change(msgspec.Struct, frozen=True):
    """A key that changed.

    Attributes:
        key: Its name.
        type: Its type; empty if it was deleted.
        etag: As in `Key`; empty if it was deleted.
        node: The node that said so.
        deleted: It reads as missing now.
        cursor: A feed that is opened with it goes on after this change.
    """

    key: str
    type: str
    etag: str
    node: str
    deleted: bool = False
    cursor: str = ""


class Reset(msgspec.Struct, frozen=True):
    """Changes may be missing: what was read before this may be old. Who wants all keys lists them now.

    Attributes:
        reason: Why: `opened` where a feed without cursor begins, else what the service says.
        node: The node whose changes may be missing, None if those of any.
        cursor: As in `Change`.
    """

    reason: str
    node: str | None
    cursor: str = ""


class Owners(msgspec.Struct, frozen=True):
    """The slot of a key, and the nodes that own it, the one that is asked first before the others."""

    key: str
    slot: int
    owners: list[str]


class Member(msgspec.Struct, frozen=True):
    """A node; `state` is alive, suspect, dead, leaving or left."""

    id: str
    address: str
    zone: str
    incarnation: int
    state: str


class Link(msgspec.Struct, frozen=True):
    """A backend's connection to a node, whose `id` is empty until it is known."""

    id: str
    address: str
    state: str


class Seat(msgspec.Struct, frozen=True):
    """A node that owns slots, and the zone by which it was placed."""

    node: str
    zone: str


class PlacementChange(msgspec.Struct, frozen=True):
    """A change of owners that is under way: why, who proposed it, who has to copy how much, and whom it waits for."""

    reason: str
    proposer: str
    slots_to_copy: dict[str, int]
    waits_for: list[str]


class Placement(msgspec.Struct, frozen=True):
    """How keys are spread: over so many slots, each on so many nodes, and how many each node owns.

    `epoch` is its number, 0 as long as owners follow the live members; `node_count` how many nodes there are to be;
    `lost` has the seats whose loss an operator accepted and has not confirmed.
    """

    slots: int
    replication_factor: int
    slots_owned: dict[str, int]
    epoch: int = 0
    node_count: int = 0
    seats: list[Seat] = []
    change: PlacementChange | None = None
    lost: list[str] = []


class Cluster(msgspec.Struct, frozen=True):
    """The cluster as the backend that answered sees it."""

    members: list[Member]
    links: list[Link]
    placement: Placement


class Check(msgspec.Struct, frozen=True):
    """One condition of health."""

    name: str
    passed: bool
    message: str


class Health(msgspec.Struct, frozen=True):
    """Whether requests can be served, by how many nodes, and what says so."""

    status: Literal["healthy", "degraded", "unhealthy"]
    environment: str
    members: dict[str, int]
    checks: list[Check]
