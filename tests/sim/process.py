"""A simulated machine, and the process on it: the real journal, store, committer and exchange on simulated seams."""

import asyncio
import contextvars
import random

from crdt_service.kernel.clock import HybridClock
from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.ident import new_replica
from crdt_service.loops.answer import Answerer
from crdt_service.loops.exchange import Exchange
from crdt_service.loops.garbage import Collector
from crdt_service.loops.placing import Placer
from crdt_service.loops.rewrite import rewrite
from crdt_service.loops.transfer import Transfer
from crdt_service.membership.ownership import follow_members
from crdt_service.replication.replica import Replica
from crdt_service.store.store import Store
from crdt_service.wire.message import (
    PROTOCOL,
    Concern,
    DecisionRequest,
    Placed,
    ProposeRequest,
    PushRequest,
    ReadRequest,
    WriteRequest,
)
from crdt_service.wire.seal import Key
from tests.sim.disk import PowerLoss
from tests.sim.history import Seen

KEYS = (Key(b"a" * 32), Key(b"b" * 32))
BACKOFF_SECONDS_MIN = 0.1
BACKOFF_SECONDS_MAX = 2.0
current = contextvars.ContextVar("current process", default=None)


class SilentObserver:
    """Metrics are not judged here."""

    def __getattr__(self, name):
        return lambda *_: None


class _Replica(Replica):
    """Shows the judges whatever is durably known of placements."""

    def __init__(self, replica_id, name, placements):
        super().__init__(replica_id)
        self._name = name
        self._placements = placements
        self._is_replaying = False

    def replay(self, store, clock, payloads):
        self._is_replaying = True
        super().replay(store, clock, payloads)
        self._is_replaying = False
        self._placements.note(self._name, self.id, self.placement)

    def take(self, store, clock, step):
        super().take(store, clock, step)
        if (step.placement is not None or step.replica) and not self._is_replaying:
            self._placements.note(self._name, self.id, self.placement)


