"""Clients behind backends: the real router over simulated connections, while nodes do not hear of each other.

No node ends here and none leaves its slots, so an owner that holds what was seen always answers: each promise to a
backend's clients has to hold at every moment.
"""

import asyncio
import json
import logging
from dataclasses import dataclass

from crdt_service.api.proximity import Proximity
from crdt_service.api.router import Router
from crdt_service.kernel.error import OutcomeUnknownError, ServiceError
from crdt_service.membership.ownership import follow_members
from crdt_service.wire.message import PROTOCOL, WriteItem, WriteRequest
from tests.sim.judge import convergence, session, surprise
from tests.sim.profile import limited
from tests.sim.simulation import FIRST_SECONDS_MAX, Options, World

BACKENDS = 3
REST_STEPS = 60
RECONNECT_SECONDS = 0.2
OPTIONS = Options(
    nodes=4,
    steps=150,
    purging_share=0.0,
    placed_share=1.0,
    profile={
        "faults": ("block", "isolate", "isolate", "disk_slow", "clock_set"),
        "fault_share": 0.15,
        "loss": 0,
        "recovery_loss": 0,
        "replication_factor": 3,
        "step_ms_max": 60,
    },
)


@dataclass(eq=False)
class Done:
    """What a client did through a backend.

    Attributes:
        verb: ``add``, ``remove``, ``clear`` or ``read``.
        element: Of a set, added once and never again.
        shown: The elements that the answer showed; None if it showed none of it.
        outcome: ``pending``, ``acknowledged``, ``refused`` or ``unknown``.
    """

    backend: str
    key: str
    verb: str
    element: str
    sent: float
    answered: float = float("inf")
    shown: frozenset | None = None
    outcome: str = "pending"


class Way:
    """A connection, as a router sees it; notes what may have been written twice."""

    unreachable = frozenset()

    def __init__(self, link, twice):
        self.node_id = link.node_id
        self.replica = link.replica
        self.protocol = link.protocol
        self.link = link
        self._twice = twice

    async def request(self, build):
        try:
            return await self.link.request(build)
        except (OutcomeUnknownError, asyncio.CancelledError):
            request = build(1)
            if isinstance(request, WriteRequest):
                self._twice.add(request.op)
            raise


class Backend:
    """A backend without HTTP: its connections and its router."""

    hybrid = None  # It takes no part in clocks.
    is_alive = True
    protocol = PROTOCOL
    hears_all = True

    def __init__(self, name, world, zone):
        self.name = name
        self.asker = (name, "")
        self.channels = {}
        self.twice = set()
        self._world = world
        self.router = Router(self, self, Proximity(zone))
        for node in world.names:
            world.loop.create_task(self._connect(node))

    @property
    def placement(self):
        """What it follows: whatever is decided, at once."""
        newest = self._world.history.placements.newest
        if newest is None:
            return follow_members({}, 1)
        return self._world.history.placements.ownership(newest.epoch)

    def members(self):
        return []

    def peers(self):
        return []

    async def _connect(self, node):
        while True:
            try:
                link = await self._world.network.connect(self, node)
            except OSError:
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            self.channels[node] = Way(link, self.twice)
            await link.closed.wait()
            del self.channels[node]


class BackendClient:
    """Attributes: `done`, in order; `tasks` under way."""

    def __init__(self, world, randomness, backends):
        self.done = []
        self.tasks = {}
        self._world = world
        self._random = randomness
        self._backends = backends
        self._count = 0
        self._elements = {}
        self._busy = set()

    def step(self):
        """Do something through a backend that is drawn, unless it is busy with that key."""
        backend = self._random.choice(self._backends)
        key = f"set-{self._random.randrange(self._world.profile.keys)}"
        if (backend.name, key) in self._busy:
            return
        self._busy.add((backend.name, key))
        verb = self._random.choice(("add", "add", "remove", "remove", "clear", "read", "read", "read"))
        known = self._elements.get(key, [])
        if verb == "add" or (verb == "remove" and not known):
            verb, self._count = "add", self._count + 1
            element = f"{self._random.randrange(1000)}-{self._count}"
            self._elements.setdefault(key, []).append(element)
        else:
            element = self._random.choice(known[-3:]) if verb == "remove" else ""
        done = Done(backend.name, key, verb, element, self._world.loop.time())
        self.done.append(done)
        task = self._world.loop.create_task(self._do(backend.router, done))
        self.tasks[task] = None
        task.add_done_callback(self.tasks.pop)

    async def _do(self, router, done):
        try:
            reply = await self._ask(router, done)
        except ServiceError as error:
            is_unknown = error.code in {"outcome_unknown", "concern_not_met"}
            done.outcome = "unknown" if is_unknown else "refused"
        else:
            done.outcome = "acknowledged"
            if done.verb == "read" or reply.value:
                done.shown = frozenset(json.loads(reply.value or b"[]"))
        done.answered = self._world.loop.time()
        self._busy.discard((done.backend, done.key))
        shown = "" if done.shown is None else " ".join(sorted(done.shown))
        self._world.trace(done.outcome, done.backend, done.verb, done.key, done.element, shown)

    async def _ask(self, router, done):
        """Ask alone, or as a batch of one, and return the reply."""
        is_batch = self._random.random() < 0.3
        if done.verb == "clear":
            return (await router.delete(done.key, None))[1]
        op = json.dumps({done.verb: done.element}).encode()
        if not is_batch:
            if done.verb == "read":
                return (await router.read(done.key, None))[1]
            return (await router.write(done.key, "aw_set", op, None, is_read=True))[1]
        if done.verb == "read":
            [outcome] = await router.read_many([done.key])
        else:
            [outcome] = await router.write_many([WriteItem(done.key, "aw_set", op)], is_read=True)
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome[1]


class BackendWorld(World):
    """Nodes, and backends that reach them all, one in each zone."""

    def __init__(self, seed, options):
        super().__init__(seed, options)
        self.profile.limits["queue_items"] = 8192
        self.backends = [Backend(f"backend-{number}", self, f"zone-{number}") for number in range(BACKENDS)]
        self.client = BackendClient(self, self._randomness("backends"), self.backends)

    async def _live(self):
        for machine in self.machines.values():
            machine.start()
        await self._wait_for(lambda: not self._list_unplaced(len(self.names)), FIRST_SECONDS_MAX)
        await self._wait_for(lambda: all(len(each.channels) == len(self.names) for each in self.backends), 5.0)
        await self._sabotage()
        self.is_calm = True
        self.saboteur.end()
        for _ in range(REST_STEPS):
            self.client.step()
            await asyncio.sleep(0.02)
        if self.client.tasks:
            await asyncio.wait(list(self.client.tasks))
        self.history.quiet = await self._become_quiet()
        self.history.final, self.history.owners = self._dump_all()


def run_backends(seed, options=OPTIONS):
    """Return (what each judge found, the trace's hash, how many reads showed something)."""
    world = BackendWorld(seed, options)
    logged = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with limited(world.profile.limits):
            world.run()
    finally:
        logging.disable(logged)
    twice = {json.loads(op).get("add", "") for each in world.backends for op in each.twice}
    findings = session.judge(world.client.done, twice)
    findings |= {"convergence": convergence.find(world.history), "surprise": surprise.find(world.history)}
    shown = sum(bool(done.shown) for done in world.client.done)
    return {name: found for name, found in findings.items() if found}, world.trace.digest(), shown
