"""What can only be measured from inside: ``python -m tests.measure [--only NAME,...] [--keys N] [--page FILE]``."""

import argparse
from pathlib import Path

from benchmarks.page import write_section
from tests.measure import growth, healing, listing, memory, operation

SECTIONS = {
    "healing": lambda options: healing.tables(options.keys),
    "growth": lambda options: growth.tables(options.nodes),
    "operation": lambda options: operation.tables(options.keys),
    "memory": lambda options: memory.tables(options.keys),
    "listing": lambda options: listing.tables(options.keys),
}


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.measure", description=__doc__)
    parser.add_argument("--only", default=",".join(SECTIONS), help="comma-separated")
    parser.add_argument("--keys", type=int, default=1_000_000, help="in the largest store")
    parser.add_argument("--nodes", type=int, default=1000, help="of the largest cluster")
    parser.add_argument("--page", type=Path, help="Markdown file whose sections of the same names to rewrite")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        parser.error(f"unknown: {', '.join(unknown)}")
    for name in names:
        text = SECTIONS[name](options)
        print(f"{text}\n", flush=True)
        if options.page:
            write_section(options.page, name, text)


if __name__ == "__main__":
    main()
