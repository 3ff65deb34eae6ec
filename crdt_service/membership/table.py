"""What one process knows of all members: a join semilattice per member, plus tombstones that end.

Claims about a member are ordered by its incarnation, then by how final they are; the greater one wins, so tables may be
exchanged in any order, any number of times. A tombstone tells its age, not the time of a clock: whoever hears of it
late forgets it when everybody does, and none is gossiped for ever.
"""

import hashlib
import math
from collections.abc import Iterable

import msgspec

from crdt_service.kernel.config import split_address
from crdt_service.kernel.error import ConfigError, MalformedError
from crdt_service.kernel.ident import check_node_id, check_zone, is_replica
from crdt_service.wire.message import DIGEST_BYTES, MEMBERS_MAX, MemberUpdate

ALIVE, SUSPECT, DEAD, LEFT = range(4)
# Raising it keeps slots of a dead node short of a copy for longer; lowering it moves data because of a mere restart.
DOWN_OUT_SECONDS = 600.0
# Raising it keeps tombstones for longer; lowering it lets a process that was cut off for longer bring a dead node back
# until that is probed again.
FORGET_SECONDS = 3600.0

Rank = tuple[int, int, bool, str, str, str]
_encoder = msgspec.msgpack.Encoder()


class Member(msgspec.Struct, frozen=True):
    """One member as the API shows it; `state` is alive, suspect, dead, leaving or left."""

    id: str
    address: str
    zone: str
    incarnation: int
    state: str


def rank(update: MemberUpdate) -> Rank:
    """Return what orders claims about one member; a total order, so that any two tables join to the same.

    What the member alone says is last: two claims of one incarnation differ in it only if two nodes share an id.
    """
    return (
        update.incarnation,
        update.liveness,
        update.is_leaving,
        update.replica,
        update.address,
        update.zone,
    )


def state_of(update: MemberUpdate) -> str:
    """Return the state's name: a leaving node that is suspect or dead is that."""
    if update.liveness == ALIVE and update.is_leaving:
        return "leaving"
    return ("alive", "suspect", "dead", "left")[update.liveness]


def check_updates(updates: Iterable[MemberUpdate]) -> None:
    """Refuse claims that no honest process makes.

    Raises:
        MalformedError: A node id, zone, replica or address is none, or what is alive has the age of a tombstone.
    """
    for update in updates:
        try:
            check_node_id(update.node_id)
            check_zone(update.zone)
            if update.address:
                split_address(update.address, "address")
        except ConfigError as error:
            raise MalformedError(f"membership: {error.message}") from error
        if not is_replica(update.replica):
            raise MalformedError(f"membership: replica {update.replica!r}")
        if update.age_ms and update.liveness < DEAD:
            raise MalformedError(f"membership: {update.node_id} is not dead, yet aged")


class Table:
    """All members.

    Attributes:
        updates: The claim that holds about each member, by id.
        live_count: Members that are neither dead nor left.

    Args:
        members_max: Members held; claims about others are ignored then.
    """

    def __init__(self, members_max: int = MEMBERS_MAX) -> None:
        self.updates: dict[str, MemberUpdate] = {}
        self._members_max = members_max
        # When each dead or left member was declared so, in this process's milliseconds: whole ones, so that ages are
        # exact and merging stays associative.
        self._since_ms: dict[str, int] = {}
        self._digest = 0
        self.live_count = 0

    @property
    def digest(self) -> bytes:
        """Digest of all live members, so that two processes see whether they know the same; tombstones may differ."""
        return self._digest.to_bytes(DIGEST_BYTES, "big")

    def merge(self, update: MemberUpdate, now: float) -> bool:
        """Join one claim at the time `now`, in seconds; return whether it is news."""
        node_id = update.node_id
        old = self.updates.get(node_id)
        since_ms = _in_ms(now) - update.age_ms if update.liveness >= DEAD else None
        if old is None:
            is_expired = since_ms is not None and _in_ms(now) >= since_ms + _in_ms(FORGET_SECONDS)
            if is_expired or len(self.updates) >= self._members_max:
                return False
        else:
            old_rank, new_rank = rank(old), rank(update)
            if old_rank >= new_rank:
                if since_ms is not None and old_rank == new_rank:
                    self._since_ms[node_id] = min(since_ms, self._since_ms[node_id])
                return False
            self._digest ^= _weigh(old)
            self.live_count -= old.liveness < DEAD
        if update.age_ms:
            update = msgspec.structs.replace(update, age_ms=0)
        self.updates[node_id] = update
        self._digest ^= _weigh(update)
        self.live_count += update.liveness < DEAD
        if since_ms is None:
            self._since_ms.pop(node_id, None)
        else:
            self._since_ms[node_id] = since_ms
        return True

    def export(self, node_id: str, now: float) -> MemberUpdate:
        """Return the claim about a member, with its age if it is a tombstone."""
        update = self.updates[node_id]
        since_ms = self._since_ms.get(node_id)
        if since_ms is None:
            return update
        return msgspec.structs.replace(update, age_ms=max(0, _in_ms(now) - since_ms))

    def export_all(self, now: float) -> list[MemberUpdate]:
        """Return every claim."""
        return [self.export(node_id, now) for node_id in self.updates]

    def dead(self) -> list[str]:
        """Return who is dead, not left."""
        return [node_id for node_id in self._since_ms if self.updates[node_id].liveness == DEAD]

    def forget(self, now: float) -> list[str]:
        """Drop tombstones that are old enough; return whose they were."""
        gone = [node_id for node_id in self._since_ms if self._is_older(node_id, FORGET_SECONDS, now)]
        for node_id in gone:
            del self.updates[node_id], self._since_ms[node_id]
        return gone

    def next_change(self, now: float) -> float:
        """Return when time alone changes placement or drops a tombstone, infinity if never."""
        ends = (
            since_ms + _in_ms(seconds)
            for since_ms in self._since_ms.values()
            for seconds in (DOWN_OUT_SECONDS, FORGET_SECONDS)
        )
        return min((end for end in ends if end > _in_ms(now)), default=math.inf) / 1000

    def placement_members(self, now: float) -> dict[str, str]:
        """Return the zone of each node that data is placed on.

        These are the live ones and those that died less than `DOWN_OUT_SECONDS` ago, without those that leave.
        """
        return {
            node_id: update.zone
            for node_id, update in sorted(self.updates.items())
            if not update.is_leaving
            and (
                update.liveness < DEAD
                or (update.liveness == DEAD and not self._is_older(node_id, DOWN_OUT_SECONDS, now))
            )
        }

    def members(self) -> list[Member]:
        """Return all members by id, with tombstones."""
        return [
            Member(node_id, update.address, update.zone, update.incarnation, state_of(update))
            for node_id, update in sorted(self.updates.items())
        ]

    def _is_older(self, node_id: str, seconds: float, now: float) -> bool:
        return _in_ms(now) >= self._since_ms[node_id] + _in_ms(seconds)


def _in_ms(seconds: float) -> int:
    return round(seconds * 1000)


def _weigh(update: MemberUpdate) -> int:
    """Return what a claim adds to the digest: nothing for tombstones, which end a little apart."""
    if update.liveness >= DEAD:
        return 0
    return int.from_bytes(hashlib.blake2b(_encoder.encode(update), digest_size=DIGEST_BYTES).digest(), "big")
