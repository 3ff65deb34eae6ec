"""``python -m tests.sim --seeds 0-199 --nodes 5 --steps 300``: run seeds, print those that fail; 1 if any does."""

import argparse
import sys
import time

from tests.sim.simulation import Options, run_seed

PROGRESS_SECONDS = 5.0


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__.partition(":")[2])
    parser.add_argument("--seeds", type=_seeds, default=range(200), help="a seed or a range such as 0-199")
    parser.add_argument(
        "--nodes", type=int, default=Options.nodes, help="nodes in each world; 0 draws 3 to 7 from the seed"
    )
    parser.add_argument("--steps", type=int, default=Options.steps, help="operations and faults before all faults end")
    parser.add_argument("--trace", action="store_true", help="print the last events of a failing seed, and its hash")
    options = parser.parse_args()
    started = shown = time.perf_counter()
    failed, events, acknowledged = 0, 0, 0
    for done, seed in enumerate(options.seeds, 1):
        result = run_seed(seed, Options(options.nodes, options.steps))
        events += result.events
        acknowledged += result.acknowledged
        if result.failures:
            failed += 1
            print(describe(result, options))
        if options.trace:
            for line in result.tail if result.failures else ():
                print(line)
            print(f"seed {seed}: trace {result.trace}, {result.events} events, {result.virtual_seconds:.1f} s")
        if time.perf_counter() - shown > PROGRESS_SECONDS:
            shown = time.perf_counter()
            print(f"{done} of {len(options.seeds)} seeds, {failed} failed", flush=True)
    seconds = time.perf_counter() - started
    print(
        f"{len(options.seeds)} seeds, {failed} failed, {acknowledged} writes acknowledged, {events} events, "
        f"{events / seconds:.0f} events/s"
    )
    return 1 if failed else 0


def describe(result, options):
    """Return one line: the seed, what each judge found, and how to see it again."""
    found = "; ".join(f"{judge}: {finding}" for judge, finding in result.failures.items())
    return f"seed {result.seed} failed: {found[:600]} (make sim SEEDS={result.seed}{_extra(options)})"


def _extra(options):
    defaults = Options()
    return "".join(
        f" {name.upper()}={getattr(options, name)}"
        for name in ("nodes", "steps")
        if getattr(options, name) != getattr(defaults, name)
    )


def _seeds(text):
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    sys.exit(main())
