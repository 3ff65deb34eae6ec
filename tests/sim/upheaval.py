"""Faults that are aimed at changes of owners: each provokes what one of their rules is for."""

SLOW_MS = 2000
UPHEAVALS = ("change_factor", "change_slowly", "change_behind", "accept_loss", "flip_tail")


class Upheaval:
    """Does these faults; a saboteur is one who does."""

    def _change_factor(self, _):
        """Have all nodes but the last own slots alone, or by three: majorities before and after need not meet."""
        newest = self._world.history.placements.newest
        if newest is not None:
            factor = 1 if newest.old.factor > 1 else 3
            self._world.operator.propose("resize", len(self._world.names) - 1, replication_factor=factor)

    def _change_slowly(self, machine):
        """Have owners change while a node takes long to take that up, and a write is under way on it before."""
        machine.slow_disk_ms = SLOW_MS
        self._later(lambda: setattr(machine, "slow_disk_ms", 0), 2.5)
        self._world.loop.call_later(self._random.choice((0.1, 0.5)), self._change_factor, machine)

    def _change_behind(self, machine):
        """Have owners change while one of them lacks what the others acknowledged: only the last node hears of it."""
        for other in self._world.names[:-1]:
            if other != machine.name:
                self._block_way(machine.name, other, 5.0)
                self._block_way(other, machine.name, 5.0)
        self._world.loop.call_later(self._random.choice((0.5, 2.0)), self._change_factor, machine)

    def _accept_loss(self, machine):
        """Have a node be away, and its seat given up; it comes back with its volume, which has no seat then."""
        if not self._may_lose(machine):
            return
        replica = machine.process.replica.id
        machine.go_away(self._random.choice((2.0, 5.0)))
        witness = self._random.choice([name for name in self._world.names if name != machine.name])
        self._world.loop.call_later(0.5, self._give_up, witness, replica)

    def _give_up(self, witness, replica):
        self._world.operator.propose("accept_loss", at=witness, lost=[replica])

    def _flip_tail(self, machine):
        """Have the machine go dark, and a bit of what it has synced last be another one when it is back."""
        if self._may_lose(machine):
            machine.flip_tail()
