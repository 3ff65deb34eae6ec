"""What a node does with an open channel to a peer: repair at once, then push commits and repair at each interval."""

import asyncio
import logging
from functools import partial
from typing import cast

from crdt_service.kernel.error import ServiceError
from crdt_service.loops.commit import Committer
from crdt_service.replication import repair
from crdt_service.replication.outbox import Outbox, delta_bytes
from crdt_service.replication.port import Channel, Observer
from crdt_service.store.store import Store
from crdt_service.wire.message import (
    BUCKETS,
    DIGEST_BYTES,
    BucketReply,
    BucketRequest,
    Delta,
    FetchReply,
    FetchRequest,
    PushReply,
    PushRequest,
    RootReply,
    RootRequest,
)

DIGEST_SLICE = 256
FETCH_NAMES_MAX = 4096
_log = logging.getLogger(__name__)


class Exchange:
    """Pushes to and repairs with all peers."""

    def __init__(self, store: Store, committer: Committer, observer: Observer, sync_interval_seconds: float) -> None:
        self._store = store
        self._committer = committer
        self._observer = observer
        self._sync_interval_seconds = sync_interval_seconds
        self._outboxes: dict[Outbox, asyncio.Event] = {}
        committer.subscribe(self.publish)

    def publish(self, committed_at: float, deltas: list[Delta]) -> None:
        """Queue durable deltas for every peer."""
        for outbox, wake in self._outboxes.items():
            dropped = outbox.put(committed_at, deltas)
            if dropped:
                self._observer.on_dropped(dropped)
            wake.set()

    async def run(self, channel: Channel) -> None:
        """Serve one peer until cancelled."""
        outbox, wake = Outbox(), asyncio.Event()
        self._outboxes[outbox] = wake  # Before the first repair, so that nothing falls between both.
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._push(channel, outbox, wake))
                group.create_task(self._repair(channel))
        finally:
            del self._outboxes[outbox]

    async def _push(self, channel: Channel, outbox: Outbox, wake: asyncio.Event) -> None:
        while True:
            await wake.wait()
            wake.clear()
            while (push := outbox.take()) is not None:
                try:
                    await send_push(channel, *push)
                except ServiceError as error:
                    self._observer.on_dropped(len(push[1]))
                    _log.warning("push to %s: %s", channel.node_id, error)

    async def _repair(self, channel: Channel) -> None:
        while True:
            try:
                await self.repair(channel)
            except ServiceError as error:
                _log.warning("repair with %s: %s", channel.node_id, error)
            await asyncio.sleep(self._sync_interval_seconds)

    async def repair(self, channel: Channel) -> None:
        """Compare all states with a peer's, and give each side what it lacks.

        Raises:
            ServiceError: The peer left or refused; the next repair goes on.
        """
        await refresh(self._store)
        root = self._store.digests.root()
        answer = cast(RootReply, await channel.request(partial(RootRequest, root=root)))
        self._observer.on_repaired(DIGEST_BYTES * (1 + len(answer.buckets)))
        if len(answer.buckets) not in (0, BUCKETS):
            return
        for bucket in repair.plan_buckets(self._store, answer.buckets):
            held = cast(BucketReply, await channel.request(partial(BucketRequest, bucket=bucket)))
            self._observer.on_repaired(2 * DIGEST_BYTES * len(held.entries))
            fetch, push = repair.plan_states(self._store, bucket, dict(held.entries))
            await self._fetch(channel, fetch)
            for deltas in repair.split_pushes(self._store, push):
                await send_push(channel, 0.0, deltas)
                self._observer.on_repaired(sum(map(delta_bytes, deltas)))

    async def _fetch(self, channel: Channel, names: list[bytes]) -> None:
        while names:
            asked = names[:FETCH_NAMES_MAX]
            reply = cast(FetchReply, await channel.request(partial(FetchRequest, names=asked)))
            self._observer.on_repaired(DIGEST_BYTES * len(asked) + sum(map(delta_bytes, reply.deltas)))
            if reply.deltas:
                await self._committer.join(reply.deltas, 0.0)
            if not 0 < reply.served <= len(asked):
                return
            names = names[reply.served :]


async def send_push(channel: Channel, committed_at: float, deltas: list[Delta]) -> int:
    """Push durable deltas; return how many the peer refused, once the rest is durable there."""
    reply = await channel.request(partial(PushRequest, committed_at=committed_at, deltas=deltas))
    return cast(PushReply, reply).refused


async def refresh(store: Store) -> None:
    """Bring all digests up to date, letting others run in between."""
    while store.refresh_digests(DIGEST_SLICE):  # noqa: ASYNC110 - the work is done right here.
        await asyncio.sleep(0)
