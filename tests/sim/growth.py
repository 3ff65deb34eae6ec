"""What membership costs and how soon it knows, as clusters grow: ``python -m tests.sim.growth``.

Virtual time, the real state machine, messages of their real size. Each node has a channel to each other, so a dead
node's channels close; the last column is a death that nobody's channel tells of, as that of a whole machine.
"""

import argparse
import time

from crdt_service.membership.placement import Placement
from tests.sim.membership import World

SIZES = (3, 10, 30, 100, 300, 1000)
QUIET_INTERVALS = 5
SECONDS_MAX = 600.0
HEAD = (
    "| nodes | quiet messages/node/interval | bytes/node/interval | join known to all s | its messages/node | "
    "death known s | its bytes/node | silent death s | largest message KiB | placement ms | CPU s |"
)


def measure(count, *, interval_seconds, fanout, seed):
    """Return one row of the table."""
    started = time.process_time()
    world = World(count, seed=seed, interval_seconds=interval_seconds, fanout=fanout)
    world.run(interval_seconds)
    world.totals()
    world.run(QUIET_INTERVALS * interval_seconds)
    messages, size = world.totals()
    quiet = messages / count / QUIET_INTERVALS, size / count / QUIET_INTERVALS
    world.join(f"node-{count}", "node-0")
    join_seconds = world.run_until(lambda: world.knows(f"node-{count}", is_dead=False), SECONDS_MAX)
    join_messages, _ = world.totals()
    world.run_until(world.is_converged, SECONDS_MAX)
    world.run(3 * interval_seconds)
    world.totals()
    world.kill("node-1")
    death_seconds = world.run_until(lambda: world.knows("node-1", is_dead=True), SECONDS_MAX)
    _, death_bytes = world.totals()
    world.run(3 * interval_seconds)
    world.kill("node-2", channels_close=False)
    silent_seconds = world.run_until(lambda: world.knows("node-2", is_dead=True), SECONDS_MAX)
    placing = time.process_time()
    Placement(world.peers["node-0"].swim.placement_members(), 3)
    ended = time.process_time()
    return (
        f"| {count} | {quiet[0]:.1f} | {quiet[1]:.0f} | {join_seconds:.1f} | {join_messages / count:.1f} | "
        f"{death_seconds:.0f} | {death_bytes / count:.0f} | {silent_seconds:.0f} | "
        f"{world.largest_message / 1024:.1f} | {(ended - placing) * 1000:.0f} | {ended - started:.1f} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--interval", type=float, default=10.0, help="seconds")
    parser.add_argument("--fanout", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(HEAD)
    print("| --- " * HEAD.count(" |") + "|")
    for count in options.sizes:
        row = measure(count, interval_seconds=options.interval, fanout=options.fanout, seed=options.seed)
        print(row, flush=True)


if __name__ == "__main__":
    main()
