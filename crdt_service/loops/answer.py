"""A node's answers to requests, whatever carried them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from msgspec.structs import replace

from crdt_service.datatypes.registry import find_type
from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.ident import check_key
from crdt_service.loops.anti_entropy import refresh
from crdt_service.loops.changes import ChangeStream
from crdt_service.loops.commit import Committer
from crdt_service.loops.deciding import check_epoch
from crdt_service.loops.exchange import CONCERN_SECONDS_MAX, ELSEWHEN, Exchange, send_states, under
from crdt_service.loops.garbage import Collector
from crdt_service.loops.placing import Placer
from crdt_service.loops.transfer import Transfer
from crdt_service.loops.writing import Writer, show_key
from crdt_service.replication import repair
from crdt_service.replication.commits import PUSH_BYTES_MAX, group_deltas
from crdt_service.replication.listing import answer_conflicts, answer_list
from crdt_service.replication.port import Requester
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
    Placed,
    ProgressReply,
    ProgressRequest,
    PurgeRequest,
    PushReply,
    PushRequest,
    ReadManyRequest,
    ReadRequest,
    ReceiptRequest,
    RepairRequest,
    Reply,
    RestoreReply,
    RestoreRequest,
    RootRequest,
    StateReply,
    StateRequest,
    StoreRequest,
    SumRequest,
    TombstonesRequest,
    TypedRequest,
    VoteRequest,
    WriteManyRequest,
    WriteRequest,
    WritingRequest,
)

# Of one owner in one read with a quorum, beginnings anew included. Raising it reads larger keys, 1 MiB for each, and
# holds them in memory for each owner asked.
STATE_PARTS_MAX = 256
_GATHER_AGAIN_SECONDS = 0.02

T = TypeVar("T")

# Requests about data between nodes: they count only under one placement.
PlacedRequest = PushRequest | StateRequest | RepairRequest | VoteRequest | PurgeRequest
# What clients ask of keys; listings and changes show what is here, whoever owns it.
ServedRequest = ReadRequest | ReadManyRequest | WritingRequest | ExplainRequest | TypedRequest
Answer = Reply | Coroutine[Any, Any, Reply]


class Answerer:
    """Answers as a node does.

    Args:
        placer: Knows which placement holds, and whether this node serves.
        epoch: Names this run of the process to readers of its changes; never the same again, and not 0.
    """

    def __init__(
        self,
        node_id: str,
        store: Store,
        *,
        committer: Committer,
        replica: Replica,
        exchange: Exchange,
        transfer: Transfer,
        placer: Placer,
        collector: Collector,
        epoch: int,
    ) -> None:
        self._node_id = node_id
        self._store = store
        self._committer = committer
        self._replica = replica
        self._exchange = exchange
        self._transfer = transfer
        self._placer = placer
        self._snapshots = Snapshots()
        writer = Writer(store, committer, exchange, transfer, self._gather)
        stream = ChangeStream(store, epoch)
        # What may name a type.
        self._typed_answers: dict[type[StoreRequest], Callable[..., Answer]] = {
            ReadRequest: self._read,
            ReadManyRequest: writer.read_many,
            ExplainRequest: self._explain,
            WriteRequest: writer.write,
            WriteManyRequest: writer.write_many,
            DeleteRequest: writer.delete,
        }
        self._answers: dict[type[StoreRequest], Callable[..., Answer]] = {
            **self._typed_answers,
            TypedRequest: self._answer_typed,
            ReceiptRequest: writer.recall,
            VoteRequest: collector.vote,
            PurgeRequest: collector.purge,
            TombstonesRequest: collector.show_tombstones,
            AgreedRequest: lambda request: AgreedReply(request.id, replica.agreed),
            PushRequest: self._join,
            ProgressRequest: lambda request: ProgressReply(request.id, replica.progress.get(request.replica, 0)),
            StateRequest: self._show_states,
            OwnershipRequest: lambda request: OwnershipReply(
                request.id, exchange.version, repair.encode_slots(transfer.kept)
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

    def answer(
        self, request: StoreRequest, epoch: int = 0
    ) -> Answer | Placed[Reply] | Coroutine[Any, Any, Placed[Reply]]:
        """Return the reply to a request, or what to await for it where it waits for something.

        Args:
            request: What is asked.
            epoch: Of the placement under which it was sent, 0 for none; the reply has that under which it is sent.

        Raises:
            ServiceError: It was refused and changed nothing, unless its code says otherwise.
        """
        if isinstance(request, PlacedRequest):
            self._placer.check_epoch(epoch)
        elif isinstance(request, ServedRequest):
            asked = request.request if isinstance(request, TypedRequest) else request
            self._placer.check_serving(is_write=isinstance(asked, WritingRequest))
        answer = self._answers[type(request)](request)
        if not epoch:
            return answer
        return self._place(answer) if isinstance(answer, Coroutine) else Placed(self._replica.epoch, answer)

    async def _place(self, answer: Coroutine[Any, Any, Reply]) -> Placed[Reply]:
        reply = await answer
        return Placed(self._replica.epoch, reply)

    def _answer_typed(self, request: TypedRequest) -> Answer:
        find_type(request.type_name)
        asked = replace(request.request, id=request.id)
        return self._typed_answers[type(asked)](asked, request.type_name)

    def _read(self, request: ReadRequest, type_name: str = "") -> Answer:
        if request.concern is Concern.ONE:
            self._transfer.check_synced(request.key)
            return show_key(request.id, self._store, request.key, type_name)
        return self._read_quorum(request, type_name)

    async def _read_quorum(self, request: ReadRequest, type_name: str) -> Reply:
        await self._gather(request.key, request.concern)
        return show_key(request.id, self._store, request.key, type_name)

    async def _join(self, request: PushRequest) -> Reply:
        self._check_agreed(request.agreed)
        refused = await self._committer.join(request)
        return PushReply(request.id, refused, self._replica.progress.get(request.replica, 0))

    async def _restore(self, request: RestoreRequest) -> Reply:
        return RestoreReply(request.id, await self._committer.join_states(request.deltas))

    def _explain(self, request: ExplainRequest, type_name: str = "") -> Reply:
        self._transfer.check_synced(request.key)
        return show_key(request.id, self._store, request.key, type_name, explain=True)

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
        if not self._replica.epoch:  # Under a placement an owner that has not copied yet counts, too.
            self._transfer.check_synced(request.key)
        digest = _digest(self._store, request.key)
        if not request.snapshot and request.digest == digest:
            return StateReply(request.id, digest, [])
        encode = partial(self._store.split_key, request.key, PUSH_BYTES_MAX)
        return StateReply(request.id, digest, *self._snapshots.serve(request.snapshot, request.part, encode))

    async def _show_root(self, request: RootRequest) -> Reply:
        epoch = self._replica.epoch
        await refresh(self._store)
        check_epoch(self._replica.epoch, epoch)
        return repair.answer_root(self._store, request)

    async def _gather(self, key: str, concern: Concern) -> None:
        """Join the states of as many owners as `concern` asks, and give each of them what it lacks.

        So whatever a quorum has acknowledged is read, and nothing that was read is unread later. If the placement
        changes meanwhile, its owners are asked again from nothing.

        Raises:
            ServiceError: Too few owners answered.
        """
        check_key(key)
        try:
            async with asyncio.timeout(CONCERN_SECONDS_MAX):
                while not await self._gather_once(key, concern):  # noqa: ASYNC110 - others are to become ready.
                    await asyncio.sleep(_GATHER_AGAIN_SECONDS)
        except TimeoutError as error:
            raise ServiceError(
                "too_few_owners", "too few of the key's owners answered in time", "retry, or ask for less"
            ) from error

    async def _gather_once(self, key: str, concern: Concern) -> bool:
        """Return whether a quorum has answered under one placement, and holds what all of them have answered.

        Raises:
            ServiceError: Too few owners are reachable.
        """
        exchange, version = self._exchange, self._exchange.version
        exchange.check(key, concern)
        if not self._replica.epoch:
            self._transfer.check_synced(key)
        names = {name for group in exchange.groups(key) for name in group.owners}
        me = {exchange.me} & names if exchange.is_voting else set[str]()
        asking = _Asking(_digest(self._store, key), self._replica.agreed, set())
        # In the order of asking, and so are answers that come at once: a run can be repeated.
        waiting = {
            asyncio.create_task(_ask_states(name, under(peer.channel, self._replica.epoch), key, asking)): None
            for name, peer in exchange.peers.items()
            if name in names
        }
        answers: dict[str, _States] = {}
        held: set[str] = set()
        try:
            while waiting and not exchange.is_quorum(key, concern, (me | answers.keys()).__contains__):
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                answers |= {answer.name: answer for answer in _take_done(waiting) if answer is not None}
            async with contextlib.aclosing(self._spread(key, list(answers.values()), waiting)) as holders:
                async for name in holders:
                    held.add(name)
                    if exchange.is_quorum(key, concern, (me | held).__contains__):
                        break
        finally:
            for task in waiting:
                task.cancel()
        if version == exchange.version and exchange.is_quorum(key, concern, (me | held).__contains__):
            return True
        for name, peer in exchange.peers.items():
            if name in asking.elsewhen:
                await self._placer.meet(peer.channel)
        return False

    async def _spread(
        self, key: str, answers: list["_States"], later: dict[asyncio.Task["_States | None"], None]
    ) -> AsyncGenerator[str, None]:
        """Join what owners answered, then have them join what they lack; yield the name of each that holds it all.

        No other is waited for once the caller has enough: who is slow may be among those that answered, and who answers
        later counts as well.
        """
        for news in group_deltas((delta for answer in answers for delta in answer.deltas), PUSH_BYTES_MAX):
            await self._committer.join_states(news)
        joined = _digest(self._store, key)
        groups: list[list[Delta]] = []
        giving: dict[asyncio.Task[bool], str] = {}
        asked = dict(later)
        try:
            while True:
                for answer in answers:
                    if answer.digest == joined:
                        yield answer.name
                        continue
                    groups = groups or list(group_deltas(self._store.split_key(key, PUSH_BYTES_MAX), PUSH_BYTES_MAX))
                    giving[asyncio.create_task(_send_all(answer.channel, groups, self._replica))] = answer.name
                if not (giving or asked):
                    return
                await asyncio.wait([*giving, *asked], return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in giving if task.done()]:
                    name = giving.pop(task)
                    if task.result():
                        yield name
                answers = [states for states in _take_done(asked) if states is not None]
        finally:
            for task in giving:
                task.cancel()


@dataclass(frozen=True, slots=True)
class _States:
    """What an owner answered: the digest of what it holds, and all of that unless it is what we hold."""

    name: str
    channel: Requester
    digest: bytes
    deltas: list[Delta]


def _take_done(waiting: dict[asyncio.Task[T], None]) -> list[T]:
    """Take out the tasks that are done; return their results in the order in which they were started."""
    done = [task for task in waiting if task.done()]
    for task in done:
        del waiting[task]
    return [task.result() for task in done]


@dataclass(frozen=True, slots=True)
class _Asking:
    """What owners are told of what is held here; `elsewhen` gets the names of those under another placement."""

    digest: bytes
    agreed: int
    elsewhen: set[str]


async def _ask_states(name: str, channel: Requester, key: str, asking: _Asking) -> _States | None:
    """Return what an owner holds, None if it does not say."""
    snapshot = part = 0
    for _ in range(STATE_PARTS_MAX):
        build = partial(StateRequest, key=key, digest=asking.digest, snapshot=snapshot, part=part, agreed=asking.agreed)
        try:
            reply = cast(StateReply, await channel.request(build))
        except ServiceError as error:
            if error.code in ELSEWHEN:
                asking.elsewhen.add(name)
            return None
        if not snapshot or reply.snapshot not in {snapshot, 0}:
            states = _States(name, channel, reply.digest, [])
        states.deltas.extend(reply.deltas)
        if not reply.snapshot:
            return states
        part = part + 1 if reply.snapshot == snapshot else 1
        snapshot = reply.snapshot
    return None


async def _send_all(channel: Requester, groups: list[list[Delta]], replica: Replica) -> bool:
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
