"""Who is in the cluster, as one process sees it: addresses from discovery, node ids from handshakes."""

from typing import Literal

import msgspec

Endpoint = tuple[str, int]
State = Literal["connecting", "reachable", "unreachable", "refused", "self"]


class Member(msgspec.Struct, frozen=True):
    """One address and what is known of it; `id` is empty until a handshake told it."""

    id: str
    address: str
    state: State


class View:
    """Members by address."""

    def __init__(self) -> None:
        self._members: dict[Endpoint, Member] = {}

    def plan(self, discovered: set[Endpoint]) -> tuple[set[Endpoint], set[Endpoint]]:
        """Return (addresses to connect, addresses to drop) for what discovery found, and take both in."""
        known = set(self._members)
        for endpoint in discovered - known:
            self._members[endpoint] = Member("", f"{endpoint[0]}:{endpoint[1]}", "connecting")
        for endpoint in known - discovered:
            del self._members[endpoint]
        return discovered - known, known - discovered

    def update(self, endpoint: Endpoint, state: State, node_id: str | None = None) -> bool:
        """Set a member's state, and its id if given; return whether that is news."""
        old = self._members.get(endpoint)
        if old is None:
            return False
        self._members[endpoint] = Member(old.id if node_id is None else node_id, old.address, state)
        return self._members[endpoint] != old

    def peers(self) -> list[Member]:
        """Return all members but this process itself, by id and address."""
        others = (member for member in self._members.values() if member.state != "self")
        return sorted(others, key=lambda member: (member.id, member.address))
