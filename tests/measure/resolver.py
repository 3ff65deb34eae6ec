"""What the guard around a plugin's conflict strategy costs a decision: ``python -m tests.measure.resolver``."""

import statistics
import time

import msgspec

from benchmarks.page import markdown
from crdt_service.plugins.breaker import Breaker
from crdt_service.plugins.hook import Sibling, Strategy, Verdict
from crdt_service.plugins.resolvers import Guard

ROUNDS = 5
DECISIONS = 20_000


def main() -> None:
    """Print microseconds per decision, by how many siblings there are."""
    rows = []
    for count in (2, 16, 256):
        siblings = [
            Sibling(place, f"node-{place}~0", msgspec.json.encode(["x" * 100, place])) for place in range(count)
        ]
        guard = Guard(
            *("p", _choose, Breaker()),
            clock=time.monotonic,
            processor_clock=time.thread_time,
            on_failure=lambda _: None,
        )
        rows.append([str(count), *(f"{_measure(strategy, siblings):.1f}" for strategy in (_choose, guard))])
    print(markdown(["siblings", "alone", "guarded"], rows))


def _choose(siblings: list[Sibling], _sources: tuple[str, ...]) -> Verdict:
    return Verdict(siblings[-1].text, "the last")


def _measure(strategy: Strategy, siblings: list[Sibling]) -> float:
    """Return the median of some rounds, in microseconds per decision."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(DECISIONS):
            strategy(siblings, ())
        rounds.append((time.perf_counter() - started) / DECISIONS * 1e6)
    return statistics.median(rounds)


if __name__ == "__main__":
    main()
