"""One seed's world: a safety phase with faults, a liveness phase without, and then the judges."""

import asyncio
import logging
import random
import time
from dataclasses import dataclass, field, replace

from crdt_service.disk.journal import Journal
from crdt_service.loops.commit import Committer
from crdt_service.membership.document import is_below, is_joint
from crdt_service.resolution.explanation import read_other_types
from crdt_service.wire.message import Concern
from tests.dump import dump
from tests.sim.clock import SimClock
from tests.sim.disk import SimDisk
from tests.sim.fault import Saboteur
from tests.sim.history import History, Outcome
from tests.sim.judge import judge_all
from tests.sim.judge.convergence import differ
from tests.sim.loop import VirtualLoop
from tests.sim.network import Network
from tests.sim.operator import Operator
from tests.sim.process import Machine, current
from tests.sim.profile import draw_profile, hasten, limited
from tests.sim.trace import Trace
from tests.sim.workload import Client

# For repairs, and for placements that follow each other.
LIVENESS_SECONDS_MAX = 300.0
CALM_SECONDS = 4.0
PROBE_SECONDS = 15.0
FIRST_SECONDS_MAX = 30.0
PROBE_TRIES = 10
# Of the nodes of a world that is upgraded; the others are already.
OLD_SHARE = 0.8


@dataclass(frozen=True)
class Options:
    """What to run; 0 nodes draws 3 to 7 from the seed.

    In a share of the worlds deleted keys are purged, and in a share of those that is remembered to the end. In a share
    faults begin only once there is a placement, and in one keys are created with two types. A share of those without
    purges begins with the release before, without placements, whose nodes are upgraded amid the faults. The classes are
    arguments so that a test can plant bugs, and `profile` is what it does not draw, so that it meets them soon.
    """

    nodes: int = 0
    steps: int = 300
    purging_share: float = 0.4
    remembering_share: float = 0.6
    placed_share: float = 0.8
    two_types_share: float = 0.2
    upgraded_share: float = 0.15
    profile: dict = field(default_factory=dict)
    journal: type = Journal
    committer: type = Committer


@dataclass
class Result:
    """Attributes: `failures` by judge, `trace` as a hash, and how much happened."""

    seed: int
    failures: dict[str, str]
    trace: str
    events: int
    virtual_seconds: float
    wall_seconds: float
    acknowledged: int
    tail: list[str] = field(repr=False)


def run_seed(seed, options=None):
    """Return the result of one seed; the same for ever, as long as the code is the same."""
    options = options or Options()
    started = time.perf_counter()
    world = World(seed, options)
    logged = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # What goes wrong here is meant to.
    try:
        with limited(world.profile.limits):
            world.run()
    finally:
        logging.disable(logged)
    return Result(
        seed=seed,
        failures=judge_all(world.history),
        trace=world.trace.digest(),
        events=world.trace.count,
        virtual_seconds=world.loop.time(),
        wall_seconds=time.perf_counter() - started,
        acknowledged=sum(write.outcome is Outcome.ACKNOWLEDGED for write in world.history.writes),
        tail=list(world.trace.tail),
    )


