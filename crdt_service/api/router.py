"""Sends reads and writes to nodes, and tries another only where that cannot apply a write twice."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

from msgspec.structs import replace

from crdt_service.api.freshness import Freshness, is_better_asked
from crdt_service.api.many import Allowance, Answer, Hold, Outcome, Send, name_items, spread
from crdt_service.api.owners import Cluster, Directory, Owners
from crdt_service.api.proximity import Kind, Proximity
from crdt_service.api.reading import ELSEWHERE, NO_NODE, Reader, refusal
from crdt_service.api.recall import find_out, recalling
from crdt_service.api.session import covers, holds
from crdt_service.api.settling import Settled, settle, settle_by
from crdt_service.datatypes.registry import is_repeatable
from crdt_service.kernel.error import OutcomeUnknownError, ServiceError, UnreachableError
from crdt_service.membership.link import Link
from crdt_service.membership.ownership import Ownership
from crdt_service.membership.table import Member
from crdt_service.replication.listing import Merged, merge_keys
from crdt_service.replication.port import Channel
from crdt_service.wire.message import (
    Concern,
    DeleteRequest,
    ExplainRequest,
    FailureReply,
    ListedKey,
    ListReply,
    ListRequest,
    ManyReply,
    ReadManyRequest,
    ReadRequest,
    Reply,
    Request,
    Token,
    TypedRequest,
    TypedRequestBody,
    ValueReply,
    WriteItem,
    WriteManyRequest,
    WriteRequest,
)

# Of keys that did not fit into an answer.
_UNREAD = FailureReply(0, "unread", "", "")
# Raising them reads many keys quicker, those that their first owner lacks one by one and others 4 MiB at once, and has
# more values on their way that may find no room in the answer.
READS_AT_ONCE_MAX = 16
GROUPS_AT_ONCE_MAX = 4
# No further node is tried after so long, and what a lost write became is not looked for any more. With what the last
# one takes to fall silent it is less than 2 s.
TRY_SECONDS_MAX = 1.3
# What decides on a conditional write answers within it, or what became of the write is unknown.
DECISION_SECONDS_MAX = 1.8


class KeyPage(NamedTuple):
    """Keys of a listing.

    Attributes:
        keys: In the order of code points.
        after: What the next page is asked for with; None at the end.
        unanswered: Nodes that did not answer, or whose word of a key could not be joined with the others': what they
            hold may be missing.
        other_types: The further types of those keys that hold several.
    """

    keys: list[ListedKey]
    after: str | None
    unanswered: list[str]
    other_types: Mapping[str, Sequence[str]]


class Router:
    """Routes by key, or to the node that the caller pins.

    What was seen of a key through it, by an acknowledged write or by a read that pinned no node, is seen by all that
    comes later through it, for as long as an owner that holds that answers.

    Args:
        directory: Channels to nodes.
        cluster: Members and placement.
        proximity: Orders the owners of a key.
        is_clustered: Whether nodes hand over what they do not own; else only owners are asked.
    """

    def __init__(
        self,
        directory: Directory,
        cluster: Cluster,
        proximity: Proximity | None = None,
        *,
        is_clustered: bool = True,
    ) -> None:
        self._directory = directory
        self._cluster = cluster
        proximity = proximity or Proximity("")
        self._owners = Owners(directory, cluster, proximity, is_clustered=is_clustered)
        self._freshness = Freshness(self._owners)
        self._reader = Reader(self._owners, self._freshness, proximity)

    @property
    def placement(self) -> Ownership:
        """The owners of every slot."""
        return self._cluster.placement

    def uncopied(self) -> dict[str, int]:
        """Return how many slots each next owner has to copy still, by node id."""
        return self._cluster.uncopied()

    def owners(self, slot: int) -> Sequence[str]:
        """Return the ids of the nodes that own a slot, the preferred one first."""
        return self._cluster.placement.owners(slot)

    def members(self) -> list[Member]:
        """Return every member."""
        return self._cluster.members()

    def links(self) -> list[Link]:
        """Return every link to a node."""
        return self._directory.peers()

    async def read(self, key: str, node_id: str | None, concern: Concern = Concern.ONE, type_name: str = "") -> Answer:
        """Return (node id, its reply) from the first node that knows of the key, or of what it holds of `type_name`.

        Owners are asked first, those before the others that hold what was seen of it. An owner that knows that it was
        emptied says so, and that is an answer. Of one that never heard of the key it is none: writes may be on their
        way to it, so a key is missing only if no owner that answers knows of it; what a node that owns nothing of it
        lacks says nothing.

        Raises:
            ServiceError: None does, or the node refuses.
        """
        kind: Kind = "read" if concern is Concern.ONE else "quorum"
        build = _typed(partial(ReadRequest, key=key, concern=concern), type_name)
        if node_id is not None:
            return await self._ask_pinned(key, node_id, build)
        return await self._reader.read(key, build, kind, TRY_SECONDS_MAX, is_hedged=True)

    async def write(
        self,
        key: str,
        type_name: str,
        op: bytes,
        node_id: str | None,
        *,
        concern: Concern = Concern.ONE,
        is_read: bool = False,
        if_match: bytes | None = None,
        idempotency_key: str = "",
        is_named: bool = False,
    ) -> Answer:
        """Return (node id, its reply) once the write is as durable as `concern` asks.

        Another node is tried only if the one before surely did not apply the write, or if it may be applied twice as
        `Datatype.is_repeatable` says: a counter would count twice. Of a named write whose answer is lost, its node is
        asked again once it is back, and the other owners whether they have it.

        With `if_match` it is applied only if the key has that digest, or is missing if it is empty; the key's first
        owner decides, and no other node. An `idempotency_key` that is not empty names the write: sent again under it,
        it has no second effect. With `is_named` it is taken by a key that holds the type, though readers see another
        one of it.

        Raises:
            OutcomeUnknownError: A node got the write and its answer is lost.
            ServiceError: It was refused everywhere.
        """
        [item] = _named([WriteItem(key, type_name, op, if_match)], idempotency_key)
        request = partial(
            WriteRequest,
            key=key,
            type_name=type_name,
            op=op,
            concern=concern,
            is_read=is_read,
            if_match=if_match,
            token=item.token,
        )
        may_repeat = if_match is None and is_repeatable(type_name)
        build = _typed(request, type_name if is_named else "")
        return await self._write(
            key, node_id, build, item.token, concern, may_repeat=may_repeat, is_conditional=if_match is not None
        )

    async def write_many(
        self,
        items: Sequence[WriteItem],
        node_id: str | None = None,
        *,
        concern: Concern = Concern.ONE,
        is_read: bool = False,
        idempotency_key: str = "",
        type_name: str = "",
        hold: Hold = lambda size_bytes: None,
    ) -> list[Outcome]:
        """Return what became of each write, in order: (node id, its reply), or why it was refused.

        They do not depend on each other; those of one key are applied in their order. At most 256; of values, those of
        one node that fit in about 4 MiB, 16 MiB of all, and what `hold` lets pass. An `idempotency_key` that is not
        empty names the whole batch: sent again under it, no item has a second effect. `type_name` names the one type of
        all items, which readers may not see.
        """
        named = _named(items, idempotency_key)
        allowance = Allowance(hold)

        async def send(channel: Channel, places: list[int]) -> Sequence[ValueReply | FailureReply]:
            part = [named[place] for place in places]
            build = _typed(partial(WriteManyRequest, items=part, concern=concern, is_read=is_read), type_name)
            keys = list(dict.fromkeys(item.key for item in part))
            before = {} if node_id is not None else await self._freshness.catch_up_all(channel, keys)
            if any(item.if_match is not None for item in part):
                results = cast(ManyReply, await self._decide(channel, build)).results
            else:
                results = cast(ManyReply, await channel.request(build)).results
            for item, result in zip(part, results, strict=False):
                if isinstance(result, ValueReply) and result.type_name:
                    self._freshness.note_write(item.key, before.get(item.key), channel, result)
            return [allowance.strip(each) if isinstance(each, ValueReply) else each for each in results]

        def may_repeat(place: int) -> bool:
            return items[place].if_match is None and is_repeatable(items[place].type_name)

        conditional = {item.key for item in items if item.if_match is not None}
        return await self._spread(
            [item.key for item in items], node_id, send, "write", may_repeat, conditional=conditional
        )

    async def read_many(
        self,
        keys: Sequence[str],
        node_id: str | None = None,
        concern: Concern = Concern.ONE,
        type_name: str = "",
        *,
        hold: Hold = lambda size_bytes: None,
    ) -> list[Outcome]:
        """Return for each key, in order, what `read` would return or raise; at most 256.

        A value for which there is no room in the answer is refused with `value_too_large`, one that `hold` does not let
        pass with its error. A key that is named again is read once, and its value counts again.
        """
        allowance = Allowance(hold)
        distinct = list(dict.fromkeys(keys))
        outcomes = await self._read_distinct(distinct, node_id, concern, type_name, allowance)
        shown: set[str] = set()
        results: list[Outcome] = []
        for key in keys:
            outcome = outcomes[key]
            error = allowance.check(outcome[1]) if key in shown and isinstance(outcome, tuple) else None
            results.append(error or outcome)
            shown.add(key)
        return results

    async def _read_distinct(
        self, keys: Sequence[str], node_id: str | None, concern: Concern, type_name: str, allowance: Allowance
    ) -> dict[str, Outcome]:
        outcomes: list[Outcome] = [NO_NODE] * len(keys)
        before = {key: self._freshness.look(key) for key in keys}
        refused: dict[int, ServiceError] = {}
        free = asyncio.Semaphore(GROUPS_AT_ONCE_MAX)

        def admit(place: int, reply: ValueReply) -> ValueReply:
            error = allowance.check(reply)
            if error is None:
                return reply
            refused[place] = error
            return replace(reply, value=b"", conflict=b"")

        def take(channel: Channel, place: int, reply: ValueReply) -> ValueReply | FailureReply:
            key = keys[place]
            if node_id is None:
                if not self._freshness.counts(before[key], channel, reply):
                    return _UNREAD
                self._freshness.note_read(key, before[key], channel, reply)
            return admit(place, reply)

        async def send(channel: Channel, places: list[int]) -> Sequence[ValueReply | FailureReply]:
            async with free:
                part = [keys[place] for place in places]
                request = _typed(partial(ReadManyRequest, keys=part), type_name)
                results = cast(ManyReply, await channel.request(request)).results
                admitted = [
                    take(channel, place, result) if isinstance(result, ValueReply) else result
                    for place, result in zip(places, results, strict=False)
                ]
            return [*admitted, *([_UNREAD] * (len(part) - len(results)))]

        if concern is Concern.ONE:
            outcomes = await self._spread(keys, node_id, send, "read", lambda _: False)
        # What the first owner has not, or not in this answer, is looked for as one key is.
        lacking = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, ServiceError)]
        left = iter(lacking)
        reading = min(len(lacking), READS_AT_ONCE_MAX, _fitting(allowance))

        async def read_left() -> None:
            nonlocal reading
            for place in left:
                if refused:  # What is large is not fetched in vain, again and again.
                    refused[place] = next(iter(refused.values()))
                    continue
                try:
                    node, reply = await self.read(keys[place], node_id, concern, type_name)
                    outcomes[place] = node, admit(place, reply)
                except ServiceError as error:
                    outcomes[place] = error
                if reading > max(1, _fitting(allowance)):  # Fewer at once, as values are large or little room is left.
                    reading -= 1
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(reading):
                group.create_task(read_left())
        return {key: refused.get(place, outcomes[place]) for place, key in enumerate(keys)}

    async def delete(
        self,
        key: str,
        node_id: str | None,
        concern: Concern = Concern.ONE,
        *,
        if_match: bytes | None = None,
        idempotency_key: str = "",
        type_name: str = "",
    ) -> Answer:
        """Return (node id, its reply) once a node that has the key has emptied it as durably as `concern` asks.

        Emptying again empties nothing that was not there, so another owner is asked as for a read; but not if it is
        conditional: then it is as for a write, with the same `if_match` and `idempotency_key`. With a `type_name` it
        empties the key of that type alone.

        Raises:
            OutcomeUnknownError: A node got it and its answer is lost, and no other emptied the key.
            ServiceError: It was refused, or no node that should have the key answers.
        """
        [item] = _named([WriteItem(key, type_name, b"", if_match, is_delete=True)], idempotency_key)
        request = _typed(
            partial(DeleteRequest, key=key, concern=concern, if_match=if_match, token=item.token), type_name
        )
        if if_match is not None:
            return await self._write(key, node_id, request, item.token, concern, is_conditional=True)
        if node_id is not None:
            return await self._ask_pinned(key, node_id, request, is_change=True)
        return await self._reader.empty(key, request, TRY_SECONDS_MAX)

    async def list_keys(self, prefix: str, after: str, limit: int) -> KeyPage:
        """Return keys that begin with `prefix`, beyond `after`, empty to begin; at most `limit`, 1 to 1000.

        A key is there if any node that answers has it, unless its owners know that it was emptied. Without
        `unanswered`, no key is older than what any of its owners held when this began. A page may hold fewer than
        `limit`, even none, and not be last.

        Raises:
            ServiceError: No node answers.
        """
        answers, unanswered = await self.ask_all(partial(ListRequest, prefix=prefix, after=after, limit=limit))
        replies = {node_id: cast(ListReply, reply) for node_id, reply in answers.items()}
        merged, following = merge_keys(replies, limit, self._owners.of)
        settled = await settle(self._directory.channels, [each for each in merged if each.others], TRY_SECONDS_MAX)
        held, unread = await self._see(merged, settled)
        return KeyPage(
            [each.listed for each in held if each.listed.type_name],
            following,
            sorted({*unanswered, *settled.unjoined, *unread}),
            {each.listed.key: each.other_types for each in held if each.other_types},
        )

    async def explain(self, key: str, node_id: str | None, type_name: str = "") -> Answer:
        """Return the same as `read`, with the resolution of the key's conflicts.

        Raises:
            ServiceError: No node answers, or the node refuses.
        """
        build = _typed(partial(ExplainRequest, key=key), type_name)
        if node_id is not None:
            return await self._ask_pinned(key, node_id, build)
        return await self._reader.read(key, build, "read", TRY_SECONDS_MAX)

    async def ask_all(self, build: Callable[[int], Request]) -> tuple[dict[str, Reply], list[str]]:
        """Return the replies of all reachable nodes by node id, and the members that failed, refused or are away.

        Raises:
            ServiceError: No node answers.
        """
        channels = list(self._directory.channels.values())
        replies = await asyncio.gather(*(channel.request(build) for channel in channels), return_exceptions=True)
        answers: dict[str, Reply] = {}
        for channel, reply in zip(channels, replies, strict=True):
            if not isinstance(reply, BaseException):
                answers[channel.node_id] = reply
            elif not isinstance(reply, ServiceError):
                raise reply
        if not answers:
            raise ServiceError("no_node", "no node answers", "check the nodes; /v1/cluster lists them")
        members = {member.id for member in self.members() if member.state != "left"}
        return answers, sorted(members - answers.keys())

    async def _see(self, merged: Sequence[Merged], settled: Settled) -> tuple[list[Merged], set[str]]:
        """Return keys of a listing, none with less than was seen of it, and the owners of those that cannot be read."""
        held = {each.listed.key: settled.listed.get(each.listed.key, each) for each in merged}
        unread: set[str] = set()
        behind = [
            each.listed.key
            for each in merged
            if each.listed.key not in settled.complete and not self._is_seen(each.node_id, held[each.listed.key].listed)
        ]
        left = iter(behind)

        async def read_left() -> None:
            for key in left:
                try:
                    _, reply = await self.read(key, None)
                    held[key] = settle_by(held[key], reply)
                except ServiceError:
                    del held[key]
                    unread.update(self._owners.of(key)[:1])

        async with asyncio.TaskGroup() as reading:
            for _ in behind[:READS_AT_ONCE_MAX]:
                reading.create_task(read_left())
        return list(held.values()), unread

    def _is_seen(self, node_id: str, listed: ListedKey) -> bool:
        channel = self._directory.channels.get(node_id)
        seen = self._freshness.look(listed.key)
        return seen is None or (channel is not None and covers(seen, channel.replica, listed.digest))

    async def _spread(
        self,
        keys: Sequence[str],
        node_id: str | None,
        send: Send,
        kind: Kind,
        may_repeat: Callable[[int], bool],
        *,
        conditional: Collection[str] = (),
    ) -> list[Outcome]:
        last = NO_NODE if node_id is None else UnreachableError(node_id)
        # Once for each key, so that what goes to one key goes to one node, in its order.
        routes: dict[str, list[Channel]] = {}
        refused: dict[str, ServiceError] = {}
        for key in dict.fromkeys(keys):
            try:
                if key in conditional:
                    routes[key] = [self._owners.decider(key, node_id)]
                else:
                    routes[key] = self._route(key, node_id, kind)
            except ServiceError as error:
                routes[key], refused[key] = [], error
        if kind == "write":  # What follows on what was seen goes to who holds it, be that slow.
            for key, route in routes.items():
                seen = self._freshness.look(key)
                route.sort(key=lambda channel, seen=seen: not holds(seen, channel.replica))  # type: ignore[misc]
        outcomes = await spread(
            [routes[key] for key in keys],
            send,
            elsewhere=ELSEWHERE,
            last=last,
            may_repeat=may_repeat,
            seconds_max=TRY_SECONDS_MAX,
        )
        return [refused.get(key, outcome) for key, outcome in zip(keys, outcomes, strict=True)]

    def _route(self, key: str, node_id: str | None, kind: Kind) -> list[Channel]:
        return self._owners.choose(key, node_id, kind, self._freshness.look(key))

    async def _write(
        self,
        key: str,
        node_id: str | None,
        build: Callable[[int], Request],
        token: Token | None,
        concern: Concern,
        *,
        may_repeat: bool = False,
        is_conditional: bool = False,
    ) -> Answer:
        until = asyncio.get_running_loop().time() + TRY_SECONDS_MAX
        last: ServiceError = NO_NODE
        lost: OutcomeUnknownError | None = None
        channels = [self._owners.decider(key, node_id)] if is_conditional else self._route(key, node_id, "write")
        for number, channel in enumerate(channels):
            if number and asyncio.get_running_loop().time() >= until:
                break
            try:
                before = None if node_id is not None else await self._freshness.catch_up(channel, key)
                if is_better_asked(channels[number + 1 :], before, channel):
                    channels.append(channel)
                    continue
                send = self._decide(channel, build) if is_conditional else self._reader.timed(channel, build, "write")
                reply = cast(ValueReply, await send)
                self._freshness.note_write(key, before, channel, reply)
                return channel.node_id, reply
            except OutcomeUnknownError as error:
                lost = lost or error
                if not may_repeat:
                    break
            except ServiceError as error:
                if error.code not in ELSEWHERE:
                    raise lost or error from error
                last = error
        if lost is None:
            raise last
        if token is None or may_repeat:
            raise lost
        others = [] if node_id is not None else [name for name in self._owners.of(key) if name != channel.node_id]
        answer = await find_out(
            self._directory.channels,
            channel.node_id,
            others,
            build=build,
            recall=recalling(key, concern, token),
            elsewhere=ELSEWHERE,
            seconds_max=until - asyncio.get_running_loop().time(),
        )
        if answer is None:
            raise lost
        if (taker := self._directory.channels.get(answer[0])) is not None:
            self._freshness.note_write(key, self._freshness.look(key), taker, answer[1])
        return answer

    async def _ask_pinned(
        self, key: str, node_id: str, build: Callable[[int], Request], *, is_change: bool = False
    ) -> Answer:
        """Return the answer of one node, whatever was seen of the key."""
        [channel] = self._owners.choose(key, node_id, "read")
        try:
            reply = cast(ValueReply, await channel.request(build))
        except OutcomeUnknownError as error:
            raise error if is_change else UnreachableError(node_id) from error
        except ServiceError as error:
            raise refusal(error, node_id, is_change=is_change) from error
        if is_change and reply.type_name:
            self._freshness.note_write(key, None, channel, reply)
        return node_id, reply

    async def _decide(self, channel: Channel, build: Callable[[int], Request]) -> Reply:
        """Return the answer of the node that decides on a conditional write.

        Raises:
            OutcomeUnknownError: It is too slow, or its answer is lost.
        """
        try:
            async with asyncio.timeout(DECISION_SECONDS_MAX):
                return await self._reader.timed(channel, build, "write")
        except TimeoutError as error:
            raise OutcomeUnknownError(channel.node_id) from error


def _named(items: Sequence[WriteItem], idempotency_key: str) -> Sequence[WriteItem]:
    return name_items(items, idempotency_key) if idempotency_key else items


def _fitting(allowance: Allowance) -> int:
    """Return how many values as large as the largest one there is room for, at least 1."""
    return max(1, allowance.left // max(1, allowance.largest))


def _typed(build: Callable[[int], TypedRequestBody], type_name: str) -> Callable[[int], Request]:
    """Return what makes a request about one type of its keys, of the shown one for an empty name."""
    if not type_name:
        return build
    return lambda request_id: TypedRequest(request_id, type_name, build(request_id))
