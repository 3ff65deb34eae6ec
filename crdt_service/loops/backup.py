"""A node's side of a backup: all states, in parts, while writes go on."""

from collections import deque
from collections.abc import Callable
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


@dataclass
class _Backup:
    name: str
    started_at: float
    asked_at: float
    is_synced: bool
    total: int
    next_part: int = 0
    # The slot to look at next, and what no part has held yet of the one before it and of the state last looked at.
    slot: int = 0
    addresses: deque[Address] = field(default_factory=deque)
    waiting: deque[Delta] = field(default_factory=deque)


class BackupSource:
    """Serves one backup at a time.

    It looks at each slot and encodes each state when its turn comes. States only grow, so everything that was
    acknowledged before the backup began is in it, and some of what came later; unless a slot was handed over meanwhile,
    which each reply tells.

    Args:
        is_synced: Whether this node holds all of what it owns.
    """

    def __init__(self, store: Store, clock: Clock, is_synced: Callable[[], bool]) -> None:
        self._store = store
        self._clock = clock
        self._is_synced = is_synced
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
            self._store.dropped_count,
        )

    def _look(self, backup: _Backup) -> bool:
        """Look at states until one waits; return whether one does."""
        while not backup.waiting:
            if backup.addresses:
                backup.waiting.extend(self._store.split(backup.addresses.popleft(), PART_BYTES_MAX))
            elif backup.slot < SLOTS:
                backup.addresses.extend(self._store.addresses(backup.slot))
                backup.slot += 1
            else:
                return False
        return True

    def _find(self, request: BackupRequest) -> _Backup:
        now = self._clock.now_seconds()
        backup = self._current
        if request.part == 0:
            is_other = backup is not None and backup.name != request.backup
            if backup is not None and is_other and now - backup.asked_at < IDLE_SECONDS_MAX:
                raise ServiceError(
                    "backup_under_way",
                    "another backup of this node is under way",
                    "wait for its end, or use another node",
                )
            backup = self._current = _Backup(
                request.backup,
                now,
                now,
                self._is_synced(),
                len(self._store),
            )
        if backup is None or (backup.name, backup.next_part) != (request.backup, request.part):
            raise ServiceError("backup_unknown", "this node has no such backup under way", "begin the backup again")
        backup.asked_at = now
        backup.next_part += 1
        return backup
