"""Every message between processes, with its tag, in one place.

A request carries an id and gets the reply of the same id, in any order. Strings and byte strings are bounded by the
frame; what they mean is checked by the rooms that use them.
"""

import re
import struct
from enum import IntEnum
from typing import Annotated, Generic, NamedTuple, TypeVar, get_args

import msgspec
from msgspec import Meta

from crdt_service.kernel.clock import STAMP_MAX
from crdt_service.kernel.error import MalformedError
from crdt_service.kernel.slot import NAME_BYTES, SLOTS

DIGEST_BYTES = 8
# Raising them makes requests of a repair fewer and larger.
NODES_BYTES_MAX = 16 << 10
NAMES_BYTES_MAX = 64 << 10
WINDOW_MAX = 28
NONCE_BYTES = 32
EPOCH_MAX = 2**53
GOSSIP_UPDATES_MAX = 64
# With tombstones; a table of this many, each as long as it may be, takes 3 MiB.
MEMBERS_MAX = 4096
PROTOCOL = 4
# The release before speaks it: without placements, pulses and votes on lives. Goes once no upgrade starts from there.
PROTOCOL_BEFORE = 3
CONFLICTS_MAX = 1000
# Of the nodes that a node does not reach; beyond it the cluster is in pieces, and which others there are says no more.
UNREACHABLE_MAX = 64
# Raising it makes one request do more, and others of its connection wait longer for it.
ITEMS_MAX = 256
# Raising it makes fewer and longer pages.
LISTED_KEYS_MAX = 1000
CHANGES_MAX = 1000
# Well below what a connection waits for any reply.
CHANGES_WAIT_MS_MAX = 5000
TOKEN_NAME_BYTES = 16
# Raising it lets one agreement purge more keys.
PURGED_KEYS_MAX = 256

T = TypeVar("T")

