"""How many owners a write or a read needs; pure arithmetic."""

from crdt_service.wire.message import Concern


def needed(concern: Concern, replication_factor: int) -> int:
    """Return how many of a key's owners `concern` asks for.

    It counts from the replicas that there should be: a node that knows of fewer members yet must not take itself for a
    majority.
    """
    if concern is Concern.ONE:
        return 1
    return replication_factor if concern is Concern.ALL else replication_factor // 2 + 1
