"""Writes the dashboards of the chart and their page: `python -m harness.dashboard.generate [--check]`."""

import argparse
import sys
from typing import Final

from harness.dashboard.content import BOARDS
from harness.dashboard.page import PAGE, render_page
from harness.spec.generate import update
from harness.spec.schema import CHART

FOLDER: Final = CHART / "dashboards"


def main() -> int:
    """Write a file for each dashboard, and the page; with `--check`, print how they differ and return 1 if they do."""
    parser = argparse.ArgumentParser(prog="python -m harness.dashboard.generate", description=__doc__)
    boards = {FOLDER / f"{board.uid.removeprefix('jarvis-')}.json": board.render for board in BOARDS}
    return update({**boards, PAGE: render_page}, parser)


if __name__ == "__main__":
    sys.exit(main())
