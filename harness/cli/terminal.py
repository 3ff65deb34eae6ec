"""The two outputs: results on stdout, everything else on stderr; and what a failure means for the exit status."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from harness.failure import Failure
from harness.kube import UnknownContextError
from harness.poll import WaitTimeoutError
from harness.report.render import Format, render
from harness.report.sheet import Result
from harness.spec.config import ConfigError, Problem

FAILED = 1
MISUSED = 2
TIMED_OUT = 3
DEGRADED = 4
_SHOWN_MAX = 200


class OutputError(Failure):
    """Standard output takes nothing: its reader left, its disk is full, or it is closed."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to standard output: {error.strerror or error}")


def show(text: str) -> None:
    """Write text to stdout.

    Raises:
        OutputError: It takes nothing.
    """
    with _writing():
        sys.stdout.write(text)


def show_result(result: Result, form: Format) -> None:
    """Write a result to stdout; colour and tables only where a person reads them, and UTF-8 where a program does.

    Raises:
        OutputError: It takes nothing.
    """
    if form is not Format.TABLE and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    with _writing():
        render(result, form, Console(file=sys.stdout, no_color=None if form is Format.TABLE else True))


def say(text: str, style: str = "") -> None:
    """Write a line to stderr; where no one can read it, what is under way goes on."""
    if sys.stderr is None:
        return
    console = Console(file=sys.stderr, highlight=False)
    with suppress(OSError):
        console.print(Text(text, style=style), soft_wrap=True)


@contextmanager
def exit_on_lost_output() -> Iterator[None]:
    """Run the command line with a stdout whose loss is told by one line and exit status 1, never by a traceback."""
    if sys.stdout is None:
        # Closed by the caller: a file that is not open for writing fails in the same way, at the first word.
        sys.stdout = open(os.devnull, opener=_open_for_reading, mode="w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files may hold what is no character, and not every terminal takes all.
            stream.reconfigure(errors="backslashreplace")
    stdout, stderr = sys.stdout, sys.stderr
    ending: int | str | None = 0
    try:
        try:
            yield
        except SystemExit as end:
            ending = end.code
        # The parser ends in silence where the reader of its help left, with other streams in their places.
        if sys.stdout is not stdout:
            sys.stdout, sys.stderr = stdout, stderr
            raise OutputError(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))
        with _writing():
            sys.stdout.flush()
    except (OSError, OutputError) as error:
        lost = error if isinstance(error, OutputError) else OutputError(error)
        say(f"error: {lost.message}", "red")
        _abandon_stdout()
        ending = FAILED
    sys.exit(ending)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        _abandon_stdout()
        raise OutputError(error) from None


def _open_for_reading(path: str, _flags: int) -> int:
    return os.open(path, os.O_RDONLY)


def _abandon_stdout() -> None:
    """Keep what could not be written from being written later, at the end of the interpreter at the latest."""
    with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


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
        lines.append(f"  value: {_shorten(str(problem.value))}")
    if problem.allowed:
        lines.append(f"  allowed: {problem.allowed}")
    if problem.suggestion:
        lines.append(f"  did you mean: {problem.suggestion}")
    return "\n".join(lines)


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"


def _status_of(failure: Failure) -> int:
    if isinstance(failure, WaitTimeoutError):
        return TIMED_OUT
    return MISUSED if isinstance(failure, UnknownContextError) else FAILED
