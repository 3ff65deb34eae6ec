"""What nodes say of placements when an operator asks all of them: the newest document, and each one's word."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from crdt_service.kernel.config import split_address
from crdt_service.kernel.error import ServiceError
from crdt_service.membership.document import check_document
from crdt_service.membership.link import Endpoint
from crdt_service.membership.ownership import follow_document
from crdt_service.membership.table import DEAD
from crdt_service.net.channel import Channel
from crdt_service.net.operator import Operator
from crdt_service.replication.copying import decode_bits
from crdt_service.wire.message import (
    PROTOCOL,
    MemberUpdate,
    PlacementDocument,
    PlacementReply,
    PlacementRequest,
    PlacementWord,
    ProposeRequest,
    TableReply,
    TableRequest,
)

# Raising it waits longer for a node that accepts connections and says nothing.
ANSWER_SECONDS_MAX = 5.0

Report = Callable[[str], None]


@dataclass(frozen=True)
class Sighting:
    """A node that answered.

    Attributes:
        node_id: Its name.
        replica: Names its directory.
        address: Where it answered.
        word: What it says of itself and placements; None from one of the release before, which knows of none.
    """

    node_id: str
    replica: str
    address: Endpoint
    word: PlacementWord | None


@dataclass(frozen=True)
class Survey:
    """What all nodes that answered said.

    Attributes:
        sightings: By directory name.
        members: Live members by node id, as those who answered know them, whether or not they answered themselves.
        document: The newest placement that any of them has taken up; None if there is none.
    """

    sightings: dict[str, Sighting]
    members: dict[str, MemberUpdate]
    document: PlacementDocument | None

    def find(self, replicas: Iterable[str]) -> list[Sighting]:
        """Return those of some directories that answered."""
        return [self.sightings[replica] for replica in replicas if replica in self.sightings]

    def uncopied(self) -> dict[str, int]:
        """Return how many slots each next owner has to copy still, by node id; of one that does not answer, all."""
        return {} if self.document is None else follow_document(self.document).uncopied(self._copied)

    def _copied(self, replica: str) -> frozenset[int]:
        sighting = self.sightings.get(replica)
        word = None if sighting is None else sighting.word
        if word is None or self.document is None or word.epoch != self.document.epoch:
            return frozenset()
        return decode_bits(word.copied)


async def survey(operator: Operator, peers: Sequence[Endpoint]) -> Survey:
    """Ask these nodes and all live members that they know of."""
    sightings: dict[str, Sighting] = {}
    members: dict[str, MemberUpdate] = {}
    documents: list[PlacementDocument] = []
    asked: set[Endpoint] = set()
    waiting = set(peers)
    while waiting:
        asked |= waiting
        answers = await asyncio.gather(*(_ask(operator, address) for address in waiting))
        waiting = set()
        for sighting, updates, document in filter(None, answers):
            sightings[sighting.replica] = sighting
            documents += [] if document is None else [document]
            for update in updates:
                known = members.setdefault(update.node_id, update)
                if update.incarnation > known.incarnation:
                    members[update.node_id] = update
        seen = {sighting.node_id for sighting in sightings.values()}
        waiting = {
            split_address(member.address, f"address of {member.node_id}")
            for member in members.values()
            if member.address and member.node_id not in seen
        } - asked
    return Survey(sightings, members, max(documents, key=lambda document: document.epoch, default=None))


async def propose(operator: Operator, address: Endpoint, request: Callable[[int], ProposeRequest]) -> PlacementReply:
    """Have a node propose a document.

    Raises:
        ServiceError: It refuses, cannot be reached, or finds too few others.
    """
    async with operator.connect(address) as (channel, _):
        return cast(PlacementReply, await channel.request(request))


async def _ask(
    operator: Operator, address: Endpoint
) -> tuple[Sighting, list[MemberUpdate], PlacementDocument | None] | None:
    """Return what one node says and knows, None if it does not answer."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX), operator.connect(address) as (channel, identity):
            table = cast(TableReply, await channel.request(partial(TableRequest, updates=[])))
            updates = [update for update in table.updates if update.liveness < DEAD]
            word, document = await _ask_placement(channel)
            return Sighting(identity.node_id, identity.replica, address, word), updates, document
    except (ServiceError, TimeoutError):
        return None


async def _ask_placement(channel: Channel) -> tuple[PlacementWord | None, PlacementDocument | None]:
    if channel.protocol < PROTOCOL:
        return None, None
    reply = cast(PlacementReply, await channel.request(partial(PlacementRequest, word=PlacementWord(0))))
    if reply.document is not None:
        check_document(reply.document)
    return reply.word, reply.document
