"""Connections between simulated processes: slow, cut, blocked one way, and pushing things twice.

Within a connection messages keep their order. What an old one still carries may arrive after a new one was opened.
"""

import asyncio
import contextlib
from collections import deque

from crdt_service.kernel.error import ServiceError, UnreachableError
from crdt_service.net.channel import Channel
from crdt_service.wire.message import (
    FailureReply,
    Placed,
    PulseReply,
    PulseRequest,
    PushRequest,
    decode_received,
    decode_reply,
    encode_message,
)

RETRANSMIT_SECONDS = 0.2
DIAL_SECONDS = 1.0
DUPLICATE_SECONDS_MAX = 3.0


class Network:
    """Attributes: what ails it (`latency_ms_max`, `loss`, `duplication`), and `blocked` (source, target) pairs."""

    def __init__(self, loop, randomness, trace, find):
        self.loop = loop
        self.random = randomness
        self.trace = trace
        self.latency_ms_max = 1
        self.loss = 0.0
        self.duplication = 0.0
        self.blocked = {}
        self.links = {}
        self._find = find

    def heal(self):
        self.loss = self.duplication = 0.0
        self.blocked.clear()

    def latency_seconds(self):
        """Return a whole number of milliseconds, so that things also happen at the same instant."""
        return self.random.randint(0, self.latency_ms_max) / 1000

    def is_blocked(self, source, target):
        return (source, target) in self.blocked

    def find(self, name):
        """Return the running process of a node, or None."""
        return self._find(name)

    async def connect(self, source, name):
        """Raises OSError: nobody answers."""
        await asyncio.sleep(self.latency_seconds())
        if self.is_blocked(source.name, name) or self.is_blocked(name, source.name):
            await asyncio.sleep(DIAL_SECONDS)
            raise OSError("timed out")
        target = self.find(name)
        if target is None:
            raise OSError("refused")
        link = Link(self, source, target)
        self.links[link] = None
        link.ask_time()
        return link

    def drop(self, process):
        """End the connections of a process that died: some ends hear of it, some find out by time-out."""
        for link in tuple(self.links):
            if link.source is process:
                link.close(is_drained=self.random.random() < 0.5)
            elif link.target is process and (link.source.hears_all or self.random.random() < 0.7):
                self.loop.call_later(self.latency_seconds(), link.close)


class Link:
    """The dialling end of a connection to one process: a real Channel, and the wire below it."""

    def __init__(self, network, source, target):
        self.node_id = target.name
        self.source = source
        self.target = target
        self.closed = asyncio.Event()
        self.asker = source.asker
        self._network = network
        self.replica = target.replica.id
        self.protocol = min(source.protocol, target.protocol)
        self._channel = Channel(target.name, self, replica=self.replica, protocol=self.protocol, clock=source.hybrid)
        self._out = _Pipe(network, source.name, target.name, self._arrive)
        self._back = _Pipe(network, target.name, source.name, self._return)

    @property
    def is_silent(self):
        """As Channel has it."""
        return self._channel.is_silent

    def ask_time(self):
        """As dialling does, of nodes."""
        if self.source.hybrid is not None:
            self._channel.pulse()

    async def wait_turned(self):
        """As Channel does."""
        await self._channel.wait_turned()

    async def request(self, build):
        """As the Channel protocol says."""
        if not self.source.is_alive:
            raise UnreachableError(self.node_id)
        return await self._channel.request(build)

    async def request_placed(self, epoch, build):
        """As the Channel protocol says."""
        if not self.source.is_alive:
            raise UnreachableError(self.node_id)
        return await self._channel.request_placed(epoch, build)

    def send(self, body):
        """As the Wire protocol says; the connection may break right after."""
        self._out.send(body)
        if self._network.random.random() < self._network.loss:
            self._network.trace("cut", self.source.name, self.node_id)
            self.close(is_drained=self._network.random.random() < 0.5)

    def close(self, *, is_drained=False):
        """End the connection; with `is_drained` what was sent still arrives."""
        if self.closed.is_set():
            return
        self.closed.set()
        self._network.links.pop(self, None)
        self._back.cut()
        if not is_drained:
            self._out.cut()
        self._channel.end()

    def _arrive(self, frame):
        request = decode_received(frame)
        if isinstance(request, PulseRequest):
            if self.target.is_alive:
                clock = self.target.hybrid
                reply = PulseReply(request.id, 0, [], max(0, clock.now_milliseconds()), clock.newest)
                self._back.send(encode_message(reply))
            return
        inner = request.message if isinstance(request, Placed) else request
        self._network.trace("arrive", self.source.name, self.node_id, type(inner).__name__, len(frame))
        if self.target.is_alive:
            self.target.spawn(self._answer(request))
        if isinstance(inner, PushRequest) and self._network.random.random() < self._network.duplication:
            delay = self._network.random.uniform(0, DUPLICATE_SECONDS_MAX)
            self._network.loop.call_later(delay, self._arrive_again, request)

    def _arrive_again(self, request):
        process = self._network.find(self.node_id)
        if process is not None:
            self._network.trace("arrive_again", self.source.name, self.node_id)
            process.spawn(_ignore_refusal(process.answer(self.asker, request)))

    async def _answer(self, request):
        try:
            reply = await self.target.answer(self.asker, request)
        except ServiceError as error:
            reply = FailureReply(request.id, error.code, error.message, error.remedy)
        self._back.send(encode_message(reply))

    def _return(self, frame):
        reply = decode_reply(frame)
        self._network.trace("return", self.node_id, self.source.name, type(reply).__name__, len(frame))
        self._channel.hear()
        self._channel.receive(frame)


class _Pipe:
    """One direction of a connection: keeps order, and holds everything back while the way is blocked."""

    def __init__(self, network, source, target, deliver):
        self._network = network
        self._way = (source, target)
        self._deliver = deliver
        self._frames = deque()
        self._is_pumping = False
        self._is_cut = False

    def send(self, frame):
        if self._is_cut:
            return
        due = self._network.loop.time() + self._network.latency_seconds()
        self._frames.append((due, frame))
        if not self._is_pumping:
            self._is_pumping = True
            self._network.loop.call_at(due, self._pump)

    def cut(self):
        self._is_cut = True
        self._frames.clear()

    def _pump(self):
        now = self._network.loop.time() + 1e-9
        while self._frames and self._frames[0][0] <= now:
            if self._network.is_blocked(*self._way):
                self._network.loop.call_later(RETRANSMIT_SECONDS, self._pump)
                return
            self._deliver(self._frames.popleft()[1])
        self._is_pumping = bool(self._frames)
        if self._frames:
            self._network.loop.call_at(self._frames[0][0], self._pump)


async def _ignore_refusal(answer):
    """Await what may well be refused."""
    with contextlib.suppress(ServiceError):
        await answer
