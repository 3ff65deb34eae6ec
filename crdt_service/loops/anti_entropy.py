"""Repairs: compares this node's states with a peer's and gives each side what it lacks, at a bounded pace."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, cast

from crdt_service.kernel.error import MalformedError, ServiceError
from crdt_service.replication import repair
from crdt_service.replication.budget import Budget
from crdt_service.replication.commits import delta_bytes
from crdt_service.replication.port import Observer, Requester
from crdt_service.replication.repair import Difference, Node, Slots
from crdt_service.store.store import Store
from crdt_service.store.tree import SLOT_DEPTH, Tree
from crdt_service.wire.message import (
    WINDOW_MAX,
    Delta,
    FetchReply,
    FetchRequest,
    Reply,
    Request,
    RootReply,
    RootRequest,
    SumReply,
    SumRequest,
    encode_message,
)
from crdt_service.wire.number import encode_ascending

DIGEST_SLICE = 256
# How often stale digests are looked for, and how long that rests for what it takes. Raising them makes bursts longer.
FRESH_SECONDS = 0.1
FRESH_SHARE = 20
FETCH_NAMES_MAX = 4096
# Only a peer that has many others fetch large keys makes one begin again more often; the next repair goes on.
SNAPSHOTS_BEGUN_MAX = 8
# Replies about slots before the descent below them goes on: what was scanned for them is still there then.
SLOT_REPLIES_MAX = 16


class Refused(NamedTuple):
    """How many states were left out because they broke a rule: of the peer's here, of this node's there."""

    here: int
    there: int


_NONE = Refused(0, 0)


class AntiEntropy:
    """Repairs with all peers.

    Args:
        store: The states.
        observer: Learns how many bytes moved.
        join: Joins a peer's deltas durably; returns how many this node refused.
        push: Has a peer join deltas durably; returns how many it refused.
        agreed: Returns the newest agreement to purge that is known here.
    """

    def __init__(
        self,
        store: Store,
        observer: Observer,
        *,
        join: Callable[[list[Delta]], Awaitable[int]],
        push: Callable[[Requester, list[Delta]], Awaitable[int]],
        agreed: Callable[[], int] = int,
    ) -> None:
        self._store = store
        self._observer = observer
        self._join = join
        self._push = push
        self._agreed = agreed
        self._budget = Budget()
        self._turns: dict[str, asyncio.Lock] = {}
        # Which bits of sums each peer was shown last; the next time it is shown others.
        self._windows: dict[str, int] = {}

    async def repair(self, channel: Requester, slots: Slots, *, is_pulled: bool = True) -> Refused:
        """Make both sides equal in some slots (all if None), but for what is written meanwhile.

        Unless `is_pulled`, only the peer gets what it lacks.

        With one peer, one repair at a time; others wait for their turn.

        Returns:
            How many states either side refused.

        Raises:
            ServiceError: The peer left, refused or answered nonsense; the next repair goes on.
        """
        async with self._turns.setdefault(channel.node_id, asyncio.Lock()):
            await refresh(self._store)
            root = repair.encode_root(self._store, slots)
            build = partial(RootRequest, slots=repair.encode_slots(slots))
            theirs = cast(RootReply, await self._ask(channel, build)).root
            return _NONE if theirs == root else await self._equalize(channel, slots, theirs, is_pulled=is_pulled)

    async def _equalize(self, channel: Requester, slots: Slots, root: bytes, *, is_pulled: bool) -> Refused:
        window = self._windows[channel.node_id] = WINDOW_MAX - self._windows.get(channel.node_id, 0)
        found = repair.begin(window, root)
        for depth in range(SLOT_DEPTH):
            await self._descend(channel, slots, depth, found)
        rest, found.nodes = found.nodes, []
        refused = await self._transfer(channel, found, is_pulled=is_pulled)
        while rest:
            found = Difference(window, rest)
            rest = await self._descend(channel, slots, SLOT_DEPTH, found, SLOT_REPLIES_MAX)
            depth = SLOT_DEPTH
            while found.nodes:
                depth += 1
                await self._descend(channel, slots, depth, found)
            more = await self._transfer(channel, found, is_pulled=is_pulled)
            refused = Refused(refused.here + more.here, refused.there + more.there)
        return refused

    async def _descend(
        self, channel: Requester, slots: Slots, depth: int, found: Difference, replies_max: int = sys.maxsize
    ) -> list[Node]:
        """Replace the nodes of `depth` by those one deeper that differ; return those that no reply came to."""
        nodes, found.nodes = found.nodes, []
        tree = Tree(self._store, slots)
        scope = repair.encode_slots(slots) if depth < SLOT_DEPTH else b""
        while nodes and replies_max:
            asked = repair.take_nodes(tree, depth, nodes)
            numbers = encode_ascending([node for node, _ in asked])
            build = partial(SumRequest, slots=scope, window=found.window, depth=depth, nodes=numbers)
            reply = cast(SumReply, await self._ask(channel, build))
            repair.compare(tree, depth, asked, reply, found)
            nodes = nodes[reply.served :]
            replies_max -= 1
        return nodes

    async def _transfer(self, channel: Requester, found: Difference, *, is_pulled: bool) -> Refused:
        """Fetch what differs, then push what the peer lacks even so; return how many states were refused."""
        if not is_pulled:
            return Refused(0, await self._send(channel, [*sorted(found.theirs), *found.missing]))
        here = there = snapshot = part = begun = 0
        names = sorted(found.theirs)
        while names:
            asked = names[:FETCH_NAMES_MAX]
            agreed = self._agreed()
            build = partial(FetchRequest, names=repair.encode_names(asked), snapshot=snapshot, part=part, agreed=agreed)
            reply = cast(FetchReply, await self._ask(channel, build))
            if agreed != self._agreed():
                raise ServiceError("behind", "keys were purged meanwhile", "the next repair goes on")
            if reply.deltas:
                here += await self._join(reply.deltas)
            if not (0 < reply.served <= len(asked) or (reply.served == 0 and reply.snapshot and reply.deltas)):
                raise MalformedError("fetch: the reply does not fit the request")
            if not reply.served:
                part = part + 1 if reply.snapshot == snapshot else 1
                begun += part == 1
                if begun > SNAPSHOTS_BEGUN_MAX:
                    raise ServiceError("repair_postponed", "a key changed again and again amid its parts", "none")
                snapshot = reply.snapshot
                continue
            snapshot = part = begun = 0
            there += await self._send(channel, repair.plan_push(self._store, found, asked[: reply.served]))
            names = names[reply.served :]
        return Refused(here, there + await self._send(channel, found.missing))

    async def _send(self, channel: Requester, names: list[int]) -> int:
        refused = 0
        for deltas in repair.split_pushes(self._store, names):
            refused += await self._push(channel, deltas)
            await self._spend(sum(map(delta_bytes, deltas)))
        return refused

    async def _ask(self, channel: Requester, build: Callable[[int], Request]) -> Reply:
        reply = await channel.request(build)
        await self._spend(len(encode_message(build(0))) + len(encode_message(reply)))
        return reply

    async def _spend(self, sent_bytes: int) -> None:
        self._observer.on_repaired(sent_bytes)
        await asyncio.sleep(self._budget.spend(asyncio.get_running_loop().time(), sent_bytes))


async def keep_fresh(store: Store) -> None:
    """Bring digests up to date a little at a time, for ever, so that no repair has to at once what piled up.

    What it takes, it waits for twenty times as long: a large state that keeps changing is not hashed all the time.
    """
    time = asyncio.get_running_loop().time
    while True:
        started = time()
        await refresh(store)
        await asyncio.sleep(max(FRESH_SECONDS, FRESH_SHARE * (time() - started)))


async def refresh(store: Store) -> None:
    """Bring all digests up to date, letting others run in between."""
    while store.refresh_digests(DIGEST_SLICE):  # noqa: ASYNC110 - the work is done right here.
        await asyncio.sleep(0)
