"""The command line of the deployment guide: `python deployment_cli.py COMMAND`."""

import os
import sys
from pathlib import Path

_PREPARED = Path(__file__).resolve().parent / ".venv"


def _run_prepared(missing: str) -> None:
    """Go on in the environment that make prepared, if there is one and this is another."""
    python = _PREPARED / "bin" / "python"
    if Path(sys.prefix).resolve() != _PREPARED and (_PREPARED / ".ready").exists():
        os.execv(python, [str(python), *sys.argv])  # noqa: S606 - the same program with the same arguments.
    print(
        f"error: the Python package {missing} is not installed\n"
        "  remedy: run `make venv` in the checkout, then the same command again",
        file=sys.stderr,
    )
    sys.exit(2)


if __name__ == "__main__":
    try:
        from harness.cli.app import main
    except ModuleNotFoundError as error:
        _run_prepared(str(error.name))
    else:
        main()
