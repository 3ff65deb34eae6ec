"""A node's side of a backup: all states, in parts, while writes go on."""

from collections import deque
from dataclasses import dataclass, field

from crdt_service.kernel.clock import Clock
from crdt_service.kernel.error import ServiceError
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
    addresses: list[Address]
    next_part: int = 0
    position: int = 0
    # What no part has held yet of the state last looked at.
    waiting: deque[Delta] = field(default_factory=deque)


class BackupSource:
    """Serves one backup at a time.

    It holds the names of what was there when it began, and encodes each state when its turn comes. States only grow, so
    everything that was acknowledged before the backup began is in it, and some of what came later.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
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
            while not backup.waiting and backup.position < len(backup.addresses):
                backup.waiting.extend(self._store.split(backup.addresses[backup.position], PART_BYTES_MAX))
                backup.position += 1
            if not backup.waiting:
                break
            deltas.append(backup.waiting.popleft())
            size += len(deltas[-1].state)
        is_last = not backup.waiting and backup.position == len(backup.addresses)
        if is_last:
            self._current = None
        return BackupReply(request.id, backup.started_at, len(backup.addresses), deltas, is_last)

    def _find(self, request: BackupRequest) -> _Backup:
        now = self._clock.now_seconds()
        backup = self._current
        if request.part == 0:
            if backup is not None and now - backup.asked_at < IDLE_SECONDS_MAX:
                raise ServiceError(
                    "backup_under_way",
                    "another backup of this node is under way",
                    "wait for its end, or use another node",
                )
            backup = self._current = _Backup(
                request.backup, now, now, [address for part in self._store.slices(PART_KEYS_MAX) for address in part]
            )
        if backup is None or (backup.name, backup.next_part) != (request.backup, request.part):
            raise ServiceError("backup_unknown", "this node has no such backup under way", "begin the backup again")
        backup.asked_at = now
        backup.next_part += 1
        return backup
