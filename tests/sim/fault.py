"""What goes wrong in the safety phase, drawn from the seed."""

from tests.sim.upheaval import Upheaval

CLOCK_SECONDS_MAX = 90.0
# A guest that was suspended, a time zone, a machine whose clock has no battery.
FAR_SECONDS = (600.0, 7200.0, 10 * 365 * 24 * 3600.0)


class Saboteur(Upheaval):
    """Does one fault of the profile at a time; most of them end by themselves."""

    def __init__(self, world, randomness):
        self._world = world
        self._random = randomness
        self._copied = {}

    def step(self):
        kind = self._random.choice(self._world.profile.faults)
        machine = self._world.machines[self._random.choice(self._world.names)]
        self._world.trace("fault", kind, machine.name)
        getattr(self, "_" + kind)(machine)

    def end(self):
        """Stop all faults."""
        self._world.network.heal()
        for machine in self._world.machines.values():
            self._cure(machine)

    def _power_loss(self, machine):
        if machine.process is not None:
            machine.lose_power()

    def _kill(self, machine):
        if machine.process is not None:
            machine.kill()

    def _stop(self, machine):
        if machine.process is not None:
            self._world.loop.create_task(machine.stop())

    def _lose_disk(self, machine):
        """Lose a disk, as long as a majority of each slot's owners is left."""
        if self._may_lose(machine):
            machine.lose_disk()

    def _roll_back(self, machine):
        """Have a volume be the one of an earlier moment, before the last start of its process."""
        if machine.process is not None and machine.name not in self._copied:
            self._copied[machine.name] = machine.copy_disk()
            self._world.loop.call_later(self._random.choice((2.0, 6.0)), self._bring_back, machine)

    def _bring_back(self, machine):
        copied = self._copied.pop(machine.name)
        if not self._world.is_calm and self._may_lose(machine):
            machine.roll_back(copied)

    def _may_lose(self, machine):
        running = [each.process for each in self._world.machines.values()]
        return None not in running and self._world.history.placements.spares(machine.name)

    def _resize(self, _):
        self._world.operator.propose("resize", self._draw_count())

    def _resize_twice(self, _):
        self._resize(_)
        self._resize(_)

    def _abort(self, _):
        self._world.operator.propose("abort")

    def _draw_count(self):
        return self._random.randint(2, len(self._world.names) - (self._world.away is not None))

    def send_away(self):
        """Have the last node be away for longer than the horizon, while the others go on without it."""
        world = self._world
        machine = world.machines[world.names[-1]]
        if machine.process is None:
            return
        world.away = machine.name
        seconds = world.profile.horizon_seconds * self._random.uniform(1.2, 2.5)
        machine.go_away(seconds)
        world.loop.call_later(self._random.choice((0.1, 3.0)), self._insist, len(world.names) - 1)
        world.loop.call_later(seconds + self._random.choice((0.0, 1.0)), self._return)

    def _insist(self, node_count):
        if not self._world.is_calm:
            self._world.operator.insist(node_count)

    def _return(self):
        self._world.away = None
        self._insist(len(self._world.names))

    def _power_loss_amid_operation(self, machine):
        machine.disk.operations_to_loss = self._random.randint(1, 12)

    def _power_loss_everywhere(self, _):
        for machine in self._world.machines.values():
            self._power_loss(machine)

    def _cold_start(self, _):
        """Stop all nodes, and start them in any order, one after the other."""
        machines = list(self._world.machines.values())
        self._random.shuffle(machines)
        seconds = 0.0
        for machine in machines:
            seconds += self._random.choice((0.0, 0.5, 3.0))
            machine.go_dark(seconds)

    def _partition(self, machine):
        """Block all ways between two parts, and stop some nodes within them."""
        names = self._world.names
        part = {machine.name, *self._random.sample(names, self._random.randint(1, len(names) - 1))}
        seconds = self._random.choice((0.5, 5.0))
        for name in names:
            for other in names:
                if (name in part) != (other in part):
                    self._block_way(name, other, seconds)
            if self._random.random() < 0.3:
                self._kill(self._world.machines[name])

    def _block(self, machine):
        """Block some ways, each in one direction."""
        others = [name for name in self._world.names if name != machine.name]
        for other in self._random.sample(others, self._random.randint(1, len(others))):
            self._block_way(*self._random.choice(((machine.name, other), (other, machine.name))))

    def _isolate(self, machine):
        """Block all ways between a node and the others."""
        for other in self._world.names:
            if other != machine.name:
                self._block_way(machine.name, other)
                self._block_way(other, machine.name)

    def _block_way(self, source, target, seconds=None):
        network = self._world.network
        network.blocked[source, target] = None
        self._later(lambda: network.blocked.pop((source, target), None), seconds)

    def _cut(self, machine):
        for link in tuple(self._world.network.links):
            if machine.name in (link.source.name, link.node_id) and self._random.random() < 0.5:
                link.close(is_drained=self._random.random() < 0.5)

    def _disk_full(self, machine):
        machine.disk.fullness = self._random.choice((0.5, 1.0))
        self._later(lambda: setattr(machine.disk, "fullness", 0.0))

    def _sync_fails(self, machine):
        machine.disk.sync_fails = True

    def _disk_slow(self, machine):
        machine.slow_disk_ms = self._random.choice((50, 500, 3000))
        self._later(lambda: setattr(machine, "slow_disk_ms", 0))

    def _clock_set(self, machine):
        machine.clock.skew_seconds = self._random.choice((1, 10, CLOCK_SECONDS_MAX)) * self._random.uniform(-1, 1)

    def _clock_far(self, machine):
        """Set the clocks of one, two or all nodes by minutes to years, all of them the same."""
        names = self._world.names
        others = [name for name in names if name != machine.name]
        wrong = [machine.name, *self._random.sample(others, self._random.choice((0, 1, len(others))))]
        seconds = self._random.choice(FAR_SECONDS) * self._random.choice((-1, 1, 1))
        for name in wrong:
            self._world.machines[name].clock.skew_seconds = seconds
        if self._random.random() < 0.5:
            self._later(lambda: self._correct(wrong))

    def _correct(self, names):
        for name in names:
            self._world.machines[name].clock.skew_seconds = 0.0

    def _cure(self, machine):
        if "clock_far" in self._world.profile.faults:
            self._correct([machine.name])
        disk = machine.disk
        disk.fullness = 0.0
        disk.sync_fails = False
        disk.operations_to_loss = None
        machine.slow_disk_ms = 0

    def _later(self, cure, seconds=None):
        self._world.loop.call_later(seconds or self._random.choice((0.05, 0.5, 5.0)), cure)
