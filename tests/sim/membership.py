"""A world of membership state machines in virtual time: real code, no sockets, counted messages."""

import heapq
import itertools
import random

from crdt_service.membership.swim import Exchange, Ping, PingVia, Swim
from crdt_service.membership.table import DEAD
from crdt_service.wire.message import (
    IndirectPingReply,
    IndirectPingRequest,
    MemberUpdate,
    PingReply,
    PingRequest,
    TableReply,
    TableRequest,
    encode_message,
)

DELAY_SECONDS = (0.001, 0.02)
ZONES = 3
FRAME_PREFIX_BYTES = 4
EPOCH_MS = 1_700_000_000_000


def update_of(name, incarnation=EPOCH_MS, **change):
    number = int(name.rpartition("-")[2])
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:8001"
    fields = {"replica": f"{name}~{number:08x}", "address": address, "zone": f"zone-{number % ZONES}"}
    return MemberUpdate(name, **{**fields, "incarnation": incarnation, "is_leaving": False, "liveness": 0, **change})


class Peer:
    """One life of a node."""

    def __init__(self, world, name):
        self.name = name
        self.swim = Swim(
            update_of(name, EPOCH_MS + int(world.now * 1000)),
            interval_seconds=world.interval_seconds,
            fanout=world.fanout,
            randomness=random.Random(world.random.random()),
            now=world.now,
        )
        self.paused_until = 0.0
        self.sent_messages = 0
        self.sent_bytes = 0


