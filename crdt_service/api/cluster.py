"""What the backend sees of the cluster: members, links, placement, and whether that is healthy."""

from collections.abc import Callable, Collection

import msgspec

from crdt_service.api.call import Call, Response, show
from crdt_service.api.health import BackendFacts, Check, is_open, judge_backend
from crdt_service.api.route import Access, Route
from crdt_service.api.router import Router
from crdt_service.kernel.config import Config
from crdt_service.kernel.ident import check_key
from crdt_service.kernel.slot import SLOTS, slot_of
from crdt_service.membership.link import Link
from crdt_service.membership.ownership import Ownership
from crdt_service.membership.table import Member


class SeatView(msgspec.Struct):
    """A node that owns slots.

    Attributes:
        node: Its id.
        zone: Where it was when it was placed.
    """

    node: str
    zone: str


class ChangeView(msgspec.Struct):
    """A change of owners that is under way.

    Attributes:
        reason: What it is for: `resize`, `join`, `replace`, `upgrade`, `accept_loss` or `confirm_loss`.
        proposer: The node, or `operator`, that proposed it.
        slots_to_copy: By node, how many slots it has to copy still.
        waits_for: The nodes that have slots to copy, and those with a seat that this backend does not reach.
    """

    reason: str
    proposer: str
    slots_to_copy: dict[str, int]
    waits_for: list[str]


class PlacementView(msgspec.Struct):
    """How keys are spread.

    Attributes:
        slots: In how many slots all keys are.
        replication_factor: How many nodes own a slot.
        slots_owned: By node, how many it owns, or will once the change that is under way ends.
        epoch: Number of the placement; even if its seats own slots alone, odd amid a change; 0 as long as owners follow
            the live members, under the release before.
        node_count: How many nodes there are to be, 0 without a placement.
        seats: The nodes that own slots, or will once the change ends.
        change: The change that is under way, if any.
        lost: Seats whose loss an operator accepted and has not confirmed.
    """

    slots: int
    replication_factor: int
    slots_owned: dict[str, int]
    epoch: int
    node_count: int
    seats: list[SeatView]
    change: ChangeView | None
    lost: list[str]


class ClusterView(msgspec.Struct):
    """The cluster as this backend sees it."""

    members: list[Member]
    links: list[Link]
    placement: PlacementView


class OwnersView(msgspec.Struct):
    """Where a key is.

    Attributes:
        key: Its name; the key need not exist.
        slot: Its slot.
        owners: The nodes that own it, the one that is asked first before the others.
    """

    key: str
    slot: int
    owners: list[str]


class HealthView(msgspec.Struct):
    """Whether requests can be served.

    Attributes:
        status: healthy, degraded or unhealthy.
        environment: As configured.
        members: How many nodes are seen, and how many of them are reachable.
        checks: What the status is made of.
    """

    status: str
    environment: str
    members: dict[str, int]
    checks: list[Check]


class ReadyView(msgspec.Struct):
    """Whether a node is reachable."""

    ready: bool


class LiveView(msgspec.Struct):
    """That this process runs."""

    live: bool


class ClusterPages:
    """Views of the cluster."""

    def __init__(
        self, config: Config, router: Router, is_draining: Callable[[], bool], facts: Callable[[], BackendFacts]
    ) -> None:
        self._config = config
        self._router = router
        self._is_draining = is_draining
        self._facts = facts

    def routes(self) -> list[Route]:
        """Return what is served."""
        return [
            Route(
                "GET",
                "/v1/cluster",
                "show_cluster",
                Access.READ,
                "Show the members, the links of this backend, and how keys are spread.",
                self.show,
                result=ClusterView,
            ),
            Route(
                "GET",
                "/v1/placement/{key}",
                "show_placement",
                Access.READ,
                "Show which nodes own a key.",
                self.show_owners,
                result=OwnersView,
                errors=("invalid_key",),
            ),
            Route(
                "GET",
                "/health",
                "show_health",
                Access.PUBLIC,
                "Show whether requests can be served, and by how many nodes; 503 if by none.",
                self.show_health,
                result=HealthView,
                statuses=(200, 503),
                answers_per_second=50,
            ),
            Route(
                "GET",
                "/ready",
                "show_readiness",
                Access.PUBLIC,
                "Show whether a node is reachable and this process is not about to stop; 503 if not.",
                self.show_ready,
                result=ReadyView,
                statuses=(200, 503),
            ),
            Route(
                "GET",
                "/live",
                "show_liveness",
                Access.PUBLIC,
                "Show that this process runs.",
                self.show_live,
                result=LiveView,
            ),
        ]

    async def show(self, call: Call) -> Response:
        """Answer with members, links and placement."""
        links = self._router.links()
        reachable = {link.id for link in links if link.state == "reachable"}
        spread = view_placement(self._router.placement, self._router.uncopied(), reachable)
        return show(ClusterView(self._router.members(), links, spread))

    async def show_owners(self, call: Call) -> Response:
        """Answer with a key's owners.

        Raises:
            OperationError: It is no key.
        """
        slot = slot_of(check_key(call.rest))
        return show(OwnersView(call.rest, slot, list(self._router.placement.owners(slot))))

    async def show_ready(self, call: Call) -> Response:
        """Answer whether a node is reachable, and requests should come here."""
        ready = not self._is_draining() and any(link.state == "reachable" for link in self._router.links())
        return show(ReadyView(ready), 200 if ready else 503)

    async def show_live(self, call: Call) -> Response:
        """Answer."""
        return show(LiveView(True))

    async def show_health(self, call: Call) -> Response:
        """Answer with what `judge_backend` says."""
        facts = self._facts()
        status, checks = judge_backend(facts)
        members = {"seen": len(facts.connections), "reachable": sum(map(is_open, facts.connections))}
        view = HealthView(status, self._config.environment, members, checks)
        return show(view, 503 if status == "unhealthy" else 200)


def view_placement(ownership: Ownership, uncopied: dict[str, int], reachable: Collection[str]) -> PlacementView:
    """Return what is shown of a placement.

    Args:
        ownership: Who owns what.
        uncopied: By node, how many slots it has to copy still.
        reachable: The nodes that are connected.
    """
    document = ownership.document
    view = PlacementView(SLOTS, ownership.replication_factor, ownership.count(), ownership.epoch, 0, [], None, [])
    if document is None:
        return view
    current = document.next or document.old
    view.node_count, view.lost = current.node_count, document.lost
    view.seats = [SeatView(seat.node_id, seat.zone) for seat in current.seats]
    if document.next is not None:
        waits = uncopied.keys() | (set(ownership.nodes.values()) - set(reachable))
        view.change = ChangeView(document.reason, document.proposer, uncopied, sorted(waits))
    return view
