"""Sends reads and writes to nodes, and tries another only where that cannot apply a write twice."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol, cast

from msgspec.structs import replace

from crdt_service.api.hedge import HedgeBudget, hedge
from crdt_service.api.many import Allowance, Answer, Hold, Outcome, Send, name_items, spread
from crdt_service.api.proximity import Kind, Proximity
from crdt_service.api.recall import find_out, recalling
from crdt_service.api.settling import settle
from crdt_service.datatypes.registry import is_repeatable
from crdt_service.kernel.error import OutcomeUnknownError, ServiceError, UnreachableError
from crdt_service.kernel.slot import slot_of
from crdt_service.membership.link import Link
from crdt_service.membership.ownership import Ownership
from crdt_service.membership.table import Member
from crdt_service.replication.listing import merge_keys
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

# Refusals that say more about the node than about the write.
_ELSEWHERE = {
    "storage_full",
    "overloaded",
    "stopping",
    "node_unreachable",
    "too_few_owners",
    "too_many_origins",
    "syncing",
    "behind",
    "fenced",
}
# Of keys that did not fit into an answer.
_UNREAD = FailureReply(0, "unread", "", "")
# A route found is used for so long. Raising it costs less, and asks closed channels and slow nodes for longer, in vain.
_ROUTES_SECONDS = 0.1
# Raising them reads many keys quicker, those that their first owner lacks one by one and others 4 MiB at once, and has
# more values on their way that may find no room in the answer.
READS_AT_ONCE_MAX = 16
GROUPS_AT_ONCE_MAX = 4
# What counts as the time of a node that was overtaken, which may never answer: two or three have it passed over, where
# the little that it was waited for would not.
OVERTAKEN_SECONDS = 0.25
# No further node is tried after so long, and what a lost write became is not looked for any more. With what the last
# one takes to fall silent it is less than 2 s.
TRY_SECONDS_MAX = 1.3
_NO_NODE = ServiceError("no_node", "no node is reachable", "check the nodes; /v1/cluster lists them")


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


class Directory(Protocol):
    """Open channels by node id, and all links."""

    @property
    def channels(self) -> Mapping[str, Channel]:
        """Channels by node id."""
        ...

    def peers(self) -> list[Link]:
        """Return every link."""
        ...


class Cluster(Protocol):
    """Who is in the cluster, and who owns which slot; both may be empty at first."""

    @property
    def placement(self) -> Ownership:
        """The owners of every slot."""
        ...

    def uncopied(self) -> dict[str, int]:
        """Return how many slots each next owner has to copy still, by node id."""
        ...

    def members(self) -> list[Member]:
        """Return every member, tombstones included."""
        ...


class Router:
    """Routes by key, or to the node that the caller pins.

    Args:
        directory: Channels to nodes.
        cluster: Members and placement.
        proximity: Orders the owners of a key.
    """

    def __init__(self, directory: Directory, cluster: Cluster, proximity: Proximity | None = None) -> None:
        self._directory = directory
        self._cluster = cluster
        self._proximity = proximity or Proximity("")
        self._hedges = HedgeBudget()
        self._routes: dict[tuple[Kind, tuple[str, ...], int], list[Channel]] = {}
        self._routes_until = 0.0
        self._routes_of = 0

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
        """Return (node id, its reply) from the first node that has the key, or holds something of it of `type_name`.

        Owners are asked first. Views of the members may differ for a moment, so a key is missing only if no owner that
        answers has it; what a node that owns nothing of it lacks says nothing.

        Raises:
            ServiceError: None does, or the node refuses.
        """
        kind: Kind = "read" if concern is Concern.ONE else "quorum"
        request = _typed(partial(ReadRequest, key=key, concern=concern), type_name)
        return await self._ask(key, node_id, request, kind, is_hedged=True)

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

        With `if_match` it is applied only if the key has that digest, or is missing if it is empty. An
        `idempotency_key` that is not empty names the write: sent again under it, it has no second effect. With
        `is_named` it is taken by a key that holds the type, though readers see another one of it.

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
        return await self._write(key, node_id, build, item.token, concern, may_repeat=may_repeat)

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
            request = partial(WriteManyRequest, items=part, concern=concern, is_read=is_read)
            results = cast(ManyReply, await channel.request(_typed(request, type_name))).results
            return [allowance.strip(each) if isinstance(each, ValueReply) else each for each in results]

        def may_repeat(place: int) -> bool:
            return items[place].if_match is None and is_repeatable(items[place].type_name)

        keys = [item.key for item in items]
        return await self._spread(keys, node_id, send, "write", may_repeat)

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
        outcomes: list[Outcome] = [_NO_NODE] * len(keys)
        refused: dict[int, ServiceError] = {}
        free = asyncio.Semaphore(GROUPS_AT_ONCE_MAX)

        def admit(place: int, reply: ValueReply) -> ValueReply:
            error = allowance.check(reply)
            if error is None:
                return reply
            refused[place] = error
            return replace(reply, value=b"", conflict=b"")

        async def send(channel: Channel, places: list[int]) -> Sequence[ValueReply | FailureReply]:
            async with free:
                part = [keys[place] for place in places]
                request = _typed(partial(ReadManyRequest, keys=part), type_name)
                results = cast(ManyReply, await channel.request(request)).results
                admitted = [
                    admit(place, result) if isinstance(result, ValueReply) else result
                    for place, result in zip(places, results, strict=False)
                ]
            return [*admitted, *([_UNREAD] * (len(part) - len(results)))]

        if concern is Concern.ONE:
            outcomes = await self._spread(keys, node_id, send, "read", lambda _: False)
        # What the first owner has not, or not in this answer, is looked for as one key is.
        lacking = [place for place, outcome in enumerate(outcomes) if not _is_found(outcome)]
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
            return await self._write(key, node_id, request, item.token, concern)
        return await self._ask(key, node_id, request, "read", is_change=True)

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
        merged, following = merge_keys(replies, limit, self._owners)
        settled, unjoined = await settle(
            self._directory.channels, [each for each in merged if each.others], TRY_SECONDS_MAX
        )
        held = [settled.get(each.listed.key, each) for each in merged]
        return KeyPage(
            [each.listed for each in held if each.listed.type_name],
            following,
            sorted({*unanswered, *unjoined}),
            {each.listed.key: each.other_types for each in held if each.other_types},
        )

    async def explain(self, key: str, node_id: str | None, type_name: str = "") -> Answer:
        """Return the same as `read`, with the resolution of the key's conflicts.

        Raises:
            ServiceError: No node answers, or the node refuses.
        """
        return await self._ask(key, node_id, _typed(partial(ExplainRequest, key=key), type_name), "read")

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

    async def _spread(
        self, keys: Sequence[str], node_id: str | None, send: Send, kind: Kind, may_repeat: Callable[[int], bool]
    ) -> list[Outcome]:
        last = _NO_NODE if node_id is None else UnreachableError(node_id)
        # Once for each slot, so that what goes to one key goes to one node, in its order.
        firsts = {slot_of(key): key for key in keys}
        routes = {slot: self._route(key, node_id, kind) for slot, key in firsts.items()}
        return await spread(
            [routes[slot_of(key)] for key in keys],
            send,
            elsewhere=_ELSEWHERE,
            last=last,
            may_repeat=may_repeat,
            seconds_max=TRY_SECONDS_MAX,
        )

    def _route(self, key: str, node_id: str | None, kind: Kind) -> list[Channel]:
        """Return the channels to try, none if the pinned node has none."""
        is_gone = node_id is not None and node_id not in self._directory.channels
        return [] if is_gone else self._choose(key, node_id, kind)

    async def _write(
        self,
        key: str,
        node_id: str | None,
        build: Callable[[int], Request],
        token: Token | None,
        concern: Concern,
        *,
        may_repeat: bool = False,
    ) -> Answer:
        until = time.monotonic() + TRY_SECONDS_MAX
        last: ServiceError = _NO_NODE
        lost: OutcomeUnknownError | None = None
        for number, channel in enumerate(self._choose(key, node_id, "write")):
            if number and time.monotonic() >= until:
                break
            try:
                return channel.node_id, cast(ValueReply, await self._time(channel, build, "write"))
            except OutcomeUnknownError as error:
                lost = lost or error
                if not may_repeat:
                    break
            except ServiceError as error:
                if error.code not in _ELSEWHERE:
                    raise lost or error from error
                last = error
        if lost is None:
            raise last
        if token is None or may_repeat:
            raise lost
        others = [] if node_id is not None else [name for name in self._owners(key) if name != channel.node_id]
        answer = await find_out(
            self._directory.channels,
            channel.node_id,
            others,
            build=build,
            recall=recalling(key, concern, token),
            elsewhere=_ELSEWHERE,
            seconds_max=until - time.monotonic(),
        )
        if answer is None:
            raise lost
        return answer

    async def _ask(
        self,
        key: str,
        node_id: str | None,
        build: Callable[[int], Request],
        kind: Kind,
        *,
        is_hedged: bool = False,
        is_change: bool = False,
    ) -> Answer:
        """Return the first answer of a node that has the key.

        With `is_change` what is asked may change the key, though asking again changes nothing more: then no answer but
        that of a node that has the key hides one that is lost.
        """
        last: ServiceError = _NO_NODE
        lost: OutcomeUnknownError | None = None
        missing: tuple[str, ValueReply] | None = None
        owners = self._owners(key) if node_id is None else ()
        channels = self._choose(key, node_id, kind)
        until = time.monotonic() + TRY_SECONDS_MAX
        for number, channel in enumerate(channels):
            if (missing and channel.node_id not in owners) or (number and time.monotonic() >= until):
                break
            try:
                if is_hedged and number + 1 < len(channels) and channels[number + 1].node_id in owners:
                    node, reply = await self._hedge(channel, channels[number + 1], build, kind)
                    if node != channel.node_id:
                        self._proximity.observe(kind, channel.node_id, OVERTAKEN_SECONDS, time.monotonic())
                        return node, reply
                else:
                    reply = cast(ValueReply, await channel.request(build))
            except ServiceError as error:
                # It may be asked of the next whatever became of it here, unless it is known to have changed the key.
                if is_change and isinstance(error, OutcomeUnknownError):
                    lost = error
                last = _refusal(error, channel.node_id, is_change=is_change)
                if last.code not in _ELSEWHERE:
                    raise last from error
                continue
            if reply.type_name:
                return channel.node_id, reply
            if not owners or channel.node_id in owners:
                missing = missing or (channel.node_id, reply)
            else:
                last = UnreachableError(owners[0])
        if missing and not lost:
            return missing
        raise lost or last

    async def _hedge(self, first: Channel, second: Channel, build: Callable[[int], Request], kind: Kind) -> Answer:
        """Return the first one's answer, or that of the second if the first is late and the second has the key."""

        async def ask(channel: Channel) -> Answer:
            return channel.node_id, cast(ValueReply, await self._time(channel, build, kind))

        return await hedge(
            partial(ask, first),
            partial(ask, second),
            self._proximity.late_after(kind, first.node_id),
            self._hedges,
            lambda answer: bool(answer[1].type_name),
        )

    async def _time(self, channel: Channel, build: Callable[[int], Request], kind: Kind) -> Reply:
        """Return the reply, and take in how long it took; a node that does not answer took that long, too."""
        started = time.monotonic()
        try:
            return await channel.request(build)
        finally:
            now = time.monotonic()
            self._proximity.observe(kind, channel.node_id, now - started, now)

    def _owners(self, key: str) -> tuple[str, ...]:
        return self._cluster.placement.owners(slot_of(key))

    def _choose(self, key: str, node_id: str | None, kind: Kind) -> list[Channel]:
        """Return the channels to try: to the pinned node, or to the owners and then to all others."""
        channels = self._directory.channels
        if node_id is not None:
            if node_id not in channels:
                raise UnreachableError(node_id)
            return [channels[node_id]]
        now = time.monotonic()
        if now >= self._routes_until or len(channels) != self._routes_of:
            self._routes.clear()
            self._routes_until, self._routes_of = now + _ROUTES_SECONDS, len(channels)
        slot = slot_of(key)
        owners = self._cluster.placement.owners(slot)
        # So that the keys of lost owners are spread.
        turn = slot % len(channels) if len(channels) > len(owners) else 0
        route = self._routes.get((kind, owners, turn))
        if route is None:
            route = self._routes[kind, owners, turn] = self._order(owners, turn, kind, now)
        return route

    def _order(self, owners: Sequence[str], turn: int, kind: Kind, now: float) -> list[Channel]:
        channels = self._directory.channels
        reachable = [name for name in owners if name in channels]
        near = self._proximity.order(kind, reachable, self._cluster.placement.members, now)
        near.sort(key=lambda name: _is_cut_off(owners, channels[name].unreachable))
        others = sorted(set(channels).difference(near))
        first = turn % max(1, len(others))
        return [channels[name] for name in (*near, *others[first:], *others[:first])]


def _refusal(error: ServiceError, node_id: str, *, is_change: bool) -> ServiceError:
    """Return what the failure of one node means for what is asked of one after the other."""
    if isinstance(error, OutcomeUnknownError):
        return UnreachableError(node_id)
    if error.code == "concern_not_met" and not is_change:  # The release before says so of reads.
        return ServiceError("too_few_owners", error.message, error.remedy)
    return error


def _is_cut_off(owners: Sequence[str], unreachable: frozenset[str]) -> bool:
    """Tell whether who cannot reach these nodes lacks a majority of the owners."""
    return len(unreachable.intersection(owners)) * 2 >= len(owners) if unreachable else False


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


def _is_found(outcome: Outcome) -> bool:
    return not isinstance(outcome, ServiceError) and bool(outcome[1].type_name)
