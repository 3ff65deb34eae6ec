"""Writes the dashboards of the chart: `python -m harness.dashboard.generate [--check]`."""

import argparse
import sys
from typing import Final

from harness.dashboard.content import BOARDS
from harness.spec.generate import update
from harness.spec.schema import CHART

FOLDER: Final = CHART / "dashboards"


def main() -> int:
    """Write a file for each dashboard; with `--check`, print how they differ and return 1 if they do."""
    parser = argparse.ArgumentParser(prog="python -m harness.dashboard.generate", description=__doc__)
    return update({FOLDER / f"{board.uid.removeprefix('jarvis-')}.json": board.render for board in BOARDS}, parser)


if __name__ == "__main__":
    sys.exit(main())
