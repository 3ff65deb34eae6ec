"""A node's side of a backup: all states, in parts, while writes go on."""

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from crdt_service.kernel.clock import Clock
from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.slot import SLOTS
from crdt_service.store.store import Address, Store
from crdt_service.wire.message import BackupReply, BackupRequest, Delta

# Raising it makes fewer and larger parts, each of which holds up other requests for longer.
PART_KEYS_MAX = 256
PART_BYTES_MAX = 1 << 20
# After so long without a request a backup is taken for abandoned, and another may begin.
IDLE_SECONDS_MAX = 60.0
# Raising it has backups succeed while larger slots are handed over, and costs so much memory meanwhile.
KEPT_BYTES_MAX = 16 << 20


@dataclass
class _Backup:
    name: str
    started_at: float
    asked_at: float
    is_synced: bool
    total: int
    # What was in slots that others own when it began, and how often each slot had been dropped by then.
    kept: dict[int, list[Delta]]
    drops: list[int]
    # Slots in which something was by then; of those that were empty nothing is owed.
    held: set[int]
    lost: int = 0
    next_part: int = 0
    # The slot to look at next, and what no part has held yet of the one before it and of the state last looked at.
    slot: int = 0
    addresses: deque[Address] = field(default_factory=deque)
    waiting: deque[Delta] = field(default_factory=deque)


class BackupSource:
    """Serves one backup at a time.

    It looks at each slot and encodes each state when its turn comes. States only grow, so everything that was
    acknowledged before the backup began is in it, and some of what came later. What this node holds for others may be
    handed over before its turn: so much of that as `KEPT_BYTES_MAX` allows is kept from the beginning, and of the rest
    each reply tells how many slots are lost to this backup.

    Args:
        store: The states.
        clock: The wall clock.
        monotonic: A clock in seconds that never goes back.
        is_synced: Whether this node holds all of what it owns.
        surplus: Returns the slots that this node holds something of and does not own.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        monotonic: Callable[[], float],
        *,
        is_synced: Callable[[], bool],
        surplus: Callable[[], Collection[int]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._is_synced = is_synced
        self._surplus = surplus
        self._current: _Backup | None = None

    def answer(self, request: BackupRequest) -> BackupReply:
        """Return the next part.

        Raises:
            ServiceError: Another backup is under way, or this one is unknown here.
        """
        backup = self._find(request)
        deltas: list[Delta] = []
        size = 0
        while len(deltas) < PART_KEYS_MAX and size < PART_BYTES_MAX:
            if not self._look(backup):
                break
            deltas.append(backup.waiting.popleft())
            size += len(deltas[-1].state)
        is_last = not self._look(backup)
        if is_last:
            self._current = None
        return BackupReply(
            request.id,
            backup.started_at,
            backup.total,
            deltas,
            is_last,
            backup.is_synced,
            backup.lost,
        )

    def _look(self, backup: _Backup) -> bool:
        """Look at states until one waits; return whether one does."""
        while not backup.waiting:
            if backup.addresses:
                backup.waiting.extend(self._store.split(backup.addresses.popleft(), PART_BYTES_MAX))
            elif backup.slot < SLOTS:
                self._turn(backup, backup.slot)
                backup.slot += 1
            else:
                return False
        return True

    def _turn(self, backup: _Backup, slot: int) -> None:
        """Have all of a slot be looked at, and what was kept of it if it was dropped since the backup began."""
        backup.addresses.extend(self._store.addresses(slot))
        kept = backup.kept.get(slot)
        if self._store.drops[slot] == backup.drops[slot]:
            return
        if kept is not None:
            backup.waiting.extend(kept)
        elif slot in backup.held:
            backup.lost += 1

    def _begin(self, name: str, now: float) -> _Backup:
        store, before = self._store, self._current
        is_again = before is not None and before.name == name and before.next_part == 1
        backup = _Backup(
            name,
            self._clock.now_seconds(),
            now,
            self._is_synced(),
            len(store),
            kept={},
            drops=list(store.drops),
            held={slot for slot, keys in enumerate(store.slots) if keys},
        )
        if before is not None and is_again:
            # Of what was held when all nodes were asked for the first time, too, nothing may be missing.
            backup.kept, backup.drops = before.kept, before.drops
            backup.held |= before.held
        room = KEPT_BYTES_MAX - sum(map(_size, backup.kept.values()))
        for slot in sorted(self._surplus()):
            now_there = [delta for address in store.addresses(slot) for delta in store.split(address, PART_BYTES_MAX)]
            room -= _size(now_there)
            if room < 0:
                break
            gone = backup.kept.get(slot, []) if store.drops[slot] != backup.drops[slot] else []
            backup.kept[slot] = gone + now_there
        return backup

    def _find(self, request: BackupRequest) -> _Backup:
        now = self._monotonic()
        backup = self._current
        if request.part == 0:
            is_other = backup is not None and backup.name != request.backup
            if backup is not None and is_other and now - backup.asked_at < IDLE_SECONDS_MAX:
                raise ServiceError(
                    "backup_under_way",
                    "another backup of this node is under way",
                    "wait for its end, or use another node",
                )
            backup = self._current = self._begin(request.backup, now)
        if backup is None or (backup.name, backup.next_part) != (request.backup, request.part):
            raise ServiceError("backup_unknown", "this node has no such backup under way", "begin the backup again")
        backup.asked_at = now
        backup.next_part += 1
        return backup


def _size(deltas: list[Delta]) -> int:
    return sum(len(delta.state) for delta in deltas)
