"""Follows every node's changes once, for all feeds of this process, while there are any.

Whom an event concerns is found by prefix, so that it costs those feeds and no others. A feed costs its position in the
ring, and a future while it waits.
"""

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import cast

from crdt_service.access.room import Room
from crdt_service.api.feed.cursor import NODES_MAX, Places, write_cursor
from crdt_service.api.feed.event import encode_event
from crdt_service.api.feed.merge import Changed, Merge, Reset
from crdt_service.api.feed.ring import Entry, Ring
from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.ident import is_reserved
from crdt_service.kernel.slot import SLOTS
from crdt_service.replication.port import Channel
from crdt_service.telemetry.trace import apart
from crdt_service.wire.message import CHANGES_MAX, ChangesReply, ChangesRequest

# Raising it needs more memory; docs/decisions/0019-change-feed.md has what a feed takes.
FEEDS_MAX = 10_000
# How long a node waits for a change before it says that there is none.
POLL_MS = 5000
# Raising it tells of changes later; lowering it asks more often, for fewer changes each.
PAUSE_SECONDS = 0.02
# Raising it finds a node that came back later.
AGAIN_SECONDS = 0.5
# How long the first feed waits for nodes that do not answer.
READY_SECONDS_MAX = 2
# How often a feed that has nothing to tell shows that it is alive; each second a share of them does.
PULSE_SECONDS = 15
# Raising it follows nodes for longer that nobody asks for; a feed that comes back meanwhile goes on from the ring.
LINGER_SECONDS = 60
# Feeds woken in one turn of the loop. Raising it lets requests wait for longer while many feeds are told.
WAKES_MAX = 128
_NO_NODE = ServiceError("no_node", "no node is reachable", "check the nodes; /v1/cluster lists them")
_log = logging.getLogger(__name__)


class Topic:
    """All feeds of one prefix.

    Attributes:
        prefix: Of their keys.
        feeds: How many there are.
        waiting: Those that were told all that there is.
        end: Position after the newest event that concerns them.
    """

    __slots__ = ("end", "feeds", "prefix", "waiting")

    def __init__(self, prefix: str, end: int) -> None:
        self.prefix = prefix
        self.feeds = 0
        self.waiting: set[Subscriber] = set()
        self.end = end


class Subscriber:
    """A feed as the hub sees it.

    Attributes:
        topic: What it is told of.
        caller: Who opened it; empty for this process itself.
        turn: In which of every `PULSE_SECONDS` seconds it shows that it is alive.
        position: In the ring, of the first event that it may lack; while it waits, that is `topic.end` or later.
        is_pulse_due: Whether it is to show that it is alive.
    """

    __slots__ = ("_woken", "caller", "is_pulse_due", "position", "topic", "turn")

    def __init__(self, topic: Topic, caller: str, turn: int) -> None:
        self.topic = topic
        self.caller = caller
        self.turn = turn
        self.position = 0
        self.is_pulse_due = False
        self._woken: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Return when there is something to tell; call it only if there is nothing."""
        self._woken = asyncio.get_running_loop().create_future()
        self.topic.waiting.add(self)
        try:
            await self._woken
        finally:
            self.topic.waiting.discard(self)

    def wake(self) -> None:
        """End its waiting."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


