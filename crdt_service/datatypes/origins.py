"""How many origins one state may be written under.

A state keeps something of each origin for good, so what a node adds is bounded here. Joins are not: two replicas that
were apart may each be at the bound, and what they held joins all the same. So decoding has no such bound, but that of
a part (see part.py), into which a state of any size is cut.
"""

from collections.abc import Collection

from crdt_service.kernel.error import OperationError

# Raising it lets more data directories, the lost ones included, write one key, at about 25 bytes each in its state.
ORIGINS_MAX = 4096


def check_origin(replica: str, *known: Collection[str]) -> None:
    """Refuse a write under an origin that is in none of the collections, once these hold `ORIGINS_MAX` others.

    Raises:
        OperationError: With code ``too_many_origins``.
    """
    if any(replica in origins for origins in known) or sum(map(len, known)) < ORIGINS_MAX:
        return
    if len(set().union(*known)) >= ORIGINS_MAX:
        raise OperationError(
            f"the key was written under {ORIGINS_MAX} origins, and this node's is none of them",
            "write through a node that has written it before, or use another key",
            "too_many_origins",
        )
