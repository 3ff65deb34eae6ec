"""SWIM membership (Das, Gupta and Motivala, 2002) as a state machine without sockets, clock or randomness of its own.

Each round pings a few members in shuffled order. Who does not answer is pinged through others, then suspected, then,
unless it refutes that with a higher incarnation, declared dead. News rides on pings and their replies, each item a
bounded number of times; while there is some, it is also told between rounds, so that it spreads in seconds whatever
the interval is. Nothing follows from silence then, so that churn makes no more suspects. A digest in each ping shows
when two members with no news left still know different things; then they exchange their tables. Of Lifeguard (Dadgar
et al., 2018) it has two parts: a suspect is told so by each ping that it gets, and a process that itself ran late
concludes nothing from the silence of others.
"""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from crdt_service.membership.table import ALIVE, DEAD, LEFT, SUSPECT, Member, Table, rank
from crdt_service.wire.message import GOSSIP_UPDATES_MAX, Gossip, MemberUpdate

# Raising it gives slow members longer to answer; lowering it suspects sooner.
PING_SECONDS_MAX = 1.0
# Raising it batches more news per message; lowering it spreads news sooner with more messages.
NEWS_SECONDS = 0.5
# An update is sent LAMBDA · ln n times: a member misses it with a chance of about n ** -LAMBDA, and then finds it by
# the digest.
LAMBDA = 3
# Intervals that a suspect has to refute it, times log10 n. Raising it bears longer pauses; lowering it finds the dead
# sooner.
SUSPICION_INTERVALS = 2


@dataclass(frozen=True, slots=True)
class Ping:
    """Ping a member with this news; then call `acked` or `missed`, or neither."""

    to: str
    gossip: Gossip


@dataclass(frozen=True, slots=True)
class PingVia:
    """Ask `via` to ping `target`; then call `vouched` or `unvouched`, or neither."""

    via: str
    target: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """Exchange tables with a member: send it `export`, and give its answer to `learn`."""

    to: str


Effect = Ping | PingVia | Exchange


@dataclass(slots=True)
class _Probe:
    """A member that has not answered yet: `vias_left` counts open indirect pings, None while the direct one is open."""

    deadline: float
    vias_left: int | None = None


