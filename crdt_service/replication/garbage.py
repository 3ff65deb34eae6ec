"""When a key that holds nothing but history may be purged; pure.

Causal stability by agreement: once every member holds the same history of a vacant key, and nobody has changed it for
the horizon, no state and no delta can be under way that lacks any of it, but from who was away longer. For that one it
is set aside (store/tombstones.py).
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from crdt_service.datatypes.part import cut
from crdt_service.store.store import Store
from crdt_service.store.tombstones import states_bytes
from crdt_service.wire.message import PURGED_KEYS_MAX, Delta, Tombstone

# Raising it keeps what was deleted for longer.
HORIZON_SECONDS = 24 * 3600.0
# The part of the horizon by which wall clocks may be wrong. Raising it has nodes rebuilt that need not be.
MARGIN = 0.25
# Marks of the commit log's end that are kept over a horizon.
MARKS_MAX = 64
# What one agreement purges. A vacant key that takes more alone stays.
AGREEMENT_BYTES_MAX = 1 << 20


def is_stale(synced_at: float, forgotten: int, horizon_seconds: float) -> bool:
    """Tell whether a node last synced at `synced_at` may have missed what others forgot, up to agreement `forgotten`.

    What they forgot had been vacant for a horizon by then: who was synced within that horizon has seen it go.
    """
    return synced_at + (1 - MARGIN) * horizon_seconds < forgotten / 1000


class Vacancies:
    """Since when this node's vacant keys are unchanged, and how far its commits were then.

    All times are seconds of one clock that never goes back.
    """

    def __init__(self, store: Store, horizon_seconds: float) -> None:
        self._store = store
        self._horizon_seconds = horizon_seconds
        self._since: dict[str, tuple[int, float]] = {}
        self._marks: deque[tuple[float, int]] = deque()

    def mark(self, now: float, newest: int) -> None:
        """Note that the newest own commit has this number, and forget keys that are vacant no more."""
        if not self._marks or now - self._marks[-1][0] >= self._horizon_seconds / MARKS_MAX:
            self._marks.append((now, newest))
        while len(self._marks) > 1 and self._marks[1][0] <= now - self._horizon_seconds:
            self._marks.popleft()
        self._since = {key: since for key, since in self._since.items() if key in self._store.vacant}

    def observe(self, keys: Iterable[str], now: float) -> None:
        """Note what these keys hold now."""
        for key in keys:
            digest = self._store.digest(key) if key in self._store.vacant else 0
            known = self._since.get(key)
            if digest and (known is None or known[0] != digest):
                self._since[key] = (digest, now)

    def settled(self, now: float) -> int | None:
        """Return the number of the newest own commit a horizon ago, None if this process is not that old."""
        if not self._marks or self._marks[0][0] > now - self._horizon_seconds:
            return None
        return self._marks[0][1]

    def ripe(self, now: float) -> list[str]:
        """Return the keys that are unchanged for the horizon, the longest first."""
        return [key for key in self._since if self._is_ripe(key, now)]

    def propose(self, keys: Iterable[str]) -> Iterator[list[list[Delta]]]:
        """Yield what is held of each of these keys, for one agreement at a time."""
        every = (self._store.encode_key(key) for key in keys if self._store.holds(key))
        fitting = (states for states in every if states_bytes(states) <= AGREEMENT_BYTES_MAX)
        for part in cut(fitting, states_bytes, AGREEMENT_BYTES_MAX):
            for first in range(0, len(part), PURGED_KEYS_MAX):
                yield part[first : first + PURGED_KEYS_MAX]

    def agree(self, tombstones: Iterable[Tombstone], now: float) -> dict[str, int]:
        """Return those of a proposal's keys that are unchanged here for the horizon, or that nothing is held of.

        Each comes with the digest of what is held, 0 for nothing.
        """
        store = self._store
        return {
            each.key: store.digest(each.key)
            for each in tombstones
            if not store.holds(each.key) or (self._is_ripe(each.key, now) and store.encode_key(each.key) == each.states)
        }

    def unchanged(self, digests: Mapping[str, int]) -> list[str]:
        """Return the keys that are vacant and hold just this, or nothing any more."""
        store = self._store
        return [
            key
            for key, digest in digests.items()
            if not store.holds(key) or (key in store.vacant and store.digest(key) == digest)
        ]

    def _is_ripe(self, key: str, now: float) -> bool:
        digest, since = self._since.get(key, (0, now))
        return since <= now - self._horizon_seconds and key in self._store.vacant and self._store.digest(key) == digest
