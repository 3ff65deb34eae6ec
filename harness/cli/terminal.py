"""The two outputs: results on stdout, everything else on stderr; and what a failure means for the exit status."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.text import Text

from harness.failure import Failure
from harness.kube import UnknownContextError
from harness.poll import WaitTimeoutError
from harness.report.render import Format
from harness.spec.config import ConfigError, Problem

FAILED = 1
MISUSED = 2
TIMED_OUT = 3
DEGRADED = 4


def open_stdout(form: Format) -> Console:
    """Return stdout; colour and tables only where a person reads them."""
    return Console(file=sys.stdout, no_color=None if form is Format.TABLE else True)


def say(text: str, style: str = "") -> None:
    """Write a line to stderr."""
    console = Console(file=sys.stderr, highlight=False)
    console.print(Text(text, style=style), soft_wrap=True)


@contextmanager
def exit_on_failure() -> Iterator[None]:
    """Turn what the rooms below raise into a message on stderr and an exit status."""
    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            say(to_text(problem), "red")
        raise typer.Exit(MISUSED) from None
    except Failure as failure:
        say(f"error: {failure.message}", "red")
        if failure.remedy:
            say(f"remedy: {failure.remedy}")
        raise typer.Exit(_status_of(failure)) from None


def to_text(problem: Problem) -> str:
    """Return a configuration problem the way compilers write theirs."""
    place = ":".join(str(part) for part in (problem.file, problem.line, problem.column) if part)
    lines = [f"{place}: {f'{problem.path}: ' if problem.path else ''}{problem.message}"]
    if problem.value not in (None, ""):
        lines.append(f"  value: {problem.value}")
    if problem.allowed:
        lines.append(f"  allowed: {problem.allowed}")
    if problem.suggestion:
        lines.append(f"  did you mean: {problem.suggestion}")
    return "\n".join(lines)


def _status_of(failure: Failure) -> int:
    if isinstance(failure, WaitTimeoutError):
        return TIMED_OUT
    return MISUSED if isinstance(failure, UnknownContextError) else FAILED
