"""What one large add-wins set costs: python -m tests.measure.large; its limits are lifted, its size is the argument."""

import argparse
import resource
import time
from contextlib import contextmanager
from unittest import mock

import msgspec

from crdt_service.datatypes import dotted
from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.registry import find_type
from crdt_service.replication.commits import PUSH_BYTES_MAX

SET = find_type("aw_set")
ORIGIN = Origin("node-0~478f0fb3", lambda: 1)
OPS = 2000


@contextmanager
def timed(name, figures):
    start = time.perf_counter()
    yield
    figures[name] = time.perf_counter() - start


def add(state, pending, text):
    SET.join(state, SET.apply(state, pending, msgspec.json.encode({"add": text}), ORIGIN))


def memory_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(count):
    """Return seconds by name, and MiB."""
    state, pending, figures = SET.empty(), SET.empty(), {}
    before = memory_mib()
    for number in range(count):
        add(state, pending, f"{number:020}")
    figures["memory, MiB"] = memory_mib() - before
    with timed("one add", figures):
        for number in range(OPS):
            add(state, pending, f"x{number:019}")
    figures["one add"] /= OPS
    with timed("encode and digest", figures):
        SET.digest(state)
    with timed("split and encode", figures):
        parts = [SET.encode(part) for part in SET.split(state, PUSH_BYTES_MAX)]
    with timed("read", figures):
        msgspec.json.encode(SET.value(state))
    whole = SET.empty()
    with timed("decode and join", figures):
        for part in parts:
            whole = SET.join(whole, SET.decode(part))
    figures["encoded, MiB"] = len(SET.encode(whole)) / (1 << 20)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    count = parser.parse_args().count
    with mock.patch.multiple(dotted, ENTRIES_MAX=1 << 62, STATE_BYTES_MAX=1 << 62):
        for name, figure in measure(count).items():
            print(f"{name}: {figure:.6f}")


if __name__ == "__main__":
    main()
