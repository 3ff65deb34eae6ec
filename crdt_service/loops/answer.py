"""A node's answers to requests, whatever carried them."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.ident import check_key
from crdt_service.loops.anti_entropy import refresh
from crdt_service.loops.changes import ChangeStream
from crdt_service.loops.commit import Committer
from crdt_service.loops.exchange import CONCERN_SECONDS_MAX, Exchange, send_states
from crdt_service.loops.garbage import Collector
from crdt_service.loops.writing import Writer, show
from crdt_service.replication import repair
from crdt_service.replication.commits import PUSH_BYTES_MAX, group_deltas
from crdt_service.replication.listing import answer_conflicts, answer_list
from crdt_service.replication.port import Channel
from crdt_service.replication.replica import Replica
from crdt_service.replication.snapshot import Snapshots
from crdt_service.store.scan import encode_digest
from crdt_service.store.store import Store
from crdt_service.wire.message import (
    AgreedReply,
    AgreedRequest,
    ChangesRequest,
    Concern,
    ConflictsRequest,
    DeleteRequest,
    Delta,
    ExplainRequest,
    FetchRequest,
    ListRequest,
    OwnershipReply,
    OwnershipRequest,
    ProgressReply,
    ProgressRequest,
    PurgeRequest,
    PushReply,
    PushRequest,
    ReadManyRequest,
    ReadRequest,
    ReceiptRequest,
    Reply,
    RestoreReply,
    RestoreRequest,
    RootRequest,
    StateReply,
    StateRequest,
    StoreRequest,
    SumRequest,
    TombstonesRequest,
    VoteRequest,
    WriteManyRequest,
    WriteRequest,
)

# Of one owner in one read with a quorum, beginnings anew included. Raising it reads larger keys, 1 MiB for each, and
# holds them in memory for each owner asked.
STATE_PARTS_MAX = 256

Answer = Reply | Coroutine[Any, Any, Reply]


class Answerer:
    """Answers as a node does.

    Args:
        epoch: Names this run of the process to readers of its changes; never the same again, and not 0.
    """

    def __init__(
        self,
        node_id: str,
        store: Store,
        committer: Committer,
        replica: Replica,
        exchange: Exchange,
        *,
        collector: Collector,
        epoch: int,
    ) -> None:
        self._node_id = node_id
        self._store = store
        self._committer = committer
        self._replica = replica
        self._exchange = exchange
        self._snapshots = Snapshots()
        writer = Writer(store, committer, exchange, self._gather)
        stream = ChangeStream(store, epoch)
        self._answers: dict[type[StoreRequest], Callable[[Any], Answer]] = {
            ReadRequest: self._read,
            ReadManyRequest: writer.read_many,
            WriteRequest: writer.write,
            WriteManyRequest: writer.write_many,
            DeleteRequest: writer.delete,
            ReceiptRequest: writer.recall,
            VoteRequest: collector.vote,
            PurgeRequest: collector.purge,
            TombstonesRequest: collector.show_tombstones,
            AgreedRequest: lambda request: AgreedReply(request.id, replica.agreed),
            PushRequest: self._join,
            ProgressRequest: lambda request: ProgressReply(request.id, replica.progress.get(request.replica, 0)),
            StateRequest: self._show_states,
            OwnershipRequest: lambda request: OwnershipReply(
                request.id, exchange.epoch, repair.encode_slots(exchange.kept)
            ),
            RootRequest: self._show_root,
            SumRequest: partial(repair.answer_sums, store),
            FetchRequest: self._show_fetched,
            ExplainRequest: self._explain,
            RestoreRequest: self._restore,
            ConflictsRequest: partial(answer_conflicts, store),
            ListRequest: self._list,
            ChangesRequest: stream.answer,
        }

    def answer(self, request: StoreRequest) -> Answer:
        """Return the reply to a request, or what to await for it where it waits for something.

        Raises:
            ServiceError: It was refused and changed nothing, unless its code says otherwise.
        """
        return self._answers[type(request)](request)

    def _read(self, request: ReadRequest) -> Answer:
        if request.concern is Concern.ONE:
            self._exchange.check_synced(request.key)
            return show(request.id, self._store.read(request.key))
        return self._read_quorum(request)

    async def _read_quorum(self, request: ReadRequest) -> Reply:
        await self._gather(request.key, request.concern)
        return show(request.id, self._store.read(request.key))

    async def _join(self, request: PushRequest) -> Reply:
        self._check_agreed(request.agreed)
        refused = await self._committer.join(request)
        return PushReply(request.id, refused, self._replica.progress.get(request.replica, 0))

    async def _restore(self, request: RestoreRequest) -> Reply:
        return RestoreReply(request.id, await self._committer.join_states(request.deltas))

    def _explain(self, request: ExplainRequest) -> Reply:
        self._exchange.check_synced(request.key)
        return show(request.id, self._store.read(request.key, explain=True))

    async def _list(self, request: ListRequest) -> Reply:
        await _order_keys(self._store)
        await refresh(self._store)
        return answer_list(self._store, request)

    def _show_fetched(self, request: FetchRequest) -> Reply:
        self._check_agreed(request.agreed)
        return repair.answer_fetch(self._store, self._snapshots, request)

    def _check_agreed(self, agreed: int) -> None:
        """Refuse to exchange states with who knows of purges that this node may have missed."""
        if self._replica.vouched < agreed:
            raise ServiceError("behind", f"node {self._node_id} missed an agreement to purge keys", "ask again later")

    def _show_states(self, request: StateRequest) -> Reply:
        self._check_agreed(request.agreed)
        self._exchange.check_synced(request.key)
        digest = _digest(self._store, request.key)
        if not request.snapshot and request.digest == digest:
            return StateReply(request.id, digest, [])
        encode = partial(self._store.split_key, request.key, PUSH_BYTES_MAX)
        return StateReply(request.id, digest, *self._snapshots.serve(request.snapshot, request.part, encode))

    async def _show_root(self, request: RootRequest) -> Reply:
        await refresh(self._store)
        return repair.answer_root(self._store, request)

    async def _gather(self, key: str, concern: Concern) -> None:
        """Join the states of as many owners as `concern` asks, and give each of them what it lacks.

        So whatever a quorum has acknowledged is read, and nothing that was read is unread later.

        Raises:
            ServiceError: Too few owners answered.
        """
        self._exchange.check(check_key(key), concern)
        owners = self._exchange.owners(key)
        self._exchange.check_synced(key)
        missing = self._exchange.needed(concern) - (self._node_id in owners)
        digest = _digest(self._store, key)
        agreed = self._replica.agreed
        waiting = {
            asyncio.create_task(_ask_states(channel, key, digest, agreed))
            for node_id, channel in self._exchange.channels.items()
            if node_id in owners
        }
        answers: list[_States] = []
        held = 0
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CONCERN_SECONDS_MAX):
                    while waiting and len(answers) < missing:
                        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                        answers += [answer for task in done if (answer := task.result()) is not None]
                    if len(answers) >= missing:
                        held = await self._spread(key, answers, waiting, missing)
        finally:
            for task in waiting:
                task.cancel()
        if held < missing:
            raise ServiceError(
                "too_few_owners",
                f"{held} other owners of the key hold what was read, {missing} are needed",
                "retry, or ask for less",
            )

    async def _spread(
        self, key: str, answers: list["_States"], later: set[asyncio.Task["_States | None"]], wanted: int
    ) -> int:
        """Join what owners answered, then have them join what they lack; return how many hold it all then.

        As soon as `wanted` of them do, no other is waited for: who is slow may be among those that answered, and who
        answers later counts as well.
        """
        for news in group_deltas((delta for answer in answers for delta in answer.deltas), PUSH_BYTES_MAX):
            await self._committer.join_states(news)
        joined = _digest(self._store, key)
        groups: list[list[Delta]] = []
        held, giving, asked = 0, set[asyncio.Task[bool]](), set(later)
        try:
            while True:
                for answer in answers:
                    if answer.digest == joined:
                        held += 1
                        continue
                    groups = groups or list(group_deltas(self._store.split_key(key, PUSH_BYTES_MAX), PUSH_BYTES_MAX))
                    giving.add(asyncio.create_task(_send_all(answer.channel, groups, self._replica)))
                if held >= wanted or not (giving or asked):
                    return held
                done, _ = await asyncio.wait({*giving, *asked}, return_when=asyncio.FIRST_COMPLETED)
                held += sum(task.result() for task in giving & done)
                answers = [states for task in asked & done if (states := task.result()) is not None]
                giving -= done
                asked -= done
        finally:
            for task in giving:
                task.cancel()


@dataclass(frozen=True, slots=True)
class _States:
    """What an owner answered: the digest of what it holds, and all of that unless it is what we hold."""

    channel: Channel
    digest: bytes
    deltas: list[Delta]


async def _ask_states(channel: Channel, key: str, digest: bytes, agreed: int) -> _States | None:
    """Return what an owner holds, None if it does not say."""
    snapshot = part = 0
    for _ in range(STATE_PARTS_MAX):
        build = partial(StateRequest, key=key, digest=digest, snapshot=snapshot, part=part, agreed=agreed)
        try:
            reply = cast(StateReply, await channel.request(build))
        except ServiceError:
            return None
        if not snapshot or reply.snapshot not in {snapshot, 0}:
            states = _States(channel, reply.digest, [])
        states.deltas.extend(reply.deltas)
        if not reply.snapshot:
            return states
        part = part + 1 if reply.snapshot == snapshot else 1
        snapshot = reply.snapshot
    return None


async def _send_all(channel: Channel, groups: list[list[Delta]], replica: Replica) -> bool:
    """Return whether an owner took all of it."""
    try:
        return not any([await send_states(channel, deltas, replica) for deltas in groups])
    except ServiceError:
        return False


def _digest(store: Store, key: str) -> bytes:
    return encode_digest(store.digest(key))


async def _order_keys(store: Store) -> None:
    """Build what the first listing needs, letting others run in between."""
    for slot in store.index.missing():
        store.index.build(slot, store.slots[slot])
        await asyncio.sleep(0)
