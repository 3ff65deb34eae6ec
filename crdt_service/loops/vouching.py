"""Has the others vouch for this directory before it counts: that it is no older copy of itself.

A volume that was rolled back has forgotten what it promised and acknowledged, and would give out again the numbers of
its writes. So each start takes a life number, durably, and tells it to every member with the number of the newest
commit. A member remembers the greatest of each seat, durably, and objects to one that is not above, or has fewer
commits than the member has of it. A number drawn for each start tells the same start, asking again, from another one.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import cast

from msgspec.structs import replace

from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.ident import new_replica
from crdt_service.loops.commit import Committer
from crdt_service.membership.document import replicas_of, seats_of
from crdt_service.replication.port import Channel
from crdt_service.replication.replica import Replica
from crdt_service.wire.message import PlacementState, VouchReply, VouchRequest

# How long a start waits for all members before it writes under a new origin. Raising it serves later while one is down.
VOUCH_SECONDS_MAX = 2.0
# How often a full disk is tried again.
ROOM_SECONDS = 0.5
_DRAWN_BITS = 52
_log = logging.getLogger(__name__)


class Voucher:
    """One who vouches, and is vouched for.

    Attributes:
        is_known: Whether enough members have vouched for this node, so that it counts in quorums; also while it has no
            seat, and once it is given one: no other copy of the directory has ever had that.
        is_settled: Whether this node may serve what it holds alone: all have vouched, or it writes under an origin that
            no other copy of it has.
        is_readable: Whether this node may show what it holds: also while its disk is too full to note that it started.

    Args:
        node_id: This node's name.
        replica: What this node durably knows.
        committer: Makes lives durable.
        randomness: Draws what tells one start from another, and origins.
        on_change: Called when `is_known` or `is_settled` may have changed.
        on_objection: Called with what a member says against this directory.
    """

    def __init__(
        self,
        node_id: str,
        replica: Replica,
        committer: Committer,
        *,
        randomness: random.Random,
        on_change: Callable[[], None],
        on_objection: Callable[[str], None],
    ) -> None:
        self._node_id = node_id
        self._replica = replica
        self._committer = committer
        self._random = randomness
        self._on_change = on_change
        self._on_objection = on_objection
        self._drawn = randomness.getrandbits(_DRAWN_BITS)
        self.is_known = self.is_settled = self.is_readable = not self._has_seat
        self._vouched: set[str] = set()
        self._all_vouched = asyncio.Event()
        self._taking_life = asyncio.Lock()
        self._has_life = False

    @property
    def _others(self) -> frozenset[str]:
        document = self._replica.placement.document
        return frozenset() if document is None else frozenset(seats_of(document)) - {self._replica.id}

    @property
    def _has_seat(self) -> bool:
        document = self._replica.placement.document
        return document is not None and self._replica.id in seats_of(document)

    async def start(self) -> None:
        """Take a life number, then return once all have vouched or the time is up; until then nothing is served.

        While the disk is full nothing can be noted: then reads are served, and this goes on once there is room.
        """
        if self.is_settled:
            return
        while not await self._take_life():
            await self._wait_for_room()
        self._count()
        try:
            async with asyncio.timeout(VOUCH_SECONDS_MAX):
                await self._all_vouched.wait()
        except TimeoutError:
            silent = sorted(self._others - self._vouched)
            _log.warning("%s did not vouch for this node in time: it writes under a new origin", ", ".join(silent))
            origin = new_replica(self._node_id, self._random)
            while not await self._committer.renew_origin(origin):
                await self._wait_for_room()
        self.is_settled, self.is_readable = True, True
        self._on_change()

    async def _wait_for_room(self) -> None:
        """Let reads be served while the disk is full."""
        self.is_readable = True
        await asyncio.sleep(ROOM_SECONDS)

    async def ask(self, channel: Channel) -> None:
        """Have a member vouch for this node, unless it has or this node has no seat."""
        if channel.replica not in self._others or channel.replica in self._vouched or not self._has_seat:
            return
        if not await self._take_life():
            return
        build = partial(
            VouchRequest, life=self._replica.placement.life, drawn=self._drawn, newest=self._replica.commits.newest
        )
        reply = cast(VouchReply, await channel.request(build))
        if reply.objection:
            self._on_objection(f"{channel.node_id}: {reply.objection}")
            return
        self._vouched.add(channel.replica)
        self._count()

    async def answer(self, replica: str, request: VouchRequest) -> VouchReply:
        """Return what speaks against a directory; nothing only once its life is durably known here.

        Raises:
            ServiceError: The disk is full.
        """
        objection = self._object(replica, request)
        if not objection:
            life = (request.life, request.drawn)

            def remember(state: PlacementState) -> PlacementState | None:
                return replace(state, lives={**state.lives, replica: max(state.lives.get(replica, life), life)})

            if self._replica.placement.lives.get(replica) != life and not await self._committer.place(remember):
                raise ServiceError("storage_full", "a life cannot be noted", "free space on this node's volume")
        return VouchReply(request.id, objection)

    def _object(self, replica: str, request: VouchRequest) -> str:
        life, drawn = self._replica.placement.lives.get(replica, (0, 0))
        if request.life < life or (request.life == life and drawn != request.drawn):
            return f"it knows of start {life} of this volume, and this is start {request.life}: it is an older copy"
        newest = self._replica.progress.get(replica, 0)
        if request.newest < newest:
            return f"it has {newest} commits of this volume, which holds {request.newest}: some are gone"
        return ""

    def _count(self) -> None:
        """Look whether enough have vouched; what is known once stays so, whoever comes to the members."""
        document = self._replica.placement.document
        if document is not None:
            voters = replicas_of(document.old) | {self._replica.id}
            self.is_known |= 2 * len(voters & (self._vouched | {self._replica.id})) > len(voters)
        if self._others <= self._vouched:
            self._all_vouched.set()
        self._on_change()

    async def _take_life(self) -> bool:
        """Take a life number, once in this process; return whether it has one."""
        async with self._taking_life:
            if not self._has_life:
                self._has_life = await self._committer.place(lambda state: replace(state, life=state.life + 1))
        return self._has_life
