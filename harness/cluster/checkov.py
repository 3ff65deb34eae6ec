"""Keeps checkov, a judge of manifests, in a virtual environment of its own: its pins clash with those of the tests."""

import sys
from pathlib import Path
from typing import Final

from harness.cluster.cache import cached, content_key
from harness.cluster.progress import Progress
from harness.process import run

_REQUIREMENTS: Final = Path(__file__).parents[2] / "requirements/judge.txt"
_INSTALL_SECONDS_MAX: Final = 900


def ensure_checkov(progress: Progress) -> list[str]:
    """Return the command that runs checkov, which is installed once for each version of it and of Python.

    Raises:
        Failure: It cannot be installed.
    """
    key = content_key(_REQUIREMENTS, sys.version, Path(__file__))
    folder = cached("checkov", key, _install, progress.step("installing checkov", 40))
    # Not its script, which names the folder that it was installed in before that was moved into place.
    return [str(folder / "bin/python"), "-m", "checkov.main"]


def _install(folder: Path) -> None:
    run([sys.executable, "-m", "venv", str(folder)], timeout_seconds=_INSTALL_SECONDS_MAX)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "--requirement", str(_REQUIREMENTS)], timeout_seconds=_INSTALL_SECONDS_MAX)