class Swim:
    """Who is in the cluster, as one node sees it.

    All times are seconds of one clock that never goes back; calls give them in order. Whoever drives it calls `tick`
    at `wake_at`, and performs the effects that calls return.

    Args:
        me: This node; `incarnation` must exceed those of its earlier lives, so start from wall-clock milliseconds.
        interval_seconds: Time between rounds without news; infinity for no rounds at all, so that channels which open
            and close are all the evidence.
        fanout: Members pinged per round, and asked to ping another one.
        randomness: Orders members.
        now: The time.
    """

    def __init__(
        self, me: MemberUpdate, *, interval_seconds: float, fanout: int, randomness: random.Random, now: float
    ) -> None:
        self.node_id = me.node_id
        self.epoch = 0
        self._fanout = fanout
        self._random = randomness
        self._is_probing = interval_seconds < math.inf
        self._interval_seconds = interval_seconds if self._is_probing else 10.0
        self._ping_seconds = min(PING_SECONDS_MAX, self._interval_seconds / 4)
        self._table = Table()
        self._table.merge(me, now)
        self._news: dict[str, int] = {}
        self._probes: dict[str, _Probe] = {}
        self._suspicions: dict[str, float] = {}
        self._order: list[str] = []
        self._round_at = now + self._interval_seconds * randomness.random() if self._is_probing else math.inf
        self._news_at = math.inf
        self._exchange_at = now
        self._placement = self._table.placement_members(now)
        self._change_at = math.inf
        self._is_changed = False
        self._follow(me.node_id, None, now)
        self._spread(me.node_id, now)

    # What it knows.

    def members(self) -> list[Member]:
        """Return all members by id, this one and tombstones included."""
        return self._table.members()

    def addresses(self) -> dict[str, str]:
        """Return the address of each other member that may still be reached, by node id."""
        return {
            node_id: update.address
            for node_id, update in self._table.updates.items()
            if node_id != self.node_id and update.liveness != LEFT and update.address
        }

    def placement_members(self) -> dict[str, str]:
        """Return the zone of each node that data is placed on; `epoch` rises whenever this changes."""
        return self._placement

    def zones(self) -> dict[str, str]:
        """Return where each member that is neither dead nor left says that it runs, by node id."""
        return {node_id: update.zone for node_id, update in self._table.updates.items() if update.liveness < DEAD}

    def export(self, now: float) -> list[MemberUpdate]:
        """Return the whole table, to be given to another process's `learn`."""
        return self._table.export_all(now)

    def gossip(self, to: str, now: float) -> Gossip:
        """Return news for a message to `to`; each item counts as sent once more."""
        chosen = [to] if to in self._table.updates and self._table.updates[to].liveness != ALIVE else []
        # Sent the fewest times first: that is the newest.
        fewest = sorted(self._news, key=self._news.__getitem__)[: GOSSIP_UPDATES_MAX - 1]
        sent_max = math.ceil(LAMBDA * math.log(self._table.live_count + 1))
        for node_id in fewest:
            self._news[node_id] += 1
            if self._news[node_id] >= sent_max:
                del self._news[node_id]
            if node_id != to:
                chosen.append(node_id)
        return Gossip(self._table.digest, [self._table.export(node_id, now) for node_id in chosen])

    # What happens to it.

    def wake_at(self) -> float:
        """Return when `tick` is due."""
        return min(
            self._round_at,
            self._news_at,
            min((probe.deadline for probe in self._probes.values()), default=math.inf),
            min(self._suspicions.values(), default=math.inf),
            self._change_at,
        )

    def tick(self, now: float) -> list[Effect]:
        """Do what time alone brings: time-outs, and the next round."""
        late = now - self.wake_at()
        if late > self._ping_seconds:
            self._postpone(late)
        effects: list[Effect] = []
        for target in [target for target, probe in self._probes.items() if probe.deadline <= now]:
            effects += self._escalate(target, now)
        for node_id in [node_id for node_id, end in self._suspicions.items() if end <= now]:
            self._claim(node_id, DEAD, now)
        for node_id in self._table.forget(now):
            self._news.pop(node_id, None)
        if self._round_at <= now:
            effects += self._round(now)
        if self._news_at <= now:
            effects += self._tell(now)
        self._refresh(now)
        return effects

    def learn(self, updates: Iterable[MemberUpdate], now: float) -> None:
        """Take in another process's claims.

        To a node that knows nobody yet all of them are old news: it tells none of them on.
        """
        is_joining = len(self._table.updates) == 1
        for update in updates:
            if update.node_id == self.node_id:
                self._hear_of_myself(update, now)
            elif self._merge(update, now) and not is_joining:
                self._spread(update.node_id, now)
        self._refresh(now)

    def receive(self, sender: str, gossip: Gossip, now: float) -> list[Effect]:
        """Take in what came with a ping or its reply."""
        had_news = bool(self._news)
        self.learn(gossip.updates, now)
        # News under way explains a difference; without any, somebody missed some.
        if gossip.updates or had_news or gossip.digest == self._table.digest or now < self._exchange_at:
            return []
        self._exchange_at = now + self._interval_seconds
        return [Exchange(sender)]

    def acked(self, to: str, gossip: Gossip, now: float) -> list[Effect]:
        """Note that a member answered a ping."""
        self._probes.pop(to, None)
        return self.receive(to, gossip, now)

    def missed(self, to: str, now: float) -> list[Effect]:
        """Note that a ping could not be sent, so that nothing waits for the time-out."""
        probe = self._probes.get(to)
        if probe is None or probe.vias_left is not None:
            return []
        effects = self._escalate(to, now)
        self._refresh(now)
        return effects

    def vouched(self, target: str) -> None:
        """Note that another member reached `target`."""
        self._probes.pop(target, None)

    def unvouched(self, target: str, now: float) -> list[Effect]:
        """Note that one of those asked did not reach `target`."""
        probe = self._probes.get(target)
        if probe is None or probe.vias_left is None:
            return []
        probe.vias_left -= 1
        if probe.vias_left > 0:
            return []
        effects = self._escalate(target, now)
        self._refresh(now)
        return effects

    def opened(self, node_id: str) -> list[Effect]:
        """Note that a channel to a member opened: exchange tables, by which a join spreads and a suspect refutes."""
        return [Exchange(node_id)]

    def closed(self, node_id: str, now: float) -> None:
        """Note that the channel to a member closed: that is evidence, so it is probed next and soon."""
        update = self._table.updates.get(node_id)
        if update is None or update.liveness >= DEAD or node_id == self.node_id:
            return
        if not self._is_probing:
            self._claim(node_id, SUSPECT, now)
            self._refresh(now)
            return
        if node_id in self._order:
            self._order.remove(node_id)
        self._order.append(node_id)
        self._round_at = min(self._round_at, now + NEWS_SECONDS * self._random.random())

    def leave(self, now: float) -> list[Effect]:
        """Announce that this node leaves: no data is placed on it any more, while it still answers."""
        return self._announce(ALIVE, now)

    def depart(self, now: float) -> list[Effect]:
        """Announce that this node has left: the last thing that it says."""
        return self._announce(LEFT, now)

    # How it does that.

    def _announce(self, liveness: int, now: float) -> list[Effect]:
        self._speak(self._table.updates[self.node_id].incarnation + 1, True, liveness, now)
        self._refresh(now)
        return self._tell(now) if self._is_probing else [Exchange(node_id) for node_id in self._live_others()]

    def _speak(self, incarnation: int, is_leaving: bool, liveness: int, now: float) -> None:
        mine = self._table.updates[self.node_id]
        self._merge(
            msgspec.structs.replace(mine, incarnation=incarnation, is_leaving=is_leaving, liveness=liveness), now
        )
        self._spread(self.node_id, now)

    def _hear_of_myself(self, update: MemberUpdate, now: float) -> None:
        """Refute whatever is not what this node says of itself: a suspicion, a death, an earlier life ahead in time."""
        mine = self._table.updates[self.node_id]
        if rank(update) > rank(mine) and mine.liveness == ALIVE:
            self._speak(update.incarnation + 1, mine.is_leaving, ALIVE, now)

    def _claim(self, node_id: str, liveness: int, now: float) -> None:
        if self._merge(msgspec.structs.replace(self._table.updates[node_id], liveness=liveness), now):
            self._spread(node_id, now)

    def _merge(self, update: MemberUpdate, now: float) -> bool:
        old = self._table.updates.get(update.node_id)
        is_news = self._table.merge(update, now)
        if is_news:
            self._follow(update.node_id, old, now)
        return is_news

    def _follow(self, node_id: str, old: MemberUpdate | None, now: float) -> None:
        """Do what a changed member asks for: let a suspicion run or end, probe it or do so no more."""
        self._is_changed = True
        liveness = self._table.updates[node_id].liveness
        if liveness == SUSPECT:
            scale = max(1.0, math.log10(self._table.live_count))
            self._suspicions[node_id] = now + SUSPICION_INTERVALS * scale * self._interval_seconds
        else:
            self._suspicions.pop(node_id, None)
        if liveness >= DEAD:
            self._probes.pop(node_id, None)
        elif node_id != self.node_id and (old is None or old.liveness >= DEAD):
            self._order.insert(self._random.randint(0, len(self._order)), node_id)

    def _spread(self, node_id: str, now: float) -> None:
        self._news[node_id] = 0
        if self._is_probing:
            self._news_at = min(self._news_at, now + NEWS_SECONDS * self._random.uniform(0.5, 1))

    def _tell(self, now: float) -> list[Effect]:
        """Tell news to some members."""
        others = self._live_others()
        targets = self._random.sample(others, min(self._fanout, len(others))) if self._news else []
        effects: list[Effect] = [Ping(target, self.gossip(target, now)) for target in targets]
        is_more = self._news and targets
        self._news_at = now + NEWS_SECONDS * self._random.uniform(0.5, 1) if is_more else math.inf
        return effects

    def _round(self, now: float) -> list[Effect]:
        targets = self._next_targets()
        # A dead member gets a ping now and then: after a long partition nobody else would ask.
        if dead := self._table.dead():
            targets.append(self._random.choice(dead))
        effects: list[Effect] = []
        for target in targets:
            if self._table.updates[target].liveness < DEAD:
                self._probes[target] = _Probe(now + self._ping_seconds)
            effects.append(Ping(target, self.gossip(target, now)))
        self._round_at = now + self._interval_seconds * self._random.uniform(0.9, 1.1)
        return effects

    def _next_targets(self) -> list[str]:
        """Take the next members in order; who is being probed already waits for its next turn."""
        targets: list[str] = []
        for _ in range(2):
            while self._order and len(targets) < self._fanout:
                node_id = self._order.pop()
                if node_id not in targets and node_id not in self._probes and self._is_live(node_id):
                    targets.append(node_id)
            if len(targets) < self._fanout and not self._order:
                self._order = self._live_others()
                self._random.shuffle(self._order)
        return targets

    def _escalate(self, target: str, now: float) -> list[Effect]:
        """Take the next step with a silent member: ask others to ping it, then suspect it."""
        probe = self._probes[target]
        if probe.vias_left is None:
            silent = {node_id for node_id, other in self._probes.items() if other.vias_left is not None}
            others = [node_id for node_id in self._live_others() if node_id != target and node_id not in silent]
            vias = self._random.sample(others, min(self._fanout, len(others)))
            if vias:
                probe.vias_left = len(vias)
                probe.deadline = now + 2 * self._ping_seconds
                return [PingVia(via, target) for via in vias]
        del self._probes[target]
        if self._table.updates[target].liveness == ALIVE:
            self._claim(target, SUSPECT, now)
            return [Ping(target, self.gossip(target, now))]  # If it can hear, it may refute that now.
        return []

    def _postpone(self, seconds: float) -> None:
        """Give everybody the time that this process was not there to listen."""
        for probe in self._probes.values():
            probe.deadline += seconds
        for node_id in self._suspicions:
            self._suspicions[node_id] += seconds

    def _is_live(self, node_id: str) -> bool:
        update = self._table.updates.get(node_id)
        return update is not None and update.liveness < DEAD

    def _live_others(self) -> list[str]:
        return [
            node_id
            for node_id, update in self._table.updates.items()
            if update.liveness < DEAD and node_id != self.node_id
        ]

    def _refresh(self, now: float) -> None:
        """Bring placement up to date, if members or time may have changed it."""
        if not self._is_changed and now < self._change_at:
            return
        self._is_changed = False
        self._change_at = self._table.next_change(now)
        placement = self._table.placement_members(now)
        if placement != self._placement:
            self._placement = placement
            self.epoch += 1
