"""What replication needs from the outside, as arguments."""

from collections.abc import Callable
from typing import Protocol

from crdt_service.wire.message import Placed, Reply, Request


class Requester(Protocol):
    """What sends requests to one node."""

    node_id: str

    async def request(self, build: Callable[[int], Request]) -> Reply:
        """Send the request that `build` makes of an id; return its reply.

        Raises:
            UnreachableError: It was surely not sent.
            OutcomeUnknownError: It was sent and the reply is lost.
            ServiceError: The node refused.
        """
        ...


class Channel(Requester, Protocol):
    """An authenticated connection to one node.

    Attributes:
        replica: Names its data directory.
        protocol: The version of the protocol that both ends speak.
        unreachable: Nodes that the node has said it does not reach.
    """

    replica: str
    protocol: int
    unreachable: frozenset[str]

    async def request_placed(self, epoch: int, build: Callable[[int], Request]) -> Placed[Reply]:
        """As `request`, under the placement of this epoch; return the reply with the epoch it was sent in."""
        ...


class Journal(Protocol):
    """The durable log. Blocking; called from one thread at a time."""

    @property
    def log_bytes(self) -> int:
        """Size of the current log."""
        ...

    def append(self, payload: bytes) -> None:
        """Write and sync one record.

        Raises:
            StorageFullError: Nothing was written.
            OSError: The disk failed; the process must not go on.
        """
        ...

    def rest(self) -> None:
        """Sync what `append` noted beside the log; due soon after an append, and no answer waits for it.

        Raises:
            OSError: The disk failed; the process must not go on.
        """
        ...

    def rotate(self) -> int:
        """Start a new log; return its number, which a checkpoint then replaces all before.

        Raises:
            OSError: The old log goes on.
        """
        ...

    def write_snapshot(self, number: int, payloads: list[bytes], *, last: bool) -> None:
        """Add records to the snapshot that goes before log `number`; `last` completes it and drops what it replaces.

        Raises:
            OSError: The old files stay.
        """
        ...


class Observer(Protocol):
    """Where loops report what they did."""

    def on_synced(self, latency_seconds: float) -> None:
        """A peer's deltas were applied so long after their commit."""

    def on_repaired(self, sent_bytes: int) -> None:
        """A digest exchange moved these bytes."""

    def on_refused(self, count: int) -> None:
        """Deltas from a peer were refused."""

    def on_impossible_stamps(self, count: int) -> None:
        """Deltas from a peer had stamps that no clock can have made."""

    def on_conflict(self, type_name: str, strategy: str, count: int) -> None:
        """So many siblings joined others of this type, and this strategy decides between them."""

    def on_purged(self, count: int) -> None:
        """So many deleted keys were purged."""

    def on_storage(self, log_bytes: int) -> None:
        """The log has this size."""
