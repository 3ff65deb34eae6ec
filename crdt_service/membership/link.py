"""Which addresses a process dials, and how that goes; who is in the cluster is what `swim` and `table` say."""

from collections.abc import Mapping
from typing import Literal

import msgspec

Endpoint = tuple[str, int]
State = Literal["connecting", "reachable", "unreachable", "refused", "self"]


class Link(msgspec.Struct, frozen=True):
    """One address and what is known of it; `id` is empty until a handshake told it."""

    id: str
    address: str
    state: State


class Links:
    """Links by address."""

    def __init__(self) -> None:
        self._links: dict[Endpoint, Link] = {}

    def plan(
        self, discovered: set[Endpoint], learned: Mapping[str, Endpoint] | None = None
    ) -> tuple[set[Endpoint], set[Endpoint]]:
        """Return (addresses to connect, addresses to drop), and take both in.

        Args:
            discovered: All that discovery found.
            learned: Addresses that gossip told, by node id; one is dialled unless another one leads to that node.
        """
        wanted = discovered | {
            endpoint for node_id, endpoint in (learned or {}).items() if not self._leads_elsewhere(node_id, endpoint)
        }
        known = set(self._links)
        for endpoint in wanted - known:
            self._links[endpoint] = Link("", f"{endpoint[0]}:{endpoint[1]}", "connecting")
        for endpoint in known - wanted:
            del self._links[endpoint]
        return wanted - known, known - wanted

    def update(self, endpoint: Endpoint, state: State, node_id: str | None = None) -> bool:
        """Set a link's state, and its node's id if given; return whether that is news."""
        old = self._links.get(endpoint)
        if old is None:
            return False
        self._links[endpoint] = Link(old.id if node_id is None else node_id, old.address, state)
        return self._links[endpoint] != old

    def peers(self) -> list[Link]:
        """Return all links but the one to this process itself, by id and address."""
        others = (link for link in self._links.values() if link.state != "self")
        return sorted(others, key=lambda link: (link.id, link.address))

    def _leads_elsewhere(self, node_id: str, endpoint: Endpoint) -> bool:
        return any(
            link.id == node_id and link.state in ("reachable", "self") and other != endpoint
            for other, link in self._links.items()
        )