class Process:
    """One life of a node, from its recovery to its end."""

    hears_all = False

    def __init__(self, machine, world):
        self.name = machine.name
        self.is_alive = True
        self.protocol = PROTOCOL - 1 if machine.is_old else PROTOCOL
        self.tasks = {}
        self._machine = machine
        self._world = world
        self._is_fencing = self._is_renamed = False
        self._context = contextvars.copy_context()
        self._context.run(current.set, self)
        hybrid = self.hybrid = HybridClock(machine.clock)
        journal = world.options.journal(machine.disk, self.name, machine.draw(), machine.draw_keys())
        self.journal = journal
        self.store = Store(hybrid)
        self.replica = _Replica(journal.replica, self.name, world.history.placements)
        self.replica.replay(self.store, hybrid, journal.recover())
        if journal.needs_rewrite:
            rewrite(self.store, journal, self.replica)
        self.committer = self._context.run(
            world.options.committer,
            self.store,
            journal,
            replica=self.replica,
            clock=machine.clock,
            hybrid=hybrid,
            observer=SilentObserver(),
            log_bytes_max=world.profile.log_bytes_max,
        )
        self._context.run(self._make_parts, machine, world)
        self._run = self.spawn(self._commit())
        self.spawn(self.placer.run())
        self.spawn(self._begin())
        self.spawn(self.collector.run())
        for peer in world.names:
            if peer != self.name:
                self.spawn(self._link(peer))

    def _make_parts(self, machine, world):
        """Make what speaks with others, as a node does."""
        self.exchange = Exchange(
            self.name,
            self.committer,
            self.replica,
            ownership=follow_members(world.old_members, world.profile.replication_factor),
            randomness=machine.draw(),
        )
        self.transfer = Transfer(
            self.name,
            self.store,
            self.committer,
            self.replica,
            self.exchange,
            observer=SilentObserver(),
            sync_interval_seconds=world.profile.sync_interval_seconds,
            randomness=machine.draw(),
        )
        self.placer = Placer(
            self.name,
            zone=world.zones[self.name],
            node_count=0 if machine.is_old else len(world.names),
            factor=world.profile.replication_factor,
            store=self.store,
            replica=self.replica,
            committer=self.committer,
            exchange=self.exchange,
            transfer=self.transfer,
            zones=lambda: world.zones,
            randomness=machine.draw(),
            on_objection=self._fence,
        )
        self.collector = Collector(
            self.name,
            self.store,
            committer=self.committer,
            replica=self.replica,
            exchange=self.exchange,
            transfer=self.transfer,
            clock=machine.clock,
            observer=SilentObserver(),
            randomness=machine.draw(),
            is_complete=lambda: True,  # Who is away without a seat is not waited for: more is purged without it.
            on_rebuilt=self._follow_rebuilt,
            horizon_seconds=world.profile.horizon_seconds,
        )
        self._answerer = Answerer(
            self.name,
            self.store,
            committer=self.committer,
            replica=self.replica,
            exchange=self.exchange,
            transfer=self.transfer,
            placer=self.placer,
            collector=self.collector,
            epoch=1,
        )

    @property
    def asker(self):
        """Who it is to those that it connects to."""
        return self.name, self.replica.id

    def spawn(self, coroutine):
        """Run something that ends with this process."""
        return asyncio.get_running_loop().create_task(coroutine, context=self._context.copy())

    async def answer(self, asker, request):
        """Answer as a node does, and note what a client sees."""
        history, asked = self._world.history, self._world.loop.time()
        epoch, inner = request if isinstance(request, Placed) else (0, request)
        reply = self._handle(*asker, epoch, inner)
        if asyncio.iscoroutine(reply):
            reply = await reply
        if isinstance(inner, ReadRequest | WriteRequest):
            for delta in self.store.encode_key(inner.key)[:1]:
                seen = Seen(
                    self.name,
                    delta.key,
                    delta.tag,
                    delta.state,
                    history.disks[self.name],
                    asked,
                    self._world.loop.time(),
                )
                history.seen.append(seen)
                if isinstance(inner, ReadRequest) and inner.concern is not Concern.ONE:
                    history.quorum_reads.append(seen)
        self.measure()
        return reply

    def _handle(self, node_id, replica, epoch, request):
        if isinstance(request, DecisionRequest | ProposeRequest):
            if self.protocol < PROTOCOL:
                raise ServiceError("malformed", "the release before knows no placements", "upgrade this node")
            return self.placer.answer(node_id, replica, request)
        if isinstance(request, PushRequest) and request.replica not in ("", replica):
            raise ServiceError("wrong_role", "a node may only push its own commits", "connect as that node")
        return self._answerer.answer(request, epoch)

    def measure(self):
        """Note the sizes of all queues."""
        history = self._world.history
        history.queue_items = max(history.queue_items, len(self.committer._queue))
        history.commits_bytes = max(history.commits_bytes, self.replica.commits.bytes)

    def die(self):
        """End at once: nothing that it was about to do happens."""
        self.is_alive = False
        self._world.network.drop(self)
        for task in tuple(self.tasks):
            task.cancel()

    async def stop(self):
        """End as a node does on SIGTERM."""
        self.committer.stop()
        await asyncio.wait([self._run])
        if self.is_alive and self._is_renamed:
            self._machine.run(self, self.journal.clear_damage)
        if self.is_alive:
            self.journal.close()

    async def _begin(self):
        if self.journal.damage:
            self._fence(self.journal.damage)
            return
        try:
            await self.placer.voucher.start()
        except ServiceError as error:
            self._world.trace("start_failed", self.name, error.code)
            self._machine.kill()

    def _fence(self, reason):
        if not self._is_fencing:
            self._is_fencing = True
            self._world.trace("fenced", self.name, reason)
            self.placer.fence(reason)
            self.spawn(self._rename())

    async def _rename(self):
        name = new_replica(self.name, self._machine.draw())
        while not await self._try_rename(name):  # noqa: ASYNC110 - the disk is full, and does not tell of room.
            await asyncio.sleep(1.0)
        self._is_renamed = True
        self._machine.start_again()

    async def _try_rename(self, name):
        try:
            return await self.committer.rename(name)
        except ServiceError:
            return False

    def _follow_rebuilt(self):
        """What only it had acknowledged is gone."""
        self._world.trace("rebuilt", self.name)
        self._world.history.lose_disk(self.name)
        if self.placer.document is None:
            self.transfer.refill()
        else:
            self._machine.start_again()

    async def _commit(self):
        try:
            await self.committer.run()
        except OSError:
            self._machine.lose_power()  # The process ends; what the failed disk holds is unknown.

    async def _link(self, peer):
        """As Mesh does: dial, use, and dial again."""
        backoff = BACKOFF_SECONDS_MIN
        while True:
            try:
                link = await self._world.network.connect(self, peer)
            except OSError:
                pass
            else:
                backoff = BACKOFF_SECONDS_MIN
                while not link.closed.is_set():
                    user = None if link.is_silent else self.spawn(self._use(link))
                    await link.wait_turned()
                    if user is not None:
                        user.cancel()
            await asyncio.sleep(backoff * self._machine.random.uniform(0.5, 1))
            backoff = min(backoff * 2, BACKOFF_SECONDS_MAX)

    async def _use(self, link):
        try:
            await self.exchange.run(link)
        except Exception as error:
            self._world.surprise(f"{self.name}: the exchange with {link.node_id} failed: {error!r}")
            link.close()


