"""Clients: each operation is sent once, and its outcome kept."""

import json
from functools import partial

from crdt_service.kernel.error import OutcomeUnknownError, ServiceError
from crdt_service.wire.message import ReadRequest, WriteRequest
from tests.sim.history import Outcome, Write


class Client:
    """Attributes: `tasks` under way."""

    name = "client"
    is_alive = True
    hears_all = True  # Unknown outcomes blunt the judges, so its connections to the dead end at once.

    def __init__(self, world, randomness):
        self.tasks = {}
        self._world = world
        self._random = randomness
        self._links = {}
        self._count = 0
        self._elements = {}

    def step(self):
        """Do something on a node that is drawn."""
        node = self._random.choice(self._world.names)
        key = self._random.randrange(self._world.profile.keys)
        if self._random.random() < self._world.profile.burst_share:
            self._burst(key)
        elif self._random.random() < 0.15:
            self._spawn(self._read(node, self._random.choice((f"count-{key}", f"register-{key}", f"set-{key}"))))
        else:
            self._spawn(self._write(self._draw(node, key)))

    def probe(self, nodes):
        """Write on each of `nodes`, over new connections; return the writes."""
        for link in self._links.values():
            link.close()
        writes = [self._new(node, "probe", "pn_counter", "increment", 1) for node in nodes]
        for write in writes:
            self._spawn(self._write(write))
        return writes

    def _burst(self, key):
        """Write to one key at the same instant, on several nodes."""
        draw = self._random.choice((self._count_up, self._assign, self._add))
        for _ in range(self._random.randint(2, 12)):
            self._spawn(self._write(draw(self._random.choice(self._world.names), key)))

    def _draw(self, node, key):
        return self._random.choice((self._count_up, self._count_up, self._assign, self._add, self._add, self._remove))(
            node, key
        )

    def _count_up(self, node, key):
        verb = "increment" if self._random.random() < 0.8 else "decrement"
        return self._new(node, f"count-{key}", "pn_counter", verb, self._random.randint(1, 9))

    def _assign(self, node, key):
        self._count += 1
        padding = "x" * self._random.choice((0, 0, 40))
        return self._new(node, f"register-{key}", "lww_register", "assign", f"v{self._count}{padding}")

    def _add(self, node, key):
        self._count += 1
        # Not in order of time, so that a tie between elements has no favourite.
        element = f"{self._random.randrange(1000)}-{self._count}"
        self._elements.setdefault(key, []).append((node, element))
        return self._new(node, f"set-{key}", "aw_set", "add", element)

    def _remove(self, node, key):
        known = self._elements.get(key)
        if not known:
            return self._add(node, key)
        added_at, element = self._random.choice(known[-20:])
        return self._new(self._random.choice((node, added_at)), f"set-{key}", "aw_set", "remove", element)

    def _new(self, node, key, type_name, verb, argument):
        write = Write(node, key, type_name, verb, argument, self._world.loop.time())
        self._world.history.writes.append(write)
        return write

    async def _write(self, write):
        op = json.dumps({write.verb: write.argument}).encode()
        try:
            link = await self._link(write.node)
            await link.request(partial(WriteRequest, key=write.key, type_name=write.type, op=op))
        except OutcomeUnknownError:
            write.outcome = Outcome.UNKNOWN
        except ServiceError as error:
            write.outcome, write.code = Outcome.REFUSED, error.code
        except OSError:
            write.outcome = Outcome.REFUSED
        else:
            write.outcome = Outcome.ACKNOWLEDGED
        write.answered = self._world.loop.time()
        self._world.trace(write.outcome.value, write.node, write.key, write.verb, write.argument, write.code)

    async def _read(self, node, key):
        try:
            link = await self._link(node)
            reply = await link.request(partial(ReadRequest, key=key))
        except (ServiceError, OSError):
            return
        self._world.trace("read", node, key, reply.value.decode())

    async def _link(self, node):
        link = self._links.get(node)
        if link is None or link.closed.is_set():
            link = self._links[node] = await self._world.network.connect(self, node)
        return link

    def _spawn(self, coroutine):
        task = self._world.loop.create_task(coroutine)
        self.tasks[task] = None
        task.add_done_callback(self.tasks.pop)
