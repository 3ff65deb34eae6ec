"""Joins what several nodes hold into one stream, slot by slot.

Replicas mostly agree, so a state that was seen is left out; those that differ are all kept, and the restore joins them
(join is idempotent, commutative and associative, Shapiro et al. 2011): what is restored is the join of all replicas,
and no state need be decoded here. Nodes send slots in order, so only one slot's digests are in memory.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence

from crdt_service.kernel.ident import is_reserved
from crdt_service.kernel.slot import SLOTS, slot_of
from crdt_service.replication.commits import delta_bytes
from crdt_service.wire.message import Delta, encode_deltas

# Raising it makes fewer and larger records.
PART_BYTES_MAX = 1 << 20
_DIGEST_BYTES = 16


class Merge:
    """The distinct states of all streams, in parts; Jarvis's own keys are left out.

    Streams that do not send slots in order cost room, and lose nothing.

    Attributes:
        keys: How many keys have been yielded.
        states: How many states.
    """

    def __init__(self, streams: Sequence[AsyncIterator[list[Delta]]]) -> None:
        self._cursors = [_Cursor(stream) for stream in streams]
        self.keys = 0
        self.states = 0

    async def __aiter__(self) -> AsyncIterator[list[Delta]]:
        """Yield the states; ends when all streams have.

        Raises:
            ServiceError: As the streams do.
        """
        part: list[Delta] = []
        size = 0
        for cursor in self._cursors:
            await cursor.advance()
        while (slot := min((cursor.slot for cursor in self._cursors), default=SLOTS)) < SLOTS:
            keys: set[str] = set()
            seen: set[bytes] = set()
            for cursor in self._cursors:
                while cursor.slot <= slot:
                    delta = cursor.delta
                    await cursor.advance()
                    digest = hashlib.blake2b(encode_deltas([delta]), digest_size=_DIGEST_BYTES).digest()
                    if digest in seen or is_reserved(delta.key):
                        continue
                    seen.add(digest)
                    keys.add(delta.key)
                    part.append(delta)
                    size += delta_bytes(delta)
                    if size >= PART_BYTES_MAX:
                        self.states += len(part)
                        yield part
                        part, size = [], 0
            self.keys += len(keys)
        if part:
            self.states += len(part)
            yield part


class _Cursor:
    """The next state of a stream.

    Attributes:
        slot: Its slot, `SLOTS` once the stream has ended.
    """

    def __init__(self, stream: AsyncIterator[list[Delta]]) -> None:
        self._stream = stream
        self._waiting: list[Delta] = []
        self.slot = 0

    @property
    def delta(self) -> Delta:
        return self._waiting[-1]

    async def advance(self) -> None:
        if self._waiting:
            self._waiting.pop()
        while not self._waiting:
            part = await anext(self._stream, None)
            if part is None:
                self.slot = SLOTS
                return
            self._waiting = part[::-1]
        self.slot = slot_of(self.delta.key)