class World:
    """Peers, a network that loses, delays and cuts, and a queue of what happens next."""

    def __init__(self, count, *, seed=0, interval_seconds=10.0, fanout=3, loss=0.0, count_bytes=True):
        self.now = 0.0
        self.random = random.Random(seed)
        self.interval_seconds = interval_seconds
        self.fanout = fanout
        self.loss = loss
        self.largest_message = 0
        self.exchanges = 0
        self._count_bytes = count_bytes
        self._cut = lambda _a, _b: False
        self._events = []
        self._order = itertools.count()
        self._ticks = {}
        self.peers = {}
        for number in range(count):
            self.add(f"node-{number}")
        table = [peer.swim.export(0.0)[0] for peer in self.peers.values()]
        for peer in self.peers.values():
            peer.swim.learn(table, 0.0)
            peer.swim._news.clear()
            self._wake(peer)

    def add(self, name):
        """Start a node that knows only itself."""
        self.peers[name] = Peer(self, name)
        self._wake(self.peers[name])
        return self.peers[name]

    def join(self, name, seed):
        """Start a node whose channel to one member opens; the channels to others follow as it learns of them."""
        peer = self.add(name)
        self._perform(peer, peer.swim.opened(seed))
        return peer

    def kill(self, name, *, channels_close=True):
        """End a node; its peers see their channels to it close, or hear nothing of it."""
        del self.peers[name]
        if channels_close:
            for peer in self.peers.values():
                self._later(self._delay(), self._closed, peer, name)

    def pause(self, name, seconds):
        """Stop a process for a while, as a starved or suspended one: it neither hears nor says anything."""
        self.peers[name].paused_until = self.now + seconds
        self._wake(self.peers[name])

    def cut(self, is_cut):
        """Lose every message between names for which this is true."""
        self._cut = is_cut

    def run(self, seconds):
        """Let time pass."""
        self.run_until(lambda: False, seconds, is_bounded=False)

    def run_until(self, condition, seconds_max, is_bounded=True):
        """Let time pass until the condition holds; return how long that took."""
        start = self.now
        end = start + seconds_max
        while self._events and self._events[0][0] <= end:
            if condition():
                return self.now - start
            at, _, function, arguments = heapq.heappop(self._events)
            self.now = at
            function(*arguments)
        assert not is_bounded or condition(), f"not within {seconds_max} s"
        self.now = end
        return seconds_max

    def states(self, name):
        """Return how many peers see the node in each state."""
        counts = {}
        for peer in self.peers.values():
            update = peer.swim._table.updates.get(name)
            state = None if update is None else next(m.state for m in peer.swim.members() if m.id == name)
            counts[state] = counts.get(state, 0) + 1
        return counts

    def knows(self, name, *, is_dead):
        """Tell whether all peers hold the node for live, or for dead or unknown."""
        for peer in self.peers.values():
            update = peer.swim._table.updates.get(name)
            if is_dead != (update is None or update.liveness >= DEAD):
                return False
        return True

    def is_converged(self):
        """Tell whether all peers know the same and place alike."""
        digests = {peer.swim._table.digest for peer in self.peers.values()}
        return len(digests) == 1 and len({tuple(p.swim.placement_members().items()) for p in self.peers.values()}) == 1

    def totals(self):
        """Return messages and bytes sent since the last call, and count anew."""
        messages = sum(peer.sent_messages for peer in self.peers.values())
        size = sum(peer.sent_bytes for peer in self.peers.values())
        for peer in self.peers.values():
            peer.sent_messages = peer.sent_bytes = 0
        return messages, size

    # The loop of each peer.

    def _later(self, seconds, function, *arguments):
        heapq.heappush(self._events, (self.now + seconds, next(self._order), function, arguments))

    def _wake(self, peer):
        at = max(peer.swim.wake_at(), self.now, peer.paused_until)
        if at < self._ticks.get(peer, float("inf")):
            self._ticks[peer] = at
            heapq.heappush(self._events, (at, next(self._order), self._tick, (peer, at)))

    def _tick(self, peer, at):
        if self._ticks.get(peer) != at:
            return
        del self._ticks[peer]
        if not self._is_running(peer):
            return
        if self.now < peer.paused_until:
            self._wake(peer)
            return
        if peer.swim.wake_at() <= self.now:
            self._perform(peer, peer.swim.tick(self.now))
        self._wake(peer)

    def _is_running(self, peer):
        return self.peers.get(peer.name) is peer

    def _perform(self, peer, effects):
        for effect in effects:
            if isinstance(effect, Ping):
                self._send(peer, effect.to, PingRequest(1, effect.gossip), self._on_ping)
            elif isinstance(effect, PingVia):
                self._send(peer, effect.via, IndirectPingRequest(1, effect.target), self._on_indirect)
            elif isinstance(effect, Exchange):
                self.exchanges += 1
                self._send(peer, effect.to, TableRequest(1, peer.swim.export(self.now)), self._on_table)

    def _delay(self):
        return self.random.uniform(*DELAY_SECONDS)

    def _send(self, sender, to, message, handler):
        sender.sent_messages += 1
        if self._count_bytes:
            size = len(encode_message(message)) + FRAME_PREFIX_BYTES
            sender.sent_bytes += size
            self.largest_message = max(self.largest_message, size)
        if self._cut(sender.name, to) or self.random.random() < self.loss:
            return
        self._later(self._delay(), self._deliver, sender, to, message, handler)

    def _deliver(self, sender, to, message, handler):
        receiver = self.peers.get(to)
        if receiver is None:
            return
        if self.now < receiver.paused_until:  # It waits in the socket.
            self._later(receiver.paused_until - self.now, self._deliver, sender, to, message, handler)
            return
        handler(receiver, sender, message)
        self._wake(receiver)

    def _on_ping(self, peer, sender, message):
        self._perform(peer, peer.swim.receive(sender.name, message.gossip, self.now))
        self._send(peer, sender.name, PingReply(1, peer.swim.gossip(sender.name, self.now)), self._on_ack)

    def _on_ack(self, peer, sender, message):
        self._perform(peer, peer.swim.acked(sender.name, message.gossip, self.now))

    def _on_indirect(self, peer, sender, message):
        def on_ack(_peer, _target, reply):
            self._on_ack(_peer, _target, reply)
            self._send(
                _peer,
                sender.name,
                IndirectPingReply(1, True),
                lambda asker, _via, _reply: asker.swim.vouched(message.target),
            )

        def on_ping(target, _sender, request):
            self._perform(target, target.swim.receive(_sender.name, request.gossip, self.now))
            self._send(target, _sender.name, PingReply(1, target.swim.gossip(_sender.name, self.now)), on_ack)

        self._send(peer, message.target, PingRequest(1, peer.swim.gossip(message.target, self.now)), on_ping)

    def _on_table(self, peer, sender, message):
        peer.swim.learn(message.updates, self.now)
        self._send(
            peer,
            sender.name,
            TableReply(1, peer.swim.export(self.now)),
            lambda asker, _peer, reply: asker.swim.learn(reply.updates, self.now),
        )

    def _closed(self, peer, name):
        if self._is_running(peer):
            peer.swim.closed(name, self.now)
            self._wake(peer)
