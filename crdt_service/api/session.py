"""What was shown and acknowledged through this backend, so that it never shows less of a key afterwards; pure.

Session guarantees (Terry et al., "Session guarantees for weakly consistent replicated data", 1994), for all clients of
one backend together: reads see its acknowledged writes and what earlier reads saw, and writes follow both.

A node is known to hold what was seen of a key if it said so itself: it acknowledged the write, showed the value, or
holds just the same by its digest. What a node holds only grows, so it is so for as long as it has its directory.
"""

from typing import NamedTuple

# At about 500 bytes each. Of keys beyond it, those used longest ago are forgotten: they are asked of the first owner.
KEYS_MAX = 1 << 15
# Of one key, parts that no node is known to hold together: rare, settled by the next read, and one for each owner.
_DEBTS_MAX = 8


class Seen(NamedTuple):
    """What was seen of one key.

    Attributes:
        digest: Of all that was seen together; empty if that is not known, as where there are several debts.
        debts: Directories by name; who is in each of the sets holds all that was seen.
    """

    digest: bytes
    debts: tuple[frozenset[str], ...]


class Session:
    """What was seen of the keys that were used last.

    Args:
        keys_max: How many of them.
    """

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._seen: dict[str, Seen] = {}

    def __len__(self) -> int:
        """Return of how many keys something is remembered."""
        return len(self._seen)

    def look(self, key: str) -> Seen | None:
        """Return what was seen of a key before a request, None for nothing."""
        return self._seen.get(key)

    def note(self, key: str, before: Seen | None, replica: str, digest: bytes, *, is_whole: bool) -> None:
        """Take in that a node has shown a key, or has acknowledged a write of it.

        Args:
            key: The key.
            before: What had been seen when the request was sent: answers may overtake each other.
            replica: The node's directory.
            digest: Of what it holds, empty if that is not known.
            is_whole: Whether that includes all that had been seen before.
        """
        now = self._seen.pop(key, None)
        holder = frozenset((replica,))
        if now is not None and digest and now.digest == digest:
            seen = Seen(digest, (now.debts[0] | holder,))
        elif now is None or (now is before and is_whole):
            seen = Seen(digest, (holder,))
        elif holds(now, replica):
            seen = Seen(b"", (holder,))
        else:
            seen = Seen(b"", (*(debt for debt in now.debts if debt != holder), holder)[-_DEBTS_MAX:])
        self._seen[key] = seen
        if len(self._seen) > self._keys_max:
            del self._seen[next(iter(self._seen))]


def holds(seen: Seen | None, replica: str) -> bool:
    """Tell whether a node is known to hold all that was seen of a key."""
    return seen is None or all(replica in debt for debt in seen.debts)


def covers(seen: Seen | None, replica: str, digest: bytes) -> bool:
    """Tell whether what a node shows of a key, by its digest, includes all that was seen of it."""
    return holds(seen, replica) or bool(seen and digest and seen.digest == digest)
