"""Clients: each operation is sent once, or again under its token, and its outcome kept."""

import json
from functools import partial

from crdt_service.kernel.error import OutcomeUnknownError, ServiceError
from crdt_service.wire.message import PROTOCOL, TOKEN_NAME_BYTES, Concern, ReadRequest, Token, WriteRequest
from tests.sim.history import Outcome, Write

ERA_SECONDS = 4.0
# A key rests for one era less than it takes to come to it again: longer than the horizon of purging worlds.
ERAS = 6


class Client:
    """Attributes: `tasks` under way."""

    name = "client"
    asker = ("client", "")
    hybrid = None  # It takes no part in clocks.
    is_alive = True
    protocol = PROTOCOL
    hears_all = True  # Unknown outcomes blunt the judges, so its connections to the dead end at once.

    def __init__(self, world, randomness, types_randomness):
        self.tasks = {}
        self._types_random = types_randomness
        self._world = world
        self._random = randomness
        self._links = {}
        self._count = 0
        self._elements = {}

    def step(self):
        """Do something on a node that is drawn."""
        node = self._random.choice(self._world.names)
        key = self._draw_key()
        if self._types_random.random() < self._world.profile.two_types_share:
            self._create_with_two_types()
        elif self._random.random() < self._world.profile.burst_share:
            self._burst(key)
        elif self._random.random() < self._world.profile.read_share:
            name = self._random.choice((f"count-{key}", f"register-{key}", f"set-{key}"))
            self._spawn(self._read(node, name, self._draw_concern()))
        else:
            self._spawn(self._write(self._draw(node, key)))

    def _draw_key(self, eras_ago=0):
        """Return a key's number; where keys are purged each is used for a while, then left alone, and used again."""
        number = self._random.randrange(self._world.profile.keys)
        if not self._world.profile.is_purging:
            return number
        return f"{number}-{(int(self._world.loop.time() / ERA_SECONDS) - eras_ago) % ERAS}"

    def probe(self, nodes, concern):
        """Write on each of `nodes`, over new connections, to a counter and a register; return the writes."""
        for link in self._links.values():
            link.close()
        writes = [self._new(node, "probe", "pn_counter", "increment", 1) for node in nodes]
        key = "0-0" if self._world.profile.is_purging else "0"
        writes += [self._assign(node, key) for node in nodes]
        for write in writes:
            write.concern = concern
        for write in writes:
            self._spawn(self._write(write))
        return writes

    def _burst(self, key):
        """Write to one key at the same instant, on several nodes."""
        draw = self._random.choice((self._count_up, self._assign, self._add))
        for _ in range(self._random.randint(2, 12)):
            self._spawn(self._write(draw(self._random.choice(self._world.names), key)))

    def _create_with_two_types(self):
        """Create a new key with two types at the same instant, on two nodes."""
        self._count += 1
        key = f"{self._count}-of-two-types"
        makes = self._types_random.sample((self._count_up, self._assign, self._add), 2)
        for node, make in zip(self._types_random.sample(self._world.names, 2), makes, strict=True):
            write = make(node, key)
            write.key = key
            self._spawn(self._write(write))

    def _draw(self, node, key):
        if self._random.random() < self._world.profile.deletion_share:
            return self._clear(node, key)
        return self._random.choice((self._count_up, self._count_up, self._assign, self._add, self._add, self._remove))(
            node, key
        )

    def _clear(self, node, key):
        key = self._random.choice((key, self._draw_key(1)))
        kind = self._random.choice(("register", "set", "set"))
        type_name = "aw_set" if kind == "set" else "lww_register"
        return self._new(node, f"{kind}-{key}", type_name, "clear", True)

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

    def _draw_concern(self):
        is_quorum = self._random.random() < self._world.profile.quorum_share
        return self._random.choice((Concern.MAJORITY, Concern.MAJORITY, Concern.ALL)) if is_quorum else Concern.ONE

    def _new(self, node, key, type_name, verb, argument):
        write = Write(node, key, type_name, verb, argument, self._world.loop.time(), self._draw_concern())
        self._world.history.writes.append(write)
        return write

    def _draw_token(self, write):
        """Name some writes that are sent again: two majorities share an owner, so the second finds the first."""
        is_promised = write.type == "pn_counter" and write.concern is not Concern.ONE
        if not is_promised or self._random.random() < 0.5:
            return None
        self._count += 1
        return Token(self._count.to_bytes(TOKEN_NAME_BYTES, "big"), bytes(8))

    async def _write(self, write):
        op = json.dumps({write.verb: write.argument}).encode()
        token = self._draw_token(write)
        request = partial(
            WriteRequest, key=write.key, type_name=write.type, op=op, concern=write.concern, is_read=False, token=token
        )
        try:
            link = await self._link(write.node)
            await link.request(request)
        except OutcomeUnknownError:
            write.outcome = Outcome.UNKNOWN
        except ServiceError as error:
            may_be_applied = error.code in {"concern_not_met", "outcome_unknown"}
            write.outcome, write.code = Outcome.UNKNOWN if may_be_applied else Outcome.REFUSED, error.code
        except OSError:
            write.outcome = Outcome.REFUSED
        else:
            write.outcome = Outcome.ACKNOWLEDGED
        write.answered = self._world.loop.time()
        self._world.trace(write.outcome.value, write.node, write.key, write.verb, write.argument, write.code)
        if write.outcome is not Outcome.ACKNOWLEDGED:
            return
        if token is not None:
            await self._repeat(self._random.choice(self._world.names), request)
        elif write.concern is not Concern.ONE and self._random.random() < self._world.profile.read_share:
            await self._read(self._random.choice(self._world.names), write.key, Concern.MAJORITY)

    async def _repeat(self, node, request):
        """Send an acknowledged write again, anywhere; whatever comes of it, it must not count again."""
        try:
            link = await self._link(node)
            reply = await link.request(request)
        except (ServiceError, OSError):
            return
        self._world.trace("repeated", node, reply.is_replay)

    async def _read(self, node, key, concern):
        try:
            link = await self._link(node)
            reply = await link.request(partial(ReadRequest, key=key, concern=concern))
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
