"""States that one message cannot hold, served in parts while the states go on growing."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable

from crdt_service.kernel.error import MalformedError
from crdt_service.replication.commits import PUSH_BYTES_MAX, group_deltas
from crdt_service.wire.message import Delta, encode_deltas

# Each holds the encoding of one key. Raising it lets more peers fetch large keys at once before they make each other
# begin again.
SNAPSHOTS_MAX = 4


class Snapshots:
    """What large keys held when peers began to fetch them.

    A snapshot is named by its content, so parts of one name always fit together, even of two runs of this process. It
    goes with its last part, or for another one once `SNAPSHOTS_MAX` are kept; if its key has not changed by then, it is
    simply made again.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[int, list[list[Delta]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def serve(self, snapshot: int, part: int, encode: Callable[[], Iterable[Delta]]) -> tuple[list[Delta], int]:
        """Return a part of a snapshot, and which snapshot goes on at the part after it, 0 if it was the last.

        If there is no such snapshot any more, that is the first part of a new one, of what `encode` returns.

        Raises:
            MalformedError: The snapshot has no such part.
        """
        groups = self._kept.get(snapshot)
        if groups is None:
            groups = list(group_deltas(encode(), PUSH_BYTES_MAX)) or [[]]
            if len(groups) == 1:
                return groups[0], 0
            made = _name(groups)
            if made != snapshot:
                snapshot, part = made, 0
            self._kept[snapshot] = groups
            if len(self._kept) > SNAPSHOTS_MAX:
                self._kept.popitem(last=False)
        self._kept.move_to_end(snapshot)
        if part >= len(groups):
            raise MalformedError("fetch: the snapshot has no such part")
        if part < len(groups) - 1:
            return groups[part], snapshot
        del self._kept[snapshot]
        return groups[part], 0


def _name(groups: list[list[Delta]]) -> int:
    """Return 52 bits of all that is in the groups, never 0."""
    digest = hashlib.blake2b(digest_size=8)
    for group in groups:
        digest.update(encode_deltas(group))
    return int.from_bytes(digest.digest(), "big") >> 12 or 1