# Empty for who is of none, and for who speaks the protocol before.
ClusterName = Annotated[str, Meta(max_length=253)]
Identifier = Annotated[str, Meta(max_length=128)]
Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
SlotMap = Annotated[bytes, Meta(max_length=SLOTS // 8)]
Nonce = Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
# The digest of what a key holds, empty if that is nothing.
Etag = Annotated[bytes, Meta(max_length=DIGEST_BYTES)]
RequestId = Annotated[int, Meta(ge=0, le=2**53)]
Stamp = Annotated[int, Meta(ge=0, le=STAMP_MAX)]
Number = Annotated[int, Meta(ge=0, le=2**53)]


# What documents are decided for.
REASONS = (
    "first",
    "upgrade",
    "replace",
    "join",
    "resize",
    "abort",
    "accept_loss",
    "confirm_loss",
    "end",
)


class Concern(IntEnum):
    """How many of a key's owners a write must be durable on, or a read must ask: one, more than half, or all."""

    ONE = 0
    MAJORITY = 1
    ALL = 2


class Delta(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A state to join into one key; also the unit of the log."""

    key: str
    tag: int
    version: int
    state: bytes


class Tombstone(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What was left of a vacant key when agreement `agreed` purged it: its whole states, one of each type."""

    agreed: Number
    states: Annotated[list[Delta], Meta(min_length=1)]

    @property
    def key(self) -> str:
        """The key."""
        return self.states[0].key


class Seat(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A data directory that owns slots; `replica` names it, and no other directory ever has that name."""

    node_id: Identifier
    replica: Identifier
    zone: Identifier


class OwnerSet(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who owns slots together.

    Attributes:
        seats: In order of their node ids, of which each comes once.
        factor: Owners of a slot, fewer where there are fewer seats.
        node_count: How many nodes there are to be; those numbered below it may join.
    """

    seats: Annotated[list[Seat], Meta(min_length=1, max_length=MEMBERS_MAX)]
    factor: Annotated[int, Meta(ge=1, le=100)]
    node_count: Annotated[int, Meta(ge=1, le=MEMBERS_MAX)]


class PlacementDocument(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A numbered placement.

    Attributes:
        epoch: Its number. Even: `old` alone; odd: `old` and `next` together, while slots are copied.
        old: Who owns slots, and whose seats decide on the next document.
        next: Who will; None in even epochs.
        copies_all: Copies read every seat of `old`, since it is not known who of them owned what.
        reason: What it was decided for, one of `REASONS`.
        proposer: The node, or `operator`, that proposed it.
        lost: Seats whose loss was accepted by an operator, until that is confirmed.
    """

    epoch: Annotated[int, Meta(ge=1, le=EPOCH_MAX)]
    old: OwnerSet
    next: OwnerSet | None
    copies_all: bool
    reason: Identifier
    proposer: Identifier
    lost: Annotated[list[Identifier], Meta(max_length=MEMBERS_MAX)]


# Of proposals, the greater one first by its counter, then by who proposed it; of nobody before the first.
Ballot = tuple[Annotated[int, Meta(ge=0, le=2**53)], Identifier]
NO_BALLOT: Ballot = (0, "")


class PlacementState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a node durably knows of placements.

    Attributes:
        document: The newest one that it has taken up, None before the first.
        promised: The greatest ballot on the next document that it has promised or accepted.
        accepted_at: The ballot under which it accepted `accepted`.
        accepted: What it accepted as the next document, None for nothing.
        copied: A bit per slot: what it has copied in this epoch, of slots whose owners change.
        whole: A bit per slot: what it has copied since it became an owner, and answers for alone.
        life: How many times it has started.
        lives: By seat, the greatest life that it has vouched for, and the number drawn for that start.
    """

    document: PlacementDocument | None = None
    promised: Ballot = NO_BALLOT
    accepted_at: Ballot = NO_BALLOT
    accepted: PlacementDocument | None = None
    copied: SlotMap = b""
    whole: SlotMap = b""
    life: Number = 0
    lives: dict[str, tuple[Number, Number]] = {}


class Step(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One durable step of a replica: the payload of a record of its log.

    Attributes:
        newest: Number of the replica's newest own delta after the step.
        own: Deltas that local operations made, numbered up to `newest`.
        joined: Deltas of other replicas, and states in a snapshot.
        progress: Replica to the number up to which all of its deltas that concern this one are here.
        dropped: Slots that were handed over and are forgotten before anything else of the step.
        origin: The id that names dots and counter entries from this step on; empty if it stays.
        purged: Keys that all members agreed to purge: own deltas of those that are not held then are not pushed again.
        agreed: Number of the newest such agreement that this replica knows, 0 for none.
        floor: Highest counter that the origin's dots had in purged keys.
        synced_at: When this replica last held all that it should, in wall-clock seconds; 0 for never.
        is_rebuilt: Own deltas and the progress of before are gone with everything else.
        tombstones: What is joined and set aside before `purged` and what follows.
        forgotten: Number of the newest agreement of which this replica may lack tombstones, 0 for none.
        placement: What it knows of placements from this step on; None if that stays.
        replica: Names the directory from this step on; empty if that stays.
    """

    newest: int
    own: list[Delta]
    joined: list[Delta]
    progress: dict[str, int]
    dropped: list[int] = []
    origin: str = ""
    purged: list[str] = []
    agreed: int = 0
    floor: int = 0
    synced_at: float = 0.0
    is_rebuilt: bool = False
    tombstones: list[Tombstone] = []
    forgotten: int = 0
    placement: PlacementState | None = None
    replica: str = ""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """First of a handshake, by the dialling end; `replica` is empty for a backend and for an operator."""

    protocol: int
    role: Identifier
    node_id: Identifier
    replica: Identifier
    nonce: Nonce
    cluster: ClusterName = ""


class Challenge(msgspec.Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """Second, by the listening end, with its proof."""

    node_id: Identifier
    replica: Identifier
    nonce: Nonce
    proof: Nonce
    cluster: ClusterName = ""


class Proof(msgspec.Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """Third, by the dialling end."""

    proof: Nonce


class ReadRequest(msgspec.Struct, frozen=True, array_like=True, tag=10, forbid_unknown_fields=True):
    """Ask for a key's value."""

    id: RequestId
    key: str
    concern: Concern = Concern.ONE


class Token(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Names a write, so that the same one sent again has no second effect.

    Attributes:
        name: Digest of the client's idempotency key; it counts for one key of the store.
        fingerprint: Digest of what is to be written, so that another write under the name is told from the same.
    """

    name: Annotated[bytes, Meta(min_length=TOKEN_NAME_BYTES, max_length=TOKEN_NAME_BYTES)]
    fingerprint: Digest


class WriteRequest(msgspec.Struct, frozen=True, array_like=True, tag=11, forbid_unknown_fields=True):
    """Apply a JSON operation to a key; `is_read` asks for the value after it, which costs the size of the value.

    `if_match` and `token` are as in WriteItem.
    """

    id: RequestId
    key: str
    type_name: Identifier
    op: bytes
    concern: Concern = Concern.ONE
    is_read: bool = False
    if_match: Etag | None = None
    token: Token | None = None


class ValueReply(msgspec.Struct, frozen=True, array_like=True, tag=12, forbid_unknown_fields=True):
    """A key's value as JSON; a missing key has an empty type, and one without conflicts an empty `conflict`.

    Attributes:
        digest: Of what the key held when the value was read; without a value, just after a conditional write. Empty if
            the key is missing, or neither was asked for.
        is_replay: The write had been applied before, and was not again.
    """

    id: RequestId
    type_name: Identifier
    value: bytes
    conflict: bytes = b""
    digest: Etag = b""
    is_replay: bool = False


class FailureReply(msgspec.Struct, frozen=True, array_like=True, tag=13, forbid_unknown_fields=True):
    """A refusal: the request surely changed nothing."""

    id: RequestId
    code: Identifier
    message: str
    remedy: str


class WriteItem(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One write.

    Attributes:
        type_name: Empty for a deletion, but for one of a TypedRequest.
        op: A JSON operation of the type; empty for a deletion.
        if_match: Write only if the key has this digest; if it is empty, only if the key is missing.
        token: If a write of this name was applied, answer so and do nothing.
        is_delete: Empty the key of all types that it has, or of `type_name`.
    """

    key: str
    type_name: Identifier
    op: bytes
    if_match: Etag | None = None
    token: Token | None = None
    is_delete: bool = False


Items = Annotated[list[WriteItem], Meta(min_length=1, max_length=ITEMS_MAX)]


class WriteManyRequest(msgspec.Struct, frozen=True, array_like=True, tag=14, forbid_unknown_fields=True):
    """Apply writes that do not depend on each other, those of one key in their order."""

    id: RequestId
    items: Items
    concern: Concern = Concern.ONE
    is_read: bool = False


class ReadManyRequest(msgspec.Struct, frozen=True, array_like=True, tag=15, forbid_unknown_fields=True):
    """Ask for the values of keys."""

    id: RequestId
    keys: Annotated[list[str], Meta(min_length=1, max_length=ITEMS_MAX)]


class ManyReply(msgspec.Struct, frozen=True, array_like=True, tag=16, forbid_unknown_fields=True):
    """What became of each item; its `id` is the item's place.

    Of values only those are there that fit in about 4 MiB. Written items without one were written all the same; of keys
    to be read there are results for the first ones only, and the caller asks again for the others.
    """

    id: RequestId
    results: Annotated[list[ValueReply | FailureReply], Meta(max_length=ITEMS_MAX)]


class PushRequest(msgspec.Struct, frozen=True, array_like=True, tag=20, forbid_unknown_fields=True):
    """Durable deltas.

    Attributes:
        replica: Whose commits they are; empty for deltas that are not numbered, as in repairs.
        after: The deltas are all of the replica's past this number that concern the receiver ...
        upto: ... up to this one.
        committed_at: The oldest commit's wall clock in seconds; 0 to report no latency.
        vouched: The newest agreement to purge that the sender knows or has just voted for. Who knows a newer one
            refuses: the sender may not have seen go what was purged.
        agreed: The newest one that it knows. Who vouches for none as new refuses: it may have to forget its states.
    """

    id: RequestId
    replica: Identifier
    after: Number
    upto: Number
    committed_at: float
    deltas: list[Delta]
    vouched: Number = 0
    agreed: Number = 0


class PushReply(msgspec.Struct, frozen=True, array_like=True, tag=21, forbid_unknown_fields=True):
    """The deltas are durable here too, less `refused` ones that break a rule; `progress` is that of the replica."""

    id: RequestId
    refused: int
    progress: Number


class ProgressRequest(msgspec.Struct, frozen=True, array_like=True, tag=22, forbid_unknown_fields=True):
    """Ask up to which number the receiver has everything of a replica that concerns it."""

    id: RequestId
    replica: Identifier


class ProgressReply(msgspec.Struct, frozen=True, array_like=True, tag=23, forbid_unknown_fields=True):
    """The number, 0 if it has nothing."""

    id: RequestId
    progress: Number


class StateRequest(msgspec.Struct, frozen=True, array_like=True, tag=24, forbid_unknown_fields=True):
    """Ask for all states of a key, unless their digest is `digest`; part of a read with a quorum.

    `snapshot` and `part` are as in FetchRequest. Who knows no agreement to purge as new as `agreed` refuses.
    """

    id: RequestId
    key: str
    digest: Digest
    snapshot: Number = 0
    part: Number = 0
    agreed: Number = 0


class StateReply(msgspec.Struct, frozen=True, array_like=True, tag=25, forbid_unknown_fields=True):
    """The states of the key, none if `digest` is the one asked with; `snapshot` is as in FetchReply.

    Attributes:
        digest: Of all that the key holds; with the first part of several, of what these say.
    """

    id: RequestId
    digest: Digest
    deltas: list[Delta]
    snapshot: Number = 0


class OwnershipRequest(msgspec.Struct, frozen=True, array_like=True, tag=26, forbid_unknown_fields=True):
    """Ask which slots the receiver owns, as it sees it; part of handing slots over."""

    id: RequestId


class OwnershipReply(msgspec.Struct, frozen=True, array_like=True, tag=27, forbid_unknown_fields=True):
    """The slots, as in RootRequest, and a number that is never the same again once they have changed."""

    id: RequestId
    epoch: Number
    slots: SlotMap


class RootRequest(msgspec.Struct, frozen=True, array_like=True, tag=30, forbid_unknown_fields=True):
    """First step of a repair: ask for the sum of everything in some slots.

    Attributes:
        slots: A bit per slot, the lowest first; empty for all.
    """

    id: RequestId
    slots: SlotMap


class RootReply(msgspec.Struct, frozen=True, array_like=True, tag=31, forbid_unknown_fields=True):
    """The exclusive or of the digests in these slots."""

    id: RequestId
    root: Digest


class SumRequest(msgspec.Struct, frozen=True, array_like=True, tag=32, forbid_unknown_fields=True):
    """Second step, for each depth of the tree over names: ask what is under the nodes that differ.

    Attributes:
        slots: As in RootRequest; may be empty at and below the slots' depth.
        window: The lowest of the bits that the reply shows of sums and digests.
        depth: 0 is the root; each depth goes on by 2 bits of the name.
        nodes: Numbers of nodes in this depth, as wire/number.py packs them.
    """

    id: RequestId
    slots: SlotMap
    window: Annotated[int, Meta(ge=0, le=WINDOW_MAX)]
    depth: Annotated[int, Meta(ge=0, lt=4 * NAME_BYTES)]
    nodes: Annotated[bytes, Meta(max_length=NODES_BYTES_MAX)]


class SumReply(msgspec.Struct, frozen=True, array_like=True, tag=33, forbid_unknown_fields=True):
    """What is under the first `served` nodes; the caller asks again for the rest.

    Attributes:
        inner: A bit per node, the lowest first: it shows its children's sums; the others list their keys.
        sums: 4 bytes for each of the first 3 children of an inner node; what remains of the node's own is the last.
        rows: 8 bytes of name and 4 of digest for each key under the other nodes.
    """

    id: RequestId
    served: int
    inner: bytes
    sums: bytes
    rows: bytes


class FetchRequest(msgspec.Struct, frozen=True, array_like=True, tag=34, forbid_unknown_fields=True):
    """Third step: ask for the states of keys by name, 8 bytes each.

    Attributes:
        snapshot: Of the first name's states, from an earlier reply; 0 to begin.
        part: Which part of the snapshot, from 1.
        agreed: As in StateRequest.
    """

    id: RequestId
    names: Annotated[bytes, Meta(max_length=NAMES_BYTES_MAX)]
    snapshot: Number = 0
    part: Number = 0
    agreed: Number = 0


class FetchReply(msgspec.Struct, frozen=True, array_like=True, tag=35, forbid_unknown_fields=True):
    """States of the first `served` names, as many as fit; the caller asks again for the rest.

    Attributes:
        snapshot: 0, or none is served whole and this is one part of the first name's states: the part asked for if the
            request named this snapshot, else part 0.
    """

    id: RequestId
    served: int
    deltas: list[Delta]
    snapshot: Number = 0


class MemberUpdate(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a process claims of a member.

    Attributes:
        incarnation: Only the member itself raises it, and with it says everything up to `is_leaving`.
        liveness: What anybody may claim of this incarnation: 0 alive, 1 suspect, 2 dead, 3 left.
        age_ms: How long ago a dead or left member was declared so; 0 for others.
    """

    node_id: Identifier
    replica: Identifier
    address: Identifier
    zone: Identifier
    incarnation: Annotated[int, Meta(ge=0, le=2**53)]
    is_leaving: bool
    liveness: Annotated[int, Meta(ge=0, le=3)]
    age_ms: Annotated[int, Meta(ge=0, le=2**53)] = 0


class Gossip(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """News that rides on a probe, and a digest of all live members that the sender knows."""

    digest: Digest
    updates: Annotated[list[MemberUpdate], Meta(max_length=GOSSIP_UPDATES_MAX)]


class PingRequest(msgspec.Struct, frozen=True, array_like=True, tag=40, forbid_unknown_fields=True):
    """Ask whether the node is alive."""

    id: RequestId
    gossip: Gossip


class PingReply(msgspec.Struct, frozen=True, array_like=True, tag=41, forbid_unknown_fields=True):
    """It is."""

    id: RequestId
    gossip: Gossip


class IndirectPingRequest(msgspec.Struct, frozen=True, array_like=True, tag=42, forbid_unknown_fields=True):
    """Ask a node to ping another one."""

    id: RequestId
    target: Identifier


class IndirectPingReply(msgspec.Struct, frozen=True, array_like=True, tag=43, forbid_unknown_fields=True):
    """Whether the other one answered."""

    id: RequestId
    is_reached: bool


class TableRequest(msgspec.Struct, frozen=True, array_like=True, tag=44, forbid_unknown_fields=True):
    """Tell all members that one knows, none from a backend, and ask for the same."""

    id: RequestId
    updates: Annotated[list[MemberUpdate], Meta(max_length=MEMBERS_MAX)]


class TableReply(msgspec.Struct, frozen=True, array_like=True, tag=45, forbid_unknown_fields=True):
    """All members that the other end knows."""

    id: RequestId
    updates: Annotated[list[MemberUpdate], Meta(max_length=MEMBERS_MAX)]


class Conflict(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One place that holds siblings: key, map path and type tag name it; `stamp` is that of its newest sibling.

    `resolution` is JSON.
    """

    key: str
    path: tuple[str, ...]
    tag: int
    stamp: int
    resolution: bytes


class ConflictsRequest(msgspec.Struct, frozen=True, array_like=True, tag=50, forbid_unknown_fields=True):
    """Ask for conflicts in keys that begin with `prefix`, in order, beyond the place `after`."""

    id: RequestId
    prefix: str
    after: tuple[str, tuple[str, ...], int] | None
    limit: Annotated[int, Meta(ge=1, le=CONFLICTS_MAX)]


class ConflictsReply(msgspec.Struct, frozen=True, array_like=True, tag=51, forbid_unknown_fields=True):
    """As many as were asked for and fit; `more` says that others follow the last one."""

    id: RequestId
    conflicts: Annotated[list[Conflict], Meta(max_length=CONFLICTS_MAX)]
    more: bool


class ExplainRequest(msgspec.Struct, frozen=True, array_like=True, tag=52, forbid_unknown_fields=True):
    """Ask for a key's value with the resolution of its conflicts; answered by a `ValueReply`."""

    id: RequestId
    key: str


class ListRequest(msgspec.Struct, frozen=True, array_like=True, tag=53, forbid_unknown_fields=True):
    """Ask for the keys that begin with `prefix`, in order, beyond `after`; empty to begin."""

    id: RequestId
    prefix: str
    after: str
    limit: Annotated[int, Meta(ge=1, le=LISTED_KEYS_MAX)]


class ListedKey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A key that is not missing, its type and the digest of what it holds."""

    key: str
    type_name: Identifier
    digest: Etag


class ListReply(msgspec.Struct, frozen=True, array_like=True, tag=54, forbid_unknown_fields=True):
    """Keys in the order of code points.

    Attributes:
        upto: Beyond it there may be others; None if there are none.
    """

    id: RequestId
    keys: Annotated[list[ListedKey], Meta(max_length=LISTED_KEYS_MAX)]
    upto: str | None


class ChangesRequest(msgspec.Struct, frozen=True, array_like=True, tag=55, forbid_unknown_fields=True):
    """Ask which keys have changed on the receiver since a position.

    Attributes:
        epoch: From the reply before, 0 to begin.
        after: `upto` of the reply before, 0 to begin.
        wait_ms: How long to wait for a change if there is none yet.
    """

    id: RequestId
    epoch: Number
    after: Number
    limit: Annotated[int, Meta(ge=1, le=CHANGES_MAX)]
    wait_ms: Annotated[int, Meta(ge=0, le=CHANGES_WAIT_MS_MAX)]


class Change(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A key that changed.

    Attributes:
        number: Position of its last change up to `upto`.
        type_name: What it is now, which may be newer; empty if it is missing.
        digest: Of what it holds now; empty if it is missing.
    """

    number: Number
    key: str
    type_name: Identifier
    digest: Etag


class ChangesReply(msgspec.Struct, frozen=True, array_like=True, tag=56, forbid_unknown_fields=True):
    """Each key that changed beyond `after`, once, by number.

    Attributes:
        epoch: Drawn when the process started; numbers of another epoch mean nothing.
        upto: All changes up to this number are there.
        is_gap: Those after the position asked for are not known any more, or it is of another epoch: there are no
            changes here, and who wants all has to list the keys, then go on from `upto`.
    """

    id: RequestId
    epoch: Number
    upto: Number
    changes: Annotated[list[Change], Meta(max_length=CHANGES_MAX)]
    is_gap: bool


class BackupRequest(msgspec.Struct, frozen=True, array_like=True, tag=60, forbid_unknown_fields=True):
    """Ask for the next part of a backup; part 0 begins it, or begins it anew, under a name that the caller draws."""

    id: RequestId
    backup: Identifier
    part: Annotated[int, Meta(ge=0, le=2**53)]


class BackupReply(msgspec.Struct, frozen=True, array_like=True, tag=61, forbid_unknown_fields=True):
    """Some states, slot by slot.

    Attributes:
        started_at: When the backup began, in seconds.
        total: How many states there were then.
        is_synced: Whether the node held all of what it owns then, as far as it can know.
        dropped: Grows with each slot that others own and that the node has forgotten before it was read; nodes of the
            release before count each that they have forgotten since they started.
    """

    id: RequestId
    started_at: float
    total: int
    deltas: list[Delta]
    is_last: bool
    is_synced: bool = True
    dropped: Number = 0


class RestoreRequest(msgspec.Struct, frozen=True, array_like=True, tag=62, forbid_unknown_fields=True):
    """States of a backup to join."""

    id: RequestId
    deltas: list[Delta]


class RestoreReply(msgspec.Struct, frozen=True, array_like=True, tag=63, forbid_unknown_fields=True):
    """The states are durable here, less `refused` ones that break a rule."""

    id: RequestId
    refused: int


class LeaveRequest(msgspec.Struct, frozen=True, array_like=True, tag=46, forbid_unknown_fields=True):
    """Have a node hand over all that it holds, and own nothing from now on; asked again, it tells how far it is."""

    id: RequestId


class LeaveReply(msgspec.Struct, frozen=True, array_like=True, tag=47, forbid_unknown_fields=True):
    """How many slots the leaving node still holds something of; 0 once it may go."""

    id: RequestId
    held: Annotated[int, Meta(ge=0, le=SLOTS)]


class PulseRequest(msgspec.Struct, frozen=True, array_like=True, tag=48, forbid_unknown_fields=True):
    """Ask for a sign of life; only of who speaks protocol 4."""

    id: RequestId


class PulseReply(msgspec.Struct, frozen=True, array_like=True, tag=49, forbid_unknown_fields=True):
    """The process runs.

    Attributes:
        boot_ms: What its machine's clock since boot says, in milliseconds: it never goes back, and counts suspensions.
        unreachable: Members that it has no channel to or hears nothing from, some of them if there are many.
        wall_ms: What its wall clock says, in milliseconds since 1970; 0 where that is not told.
        stamp: The greatest hybrid logical stamp that it has made or observed.
    """

    id: RequestId
    boot_ms: Number
    unreachable: Annotated[list[Identifier], Meta(max_length=UNREACHABLE_MAX)]
    wall_ms: Number = 0
    stamp: Stamp = 0


class ReceiptRequest(msgspec.Struct, frozen=True, array_like=True, tag=78, forbid_unknown_fields=True):
    """Ask whether as many owners as `concern` asks hold a named write of a key, or can be made to; write nothing new.

    Answered by a `ValueReply` without a value, and without a type if none that was asked holds it: then the write may
    still be on an owner that did not answer. Only of who speaks protocol 4.
    """

    id: RequestId
    key: str
    concern: Concern
    token: Token


class VoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=70, forbid_unknown_fields=True):
    """Ask which of these keys the receiver may purge.

    Attributes:
        agreed: The newest agreement that the proposer knows.
        number: Number of the proposed one: wall-clock milliseconds, greater than `agreed`.
        tombstones: What the proposer holds of the keys.
    """

    id: RequestId
    agreed: Number
    number: Number
    tombstones: Annotated[list[Tombstone], Meta(max_length=PURGED_KEYS_MAX)]


class VoteReply(msgspec.Struct, frozen=True, array_like=True, tag=71, forbid_unknown_fields=True):
    """The keys that the receiver holds just as the proposer does, or nothing of, and that were so for long enough."""

    id: RequestId
    keys: Annotated[list[str], Meta(max_length=PURGED_KEYS_MAX)]


class PurgeRequest(msgspec.Struct, frozen=True, array_like=True, tag=72, forbid_unknown_fields=True):
    """Every member agreed to agreement `number`: purge those of the keys that are still the same."""

    id: RequestId
    number: Number
    keys: Annotated[list[str], Meta(max_length=PURGED_KEYS_MAX)]


class AgreedRequest(msgspec.Struct, frozen=True, array_like=True, tag=73, forbid_unknown_fields=True):
    """Ask for the newest agreement that the receiver knows."""

    id: RequestId


class AgreedReply(msgspec.Struct, frozen=True, array_like=True, tag=74, forbid_unknown_fields=True):
    """Its number, 0 for none; also the answer to a PurgeRequest."""

    id: RequestId
    agreed: Number


class TombstonesRequest(msgspec.Struct, frozen=True, array_like=True, tag=76, forbid_unknown_fields=True):
    """Ask for the tombstones of agreements after number `after`."""

    id: RequestId
    after: Number


class TombstonesReply(msgspec.Struct, frozen=True, array_like=True, tag=77, forbid_unknown_fields=True):
    """Those that the sender has.

    Attributes:
        agreed: The agreement up to which these are all; more follow if it is not the newest.
        forgotten: Number of the newest agreement of which some may be missing even so.
    """

    id: RequestId
    agreed: Number
    forgotten: Number
    tombstones: list[Tombstone]


class DeleteRequest(msgspec.Struct, frozen=True, array_like=True, tag=75, forbid_unknown_fields=True):
    """Empty a key; answered by a `ValueReply` without a value, and without a type if there was nothing.

    `if_match` and `token` are as in WriteItem.
    """

    id: RequestId
    key: str
    concern: Concern = Concern.ONE
    if_match: Etag | None = None
    token: Token | None = None


class PlacementWord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a process says of itself and placements; a backend or an operator says its epoch alone.

    Attributes:
        epoch: Of the newest document that it has taken up, 0 for none.
        copied: As in PlacementState.
        is_ready: It has no seat, holds what it would own, and asks for one.
        node_count: How many nodes it was told that there are to be, 0 if nothing.
        zone: Where it runs.
        held: How many slots it holds something of and does not own.
    """

    epoch: Number
    copied: SlotMap = b""
    is_ready: bool = False
    node_count: Number = 0
    zone: Identifier = ""
    held: Number = 0


class PlacementRequest(msgspec.Struct, frozen=True, array_like=True, tag=80, forbid_unknown_fields=True):
    """Tell and ask of placements; with the document where the receiver is known or guessed to lack it."""

    id: RequestId
    word: PlacementWord
    document: PlacementDocument | None = None


class PlacementReply(msgspec.Struct, frozen=True, array_like=True, tag=81, forbid_unknown_fields=True):
    """The same of the receiver, once it has taken up what it was told; with its document if that is newer."""

    id: RequestId
    word: PlacementWord
    document: PlacementDocument | None = None


class PrepareRequest(msgspec.Struct, frozen=True, array_like=True, tag=82, forbid_unknown_fields=True):
    """First phase of a decision (Lamport, "Paxos Made Simple", 2001): accept no lesser ballot on what follows `epoch`.

    Attributes:
        epoch: Of the document that the decided one follows; 0 for the first one.
        node_count: With the first one, how many nodes the proposer was told that there are.
    """

    id: RequestId
    epoch: Number
    ballot: Ballot
    node_count: Number = 0


class PrepareReply(msgspec.Struct, frozen=True, array_like=True, tag=83, forbid_unknown_fields=True):
    """Whether it is promised, and what was accepted before.

    Attributes:
        is_promised: Whether no greater ballot was promised before.
        promised: The greatest ballot that is promised now.
        accepted_at: The ballot under which `accepted` was.
        accepted: What was accepted, None for nothing.
        seat: The answering directory.
        is_empty: It holds nothing.
    """

    id: RequestId
    is_promised: bool
    promised: Ballot
    accepted_at: Ballot
    accepted: PlacementDocument | None
    seat: Seat
    is_empty: bool


class AcceptRequest(msgspec.Struct, frozen=True, array_like=True, tag=84, forbid_unknown_fields=True):
    """Second phase: accept this document as what follows `epoch`."""

    id: RequestId
    epoch: Number
    ballot: Ballot
    document: PlacementDocument


class AcceptReply(msgspec.Struct, frozen=True, array_like=True, tag=85, forbid_unknown_fields=True):
    """Whether it is accepted, and the greatest ballot that is promised."""

    id: RequestId
    is_accepted: bool
    promised: Ballot


class VouchRequest(msgspec.Struct, frozen=True, array_like=True, tag=86, forbid_unknown_fields=True):
    """Ask whether the sender's directory is as it was: not an older copy of itself.

    Attributes:
        life: How many times it has started, with this time.
        drawn: A number drawn for this start.
        newest: Number of its newest commit.
    """

    id: RequestId
    life: Number
    drawn: Number
    newest: Number


class VouchReply(msgspec.Struct, frozen=True, array_like=True, tag=87, forbid_unknown_fields=True):
    """Empty if nothing speaks against it, and that start is durably known here; else what does."""

    id: RequestId
    objection: str


class ProposeRequest(msgspec.Struct, frozen=True, array_like=True, tag=88, forbid_unknown_fields=True):
    """Have a node propose a document, as an operator.

    Attributes:
        epoch: Of the document that the operator has seen; another one refuses.
        reason: `resize`, `abort`, `accept_loss` or `confirm_loss`.
        node_count: With `resize`, how many nodes there are to be.
        lost: With `accept_loss`, the seats that are given up.
        is_forced: With `accept_loss`, the receiver takes the document up by itself: most of those who would decide are
            lost, too.
        replication_factor: With `resize`, owners of each slot from now on; 0 for as many as the receiver was told.
    """

    id: RequestId
    epoch: Number
    reason: Identifier
    node_count: Number = 0
    lost: Annotated[list[Identifier], Meta(max_length=MEMBERS_MAX)] = []
    is_forced: bool = False
    replication_factor: Annotated[int, Meta(ge=0, le=100)] = 0


TypedRequestBody = ReadRequest | ReadManyRequest | ExplainRequest | WriteRequest | DeleteRequest | WriteManyRequest


class TypedRequest(msgspec.Struct, frozen=True, array_like=True, tag=95, forbid_unknown_fields=True):
    """A request about one type of its keys, whichever of their types readers see; only of who speaks protocol 4.

    Attributes:
        type_name: That type; writes are to it, and a deletion empties the key of it alone.
        request: The request, whose id does not count.
    """

    id: RequestId
    type_name: Annotated[str, Meta(min_length=1, max_length=128)]
    request: TypedRequestBody


class TracedRequest(msgspec.Struct, frozen=True, array_like=True, tag=90, forbid_unknown_fields=True):
    """A request that belongs to a trace that is recorded; one that does not travels without this.

    Attributes:
        trace: 16 bytes of trace id and 8 of the asking span's id.
        request: The bytes of the request itself, whose id the reply has.
    """

    trace: Annotated[bytes, Meta(min_length=24, max_length=24)]
    request: bytes


PurgeProtocol = VoteRequest | PurgeRequest | AgreedRequest | TombstonesRequest
ReplicationRequest = PushRequest | ProgressRequest | StateRequest | OwnershipRequest
RepairRequest = RootRequest | SumRequest | FetchRequest
ConflictRequest = ConflictsRequest | ExplainRequest
WritingRequest = WriteRequest | DeleteRequest | WriteManyRequest | ReceiptRequest
ClientRequest = (
    ReadRequest | ReadManyRequest | WritingRequest | TypedRequest | ListRequest | ChangesRequest | ConflictRequest
)
StoreRequest = ClientRequest | ReplicationRequest | RepairRequest | RestoreRequest | PurgeProtocol
MembershipRequest = PingRequest | IndirectPingRequest | TableRequest
OperatorRequest = BackupRequest | LeaveRequest | ProposeRequest
DecisionRequest = PlacementRequest | PrepareRequest | AcceptRequest | VouchRequest
Request = StoreRequest | MembershipRequest | OperatorRequest | DecisionRequest
OperatorReply = BackupReply | RestoreReply | LeaveReply
MembershipReply = PingReply | IndirectPingReply | TableReply
PurgeReply = VoteReply | AgreedReply | TombstonesReply
ReplicationReply = PushReply | ProgressReply | StateReply | OwnershipReply | PurgeReply
RepairReply = RootReply | SumReply | FetchReply
ClientReply = ValueReply | ManyReply | ListReply | ChangesReply | ConflictsReply
DecisionReply = PlacementReply | PrepareReply | AcceptReply | VouchReply
StoreReply = ClientReply | ReplicationReply | RepairReply
Reply = StoreReply | DecisionReply | FailureReply | MembershipReply | OperatorReply | PulseReply
Handshake = Hello | Challenge | Proof
# What a session gets; pulses it answers itself.
Received = Request | TracedRequest | PulseRequest

M = TypeVar("M")


class Placed(NamedTuple, Generic[M]):
    """A message about data under a placement, whose epoch travels before it as an unsigned 64-bit MessagePack integer.

    Attributes:
        epoch: Number of the placement that the sender knew when it sent the message.
        message: The message.
        id: The message's id.
    """

    epoch: int
    message: M

    @property
    def id(self) -> int:
        """The message's id."""
        return self.message.id  # type: ignore[attr-defined, no-any-return]


_STEP_FIELDS_BEFORE = Step.__struct_fields__.index("placement")
_PLACED = 0xCF
_PLACED_BYTE = bytes([_PLACED])
_EPOCH = struct.Struct(">BQ")
_encoder = msgspec.msgpack.Encoder()
_request: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_received: msgspec.msgpack.Decoder[Received] = msgspec.msgpack.Decoder(Received)
_reply: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_handshake: msgspec.msgpack.Decoder[Handshake] = msgspec.msgpack.Decoder(Handshake)
_step: msgspec.msgpack.Decoder[Step] = msgspec.msgpack.Decoder(Step)


# What a request is called in metrics and traces: ReadRequest is `read`.
REQUEST_NAMES: dict[type, str] = {
    kind: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__.removesuffix("Request")).lower()
    for kind in get_args(Request)
}


def encode_message(message: Received | Reply | Placed[Request] | Placed[Reply]) -> bytes:
    """Return the bytes of a message."""
    if type(message) is Placed:
        return _EPOCH.pack(_PLACED, message.epoch) + _encoder.encode(message.message)
    return _encoder.encode(message)


def decode_request(data: bytes | bytearray) -> Request | Placed[Request]:
    """Return the request in `data`.

    Raises:
        MalformedError: There is none.
    """
    return _decode_placed(_request, data) if data[:1] == _PLACED_BYTE else _decode(_request, data)


def decode_received(data: bytes | bytearray) -> Received | Placed[Request]:
    """Return the request in `data`, what says to which trace it belongs, or a pulse.

    Raises:
        MalformedError: There is none.
    """
    return _decode_placed(_request, data) if data[:1] == _PLACED_BYTE else _decode(_received, data)


def decode_reply(data: bytes | bytearray) -> Reply | Placed[Reply]:
    """Return the reply in `data`.

    Raises:
        MalformedError: There is none.
    """
    return _decode_placed(_reply, data) if data[:1] == _PLACED_BYTE else _decode(_reply, data)


def encode_handshake(message: Handshake) -> bytes:
    """Return the bytes of a handshake's message; one without a cluster's name is as the release before has it."""
    if isinstance(message, Proof) or message.cluster:
        return _encoder.encode(message)
    return _encoder.encode((message.__struct_config__.tag, *msgspec.structs.astuple(message)[:-1]))


def decode_handshake(data: bytes | bytearray) -> Handshake:
    """Return the handshake message in `data`.

    Raises:
        MalformedError: There is none.
    """
    return _decode(_handshake, data)


def encode_deltas(deltas: list[Delta]) -> bytes:
    """Return the bytes of deltas inside a message."""
    return _encoder.encode(deltas)


def encode_step(step: Step) -> bytes:
    """Return the log payload of one durable step; one without a placement can be read by the release before."""
    if step.placement is None and not step.replica:
        return _encoder.encode(msgspec.structs.astuple(step)[:_STEP_FIELDS_BEFORE])
    return _encoder.encode(step)


def decode_step(data: bytes) -> Step:
    """Return the durable step in a log payload.

    Raises:
        MalformedError: There is none.
    """
    return _decode(_step, data)


def _decode_placed(decoder: msgspec.msgpack.Decoder[T], data: bytes | bytearray) -> Placed[T]:
    epoch = int.from_bytes(data[1 : _EPOCH.size], "big")
    if len(data) <= _EPOCH.size or epoch > EPOCH_MAX:
        raise MalformedError("message: no epoch of a placement")
    return Placed(epoch, _decode(decoder, memoryview(data)[_EPOCH.size :]))


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes | bytearray | memoryview) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"message: {error}") from error