class World:
    """All that exists, wired by names."""

    def __init__(self, seed, options):
        self.options = options
        self.history = History()
        self.loop = VirtualLoop(self._execute)
        self.loop.set_task_factory(_create_task)
        self.loop.set_exception_handler(lambda _, context: self.surprise(_describe(context)))
        self.trace = Trace(self.loop.time)
        self.is_calm = False
        self._seed = seed
        randomness = self._randomness("profile")
        self.profile = draw_profile(randomness)
        purging = self._randomness("purging")
        if purging.random() < options.purging_share:
            self.profile = hasten(self.profile, purging, options.remembering_share)
        if self._randomness("types").random() < options.two_types_share:
            self.profile = replace(self.profile, two_types_share=0.1)
        self.profile = replace(self.profile, **options.profile)
        self.away = None
        self.history.clock_error_seconds = self.profile.clock_error_seconds
        self.history.is_purging = self.profile.is_purging
        self.history.queue_items_max = self.profile.limits["queue_items"]
        self.history.commits_bytes_max = self.profile.limits["commits_bytes"]
        nodes = options.nodes or randomness.randint(3, 7)
        self.names = [f"node-{number}" for number in range(nodes)]
        self.history.disks = dict.fromkeys(self.names, 0)
        self.zones = {name: f"zone-{number % 3}" for number, name in enumerate(self.names)}
        upgrade = self._randomness("upgrade")
        self.is_upgraded = not self.profile.is_purging and upgrade.random() < options.upgraded_share
        # Whom the release before knows as members: all, since the judges hold it to its word, and it knew no other way.
        self.old_members = self.zones if self.is_upgraded else {}
        self.network = Network(self.loop, self._randomness("network"), self.trace, self._find)
        self.network.latency_ms_max = self.profile.latency_ms_max
        self.network.loss = self.profile.loss
        self.network.duplication = self.profile.duplication
        self.machines = {name: self._make_machine(name, randomness) for name in self.names}
        for machine in self.machines.values():
            machine.is_old = self.is_upgraded and upgrade.random() < OLD_SHARE
        self.client = Client(self, self._randomness("client"), self._randomness("client/types"))
        self.operator = Operator(self, self._randomness("operator"))
        self.saboteur = Saboteur(self, self._randomness("faults"))

    def surprise(self, text):
        """Note what must never happen."""
        self.trace("surprise", text)
        self.history.surprises.append(text)

    def run(self):
        try:
            self.loop.run_until_complete(self._live())
        finally:
            self.loop.set_exception_handler(lambda *_: None)
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            if left:
                self.loop.run_until_complete(asyncio.wait(left))
            self.loop.close()

    async def _live(self):
        randomness = self._randomness("life")
        for machine in self.machines.values():
            machine.start_later(randomness.choice((0.0, 0.1, 2.0)))
        if (
            randomness.random() < self.options.placed_share and not self.is_upgraded
        ):  # Else faults come before there is a placement, too.
            await self._wait_for(lambda: self.history.placements.newest is not None, FIRST_SECONDS_MAX)
        await self._sabotage()
        self.is_calm = True
        self.history.calm_at = self.loop.time()
        self.saboteur.end()
        self.trace("calm")
        for machine in self.machines.values():
            machine.start()
            machine.upgrade()
        if self.client.tasks:
            await asyncio.wait(list(self.client.tasks))
        await asyncio.sleep(PROBE_SECONDS)  # Draining processes end, and start again.
        await self._settle(randomness.randint(2, len(self.names)))
        await self._probe(Concern.ONE)
        await self._probe(Concern.MAJORITY)
        self.history.quiet = await self._become_quiet()
        if self.profile.is_purging:
            await self._become_empty()
        self.history.final, owners = self._dump_all()
        # Without a placement no key has owners; then it is the judge of availability that has something to say.
        self.history.owners = {key: names for key, names in owners.items() if names}
        self.history.told = {name: self._list_told(name) for name in self.names}

    async def _wait_for(self, is_so, seconds):
        """Tell whether it is so after some seconds at most."""
        deadline = self.loop.time() + seconds
        while not is_so() and self.loop.time() < deadline:  # noqa: ASYNC110 - the nodes do not tell.
            await asyncio.sleep(0.5)
        return is_so()

    async def _settle(self, node_count):
        """Have so many nodes own all slots, and wait until each of them has a seat, and all know of it."""
        await self.operator.resize(node_count, LIVENESS_SECONDS_MAX)
        if not await self._wait_for(lambda: not self._list_unplaced(node_count), LIVENESS_SECONDS_MAX):
            self.history.unavailable += self._list_unplaced(node_count)

    def _list_unplaced(self, node_count):
        """Return what is missing for so many nodes to own all slots."""
        newest = self.history.placements.newest
        if newest is None or is_joint(newest) or newest.old.node_count != node_count:
            return [f"the placement is {newest}"]
        missing = []
        for name in self.names:
            process = self._find(name)
            if process is None or process.placer.document != newest:
                missing.append(f"{name} does not know placement {newest.epoch}")
            elif process.placer.has_seat != is_below(name, node_count):
                missing.append(f"{name} has a seat where it should not, or none: {process.placer.describe()}")
            elif process.placer.has_seat and not process.placer.is_ready:
                missing.append(f"{name} is not ready: {process.placer.describe()}")
        return missing

    async def _sabotage(self):
        randomness = self._randomness("steps")
        leaving = randomness.randrange(self.options.steps // 2) if self.profile.is_purging else None
        # Some are upgraded only once all is calm.
        upgrades = {name: randomness.randrange(self.options.steps * 3 // 2) for name in self.names}
        for step in range(self.options.steps):
            for name in self.names:
                if step == upgrades[name]:
                    self.machines[name].upgrade()
            if step == leaving:
                self.saboteur.send_away()
            if randomness.random() < self.profile.fault_share:
                self.saboteur.step()
            else:
                self.client.step()
            await asyncio.sleep(randomness.randint(0, self.profile.step_ms_max) / 1000)

    async def _probe(self, concern):
        """Write on every node that has a seat."""
        newest = self.history.placements.newest
        waiting = [seat.node_id for seat in newest.old.seats] if newest is not None else self.names
        for _ in range(PROBE_TRIES):  # All nodes push at once: a small queue may well refuse some.
            writes = self.client.probe(waiting, concern)
            await asyncio.wait(list(self.client.tasks))
            failed = [write for write in writes if write.outcome is not Outcome.ACKNOWLEDGED]
            waiting = sorted({write.node for write in failed})
            if not waiting:
                return
            await asyncio.sleep(1.0)
        self.history.unavailable += [f"{write.node}: {write.outcome.value} {write.code}" for write in failed]

    async def _become_quiet(self):
        """Wait until all nodes hold the same, and still do so a little later; tell whether they did."""
        deadline = self.loop.time() + LIVENESS_SECONDS_MAX
        while self.loop.time() < deadline:
            if self._is_same():
                await asyncio.sleep(CALM_SECONDS)
                if self._is_same():
                    return True
            await asyncio.sleep(0.5)
        return False

    async def _become_empty(self):
        """Wait until no node remembers a vacant key, and note what is left in the end."""
        deadline = self.loop.time() + LIVENESS_SECONDS_MAX
        while self.loop.time() < deadline and self._list_vacant():  # noqa: ASYNC110 - the nodes do not tell.
            await asyncio.sleep(0.5)
        self.history.vacant = self._list_vacant()

    def _list_vacant(self):
        running = {name: self._find(name) for name in self.names}
        return {name: list(process.store.vacant) for name, process in running.items() if process.store.vacant}

    def _is_same(self):
        return differ(*self._dump_all()) is None

    def _dump_all(self):
        """Return what each node holds, and who should hold each key."""
        final = {name: self._dump(name) for name in self.names}
        keys = sorted({key for states in final.values() for key, _ in states})
        return final, {key: self.history.placements.owners(key) for key in keys}

    def _dump(self, name):
        process = self.machines[name].process
        return {} if process is None else dump(process.store)

    def _list_told(self, name):
        """Return the types that a node's answer to a read of each key names."""
        process = self.machines[name].process
        told = {}
        for slot in process.store.slots if process is not None else ():
            for key in slot:
                reading = process.store.read(key)
                told[key] = () if reading is None else (reading.type, *read_other_types(reading.conflict))
        return told

    def _make_machine(self, name, randomness):
        skew = self.profile.skew_seconds_max
        rate = 1 + randomness.uniform(-1, 1) * self.profile.drift_max
        clock = SimClock(self.loop.time, randomness.uniform(-skew, skew), rate)
        disk = SimDisk(name, self._randomness(f"disk/{name}"), self.trace)
        return Machine(name, self, disk, clock, self._randomness(f"machine/{name}"))

    def _find(self, name):
        return self.machines[name].process

    def _execute(self, function):
        process = current.get()
        return self.machines[process.name].execute(process, function)

    def _randomness(self, purpose):
        return random.Random(f"{self._seed}/{purpose}")


def _create_task(loop, coroutine, context=None):
    """Make a task that ends with the process that it belongs to."""
    task = asyncio.Task(coroutine, loop=loop, context=context)
    process = current.get() if context is None else context.get(current)
    if process is not None:
        process.tasks[task] = None
        task.add_done_callback(process.tasks.pop)
    return task


def _describe(context):
    return f"{context['message']}: {context.get('exception')!r}"
