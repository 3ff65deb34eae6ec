"""Deltas on their way to one peer, bounded: what does not fit is dropped and left to the next repair."""

from collections import deque

from crdt_service.wire.message import Delta

# Raising it spares repairs when a peer stalls, and costs that much memory per peer.
OUTBOX_BYTES_MAX = 8 << 20
PUSH_BYTES_MAX = 1 << 20


class Outbox:
    """A queue of committed batches."""

    def __init__(self) -> None:
        self._batches: deque[tuple[float, list[Delta], int]] = deque()
        self._bytes = 0

    def put(self, committed_at: float, deltas: list[Delta]) -> int:
        """Queue a batch that was committed at `committed_at` seconds; return how many deltas were dropped."""
        size = sum(delta_bytes(delta) for delta in deltas)
        if self._bytes + size > OUTBOX_BYTES_MAX:
            return len(deltas)
        self._batches.append((committed_at, deltas, size))
        self._bytes += size
        return 0

    def take(self) -> tuple[float, list[Delta]] | None:
        """Return the next push: the oldest commit's time and deltas of about 1 MiB; None when empty."""
        if not self._batches:
            return None
        committed_at = self._batches[0][0]
        deltas: list[Delta] = []
        total = 0
        while self._batches and (not total or total + self._batches[0][2] <= PUSH_BYTES_MAX):
            _, batch, size = self._batches.popleft()
            deltas += batch
            total += size
        self._bytes -= total
        return committed_at, deltas


def delta_bytes(delta: Delta) -> int:
    """Return about what a delta takes on the wire."""
    return len(delta.state) + len(delta.key) + 16