class Hub:
    """Merges the nodes' changes into one ring, and wakes whom they concern.

    Args:
        channels: Open channels by node id, as they come and go.
        randomness: Spreads feeds over time.
        owners: Returns who owns a slot, as far as is known; of one that nobody owns, every node counts.
        on_refused: Called with `feeds` when a feed is refused.

    Attributes:
        channels: The same.
        randomness: The same.
        merge: What was told, and what was heard of it.
        ring: The newest events.
        is_stopped: Whether feeds are to end.
        count: How many feeds there are.
    """

    def __init__(
        self,
        channels: Mapping[str, Channel],
        randomness: random.Random,
        owners: Callable[[int], Sequence[str]] = lambda slot: (),
        on_refused: Callable[[str], object] = lambda name: None,
    ) -> None:
        self.channels = channels
        self._owners = owners
        self.is_stopped = False
        self.randomness = randomness
        self.count = 0
        self._room = Room("feeds", FEEDS_MAX, on_refused)
        self._topics: dict[str, Topic] = {}
        self._lengths: Counter[int] = Counter()
        self._due: deque[Subscriber] = deque()
        self._running: asyncio.Task[None] | None = None
        self._cursor: str | None = None
        self._forget()

    @property
    def places(self) -> Places:
        """Up to where everything of each node is in the ring, or was."""
        return self.merge.places

    @property
    def cursor(self) -> str:
        """`places` as a text."""
        if self._cursor is None:
            self._cursor = write_cursor(self.places)
        return self._cursor

    def enter(self, prefix: str, caller: str = "") -> Subscriber:
        """Add a feed of a caller, which must leave at last.

        Raises:
            ServiceError: The caller has too many, or the backend is stopping.
        """
        if self.is_stopped:
            raise ServiceError("stopping", "the backend is stopping", "open the feed again")
        self._room.take(caller)
        topic = self._topics.get(prefix)
        if topic is None:
            topic = self._topics[prefix] = Topic(prefix, self.ring.next)
            self._lengths[len(prefix)] += 1
        topic.feeds += 1
        self.count += 1
        if self._running is None:
            self._running = asyncio.create_task(self._run(), context=apart())
        return Subscriber(topic, caller, self.randomness.randrange(PULSE_SECONDS))

    def leave(self, feed: Subscriber) -> None:
        """Remove a feed."""
        topic = feed.topic
        self._room.give(feed.caller)
        topic.feeds -= 1
        self.count -= 1
        if not topic.feeds:
            del self._topics[topic.prefix]
            self._lengths[len(topic.prefix)] -= 1
            if not self._lengths[len(topic.prefix)]:
                del self._lengths[len(topic.prefix)]

    async def wait_ready(self) -> None:
        """Return when it is known where the reachable nodes are.

        Raises:
            ServiceError: None is reachable.
        """
        await self._is_ready.wait()
        if not self.places:
            raise _NO_NODE

    def stop(self) -> None:
        """Have all feeds end, and follow nobody any more."""
        self.is_stopped = True
        for topic in self._topics.values():
            self._wake(topic.waiting, self.ring.next)
        if self._running is not None:
            self._running.cancel()

    def _forget(self) -> None:
        self.merge = Merge({}, owners=self._list_owners())
        self._cursor = None
        self.ring = Ring(write_cursor({}))
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._is_ready = asyncio.Event()

    async def _run(self) -> None:
        """Follow the nodes until there has been no feed for some time."""
        seconds = idle_seconds = 0
        try:
            while idle_seconds < LINGER_SECONDS:
                self._place()
                self._follow_all()
                if seconds >= READY_SECONDS_MAX:
                    self._set_ready()
                self._pulse(seconds % PULSE_SECONDS)
                await asyncio.sleep(1)
                seconds += 1
                idle_seconds = 0 if self.count else idle_seconds + 1
        finally:
            for follower in self._followers.values():
                follower.cancel()
            self._running = None
            self._is_ready.set()
            self._forget()

    def _follow_all(self) -> None:
        for node_id in self.channels:
            follower = self._followers.get(node_id)
            if follower is None and len(self.places.keys() | self._followers.keys() | {node_id}) > NODES_MAX:
                _log.error("node %s is not followed: there are more than %d", node_id, NODES_MAX)
            elif follower is None or follower.done():
                self._followers[node_id] = asyncio.create_task(self._follow(node_id))

    async def _follow(self, node_id: str) -> None:
        """Take in one node's changes while it is connected."""
        while (channel := self.channels.get(node_id)) is not None:
            place = self.places.get(node_id)
            try:
                reply = await ask_changes(channel, place or (0, 0), CHANGES_MAX, POLL_MS if place else 0)
            except ServiceError as error:
                _log.debug("changes of %s: %s", node_id, error)
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                self._take(node_id, reply)
                await asyncio.sleep(PAUSE_SECONDS)

    def _take(self, node_id: str, reply: ChangesReply) -> None:
        for event in self.merge.take(node_id, reply):
            self._tell(event)
        self._cursor = None
        if self._followers.keys() <= self.places.keys():
            self._set_ready()

    def _place(self) -> None:
        """Follow a new placement."""
        owners = self._list_owners()
        if owners != self.merge.owners:
            for event in self.merge.place(owners):
                self._tell(event)

    def _list_owners(self) -> list[Sequence[str]]:
        return [self._owners(slot) for slot in range(SLOTS)]

    def _tell(self, event: Changed | Reset) -> None:
        is_hidden = not isinstance(event, Reset) and is_reserved(event.change.key)
        if self._is_ready.is_set() and not is_hidden:
            self._add(event)

    def _set_ready(self) -> None:
        """Let feeds begin, from here on."""
        if not self._is_ready.is_set():
            self.ring = Ring(self.cursor)
            self._is_ready.set()

    def _add(self, event: Changed | Reset) -> None:
        cursor = write_cursor(self.places)
        key = None if isinstance(event, Reset) else event.change.key
        position = self.ring.next
        self.ring.append(Entry(key, cursor, encode_event(event, cursor)))
        for topic in self._concerned(key):
            topic.end = position + 1
            self._wake(topic.waiting, position)

    def _concerned(self, key: str | None) -> Iterable[Topic]:
        if key is None:
            return self._topics.values()
        prefixes = (key[:length] for length in self._lengths if length <= len(key))
        return [self._topics[prefix] for prefix in prefixes if prefix in self._topics]

    def _pulse(self, turn: int) -> None:
        for topic in self._topics.values():
            due = {feed for feed in topic.waiting if feed.turn == turn}
            for feed in due:
                feed.is_pulse_due = True
            topic.waiting -= due
            self._wake(due, self.ring.next)

    def _wake(self, feeds: set[Subscriber], position: int) -> None:
        """Let feeds that wait go on soon, at a position up to which they have all that concerns them."""
        if feeds and not self._due:
            asyncio.get_running_loop().call_soon(self._wake_some)
        for feed in feeds:
            feed.position = position
        self._due.extend(feeds)
        feeds.clear()

    def _wake_some(self) -> None:
        for _ in range(min(WAKES_MAX, len(self._due))):
            self._due.popleft().wake()
        if self._due:
            asyncio.get_running_loop().call_soon(self._wake_some)


async def ask_changes(channel: Channel, place: tuple[int, int], limit: int, wait_ms: int) -> ChangesReply:
    """Return a node's changes after a place.

    Raises:
        ServiceError: It does not answer.
    """
    epoch, after = place
    request = partial(ChangesRequest, epoch=epoch, after=after, limit=limit, wait_ms=wait_ms)
    return cast(ChangesReply, await channel.request(request))