class Machine:
    """What outlives a process: disk, clock, and somebody who starts it again."""

    def __init__(self, name, world, disk, clock, randomness):
        self.name = name
        self.disk = disk
        self.clock = clock
        self.random = randomness
        self.process = None
        self.slow_disk_ms = 0
        self.is_old = False
        self._world = world
        self._starts = None
        self._is_sealed = False

    def draw(self):
        """Return randomness for something of a process."""
        return random.Random(self.random.random())

    def draw_keys(self):
        """Turn encryption on at some start, and change the key at about every second one after it."""
        if self._world.profile.is_sealed and self.random.random() < 0.5:
            self._is_sealed = True
        return self.random.sample(KEYS, 2) if self._is_sealed else []

    def start(self):
        """Start the process, or try again later when its disk does not let it."""
        if self._starts is not None:
            self._starts.cancel()
            self._starts = None
        if self.process is not None:
            return
        self.disk.power_on()
        if not self._world.is_calm and self.random.random() < self._world.profile.recovery_loss:
            self.disk.operations_to_loss = self.random.randint(1, 14)
        try:
            self.process = Process(self, self._world)
        except PowerLoss:
            self._world.trace("power_loss_at_start", self.name)
        except OSError as error:
            self._world.trace("start_failed", self.name, error.errno)
        except ServiceError as error:
            self._world.surprise(f"{self.name} does not start: {error}")
        if self.process is None:
            self.disk.kill()
            self.start_later(1.0)
        else:
            self._world.trace("started", self.name, self.process.journal.replica, len(self.process.store))

    def start_later(self, seconds):
        if self._starts is None:
            self._starts = asyncio.get_running_loop().call_later(seconds, self.start)

    def lose_power(self):
        """The machine goes dark, and comes back."""
        self._end("power_loss")
        self.disk.lose_power()

    def lose_disk(self):
        """The machine goes dark, and comes back with an empty disk."""
        self._end("lose_disk")
        self.disk.lose_power()
        self.disk.wipe()
        self._world.history.lose_disk(self.name)

    def copy_disk(self):
        """Stop the process and start it again; return what the volume held then, for `roll_back`."""
        self.kill()
        return self.disk.copy(), self._world.loop.time()

    def roll_back(self, copied):
        """The machine goes dark, and comes back with the volume of an earlier moment, before its last start."""
        content, copied_at = copied
        self._end("roll_back")
        self.disk.lose_power()
        self.disk.restore(content)
        self._world.history.lose_disk(self.name, copied_at)

    def flip_tail(self):
        """The machine goes dark, and comes back with a bit of its last synced record changed, if there is one."""
        self._end("flip_tail")
        self.disk.lose_power()
        if self.disk.flip_tail(self.random):
            self._world.history.lose_disk(self.name)

    def go_away(self, seconds):
        """The process dies, and comes back after so long."""
        self.kill()
        self._starts.cancel()
        self._starts = None
        self.start_later(seconds)

    def go_dark(self, seconds):
        """The machine goes dark, and comes back after so long."""
        self.lose_power()
        self._starts.cancel()
        self._starts = None
        self.start_later(seconds)

    def kill(self):
        """The process dies at once; the machine stays."""
        self._end("kill")
        self.disk.kill()

    async def stop(self):
        """The process drains, then ends."""
        process = self.process
        self._world.trace("stop", self.name)
        await process.stop()
        await asyncio.sleep(self.random.choice((0, 0.05)))
        if self.process is process:
            self.kill()

    def upgrade(self):
        """Run the release under test from now on, if it was the one before."""
        if self.is_old:
            self._world.trace("upgrade", self.name)
            self.is_old = False
            self.start_again()

    def start_again(self):
        """Drain the process, and start the next one at once."""
        self._world.loop.create_task(self._start_again(self.process), context=contextvars.Context())

    async def _start_again(self, process):
        if process is None or not process.is_alive:
            return
        await process.stop()
        if self.process is process:
            self.kill()
            self._starts.cancel()
            self._starts = None
            self.start()

    def _end(self, how):
        self._world.trace(how, self.name)
        process, self.process = self.process, None
        if process is not None:
            process.die()
        self.start_later(self.random.choice((0.0, 0.1, 1.0, 5.0)))

    def execute(self, process, function):
        """Run a thread's work: at once or at the end of its time, so that an end in between finds it done or not."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        seconds = self.random.randint(0, 3 + self.slow_disk_ms) / 1000
        if self.random.random() < 0.5:
            work = self.run(process, function)
            if work is not None:
                loop.call_later(seconds, _settle, process, future, work)
        else:

            def run_late():
                work = self.run(process, function)
                if work is not None:
                    _settle(process, future, work)

            loop.call_later(seconds, run_late)
        return future

    def run(self, process, function):
        """Do something for a process; return (result, error), or None when the machine went dark."""
        if not process.is_alive:
            return None
        try:
            return function(), None
        except PowerLoss:
            self._end("power_loss")
            return None
        except Exception as error:
            return None, error


def _settle(process, future, work):
    if not process.is_alive or future.done():
        return
    result, error = work
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
