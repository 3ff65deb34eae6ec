"""Seeds that must pass, bugs that must be caught, and the simulation's own promises."""

import dataclasses
import inspect
import os
import subprocess
import sys

import pytest

from crdt_service.disk.disk import Disk
from tests.sim.__main__ import describe
from tests.sim.bug import BUGS
from tests.sim.disk import SimDisk
from tests.sim.placement_bug import PLACEMENT_BUGS
from tests.sim.simulation import Options, run_seed

BUG_SEEDS_MAX = 60
JUDGES_OF_BUGS = BUGS | PLACEMENT_BUGS
# The first found a torn log behind a newer one, which no longer started; the second what came back with its writer,
# because the others had it by a repair alone.
SEEDS = (115, 241, *range(8))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_keeps_every_promise(seed):
    result = run_seed(seed)
    assert {} == result.failures, describe(result, Options())
    assert result.acknowledged > 0


@pytest.mark.parametrize("bug", JUDGES_OF_BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_caught(bug):
    found = set()
    for seed in range(BUG_SEEDS_MAX):
        with bug() as options:
            found |= run_seed(seed, dataclasses.replace(options, steps=options.steps // 2)).failures.keys()
        if found & JUDGES_OF_BUGS[bug]:
            return
    pytest.fail(f"{BUG_SEEDS_MAX} seeds found only {found}")


def test_a_failing_seed_replays_identically():
    options = Options(nodes=4, steps=120)
    first, second, other = (run_seed(seed, options) for seed in (3, 3, 4))
    assert (first.trace, first.events, first.virtual_seconds) == (second.trace, second.events, second.virtual_seconds)
    assert first.trace != other.trace


def test_a_seed_replays_identically_in_another_process():
    traces = {_run_in_process(hash_seed) for hash_seed in ("1", "2")}
    assert len(traces) == 1


def test_the_simulated_disk_stands_in_for_every_operation():
    operations = {name for name, _ in inspect.getmembers(Disk, inspect.isfunction) if not name.startswith("_")}
    assert operations <= vars(SimDisk).keys()


def _run_in_process(hash_seed):
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--seeds", "0-1", "--steps", "60", "--trace"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(line for line in done.stdout.splitlines() if line.startswith("seed "))
