"""Running other programs. Owns their exit status, output and time-outs; knows nothing of what they do."""

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.failure import Failure

_TAIL_LINES = 20
_GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Completed:
    """What a program left behind: exit status (negative: the signal that ended it) and its two outputs as text."""

    returncode: int
    stdout: str
    stderr: str


class CommandError(Failure):
    """A program ended with a non-zero status, or did not end in time.

    Args:
        command: The program and its arguments.
        returncode: Its exit status; negative for a signal; None when it was stopped for taking too long.
        stderr_tail: The last lines that it wrote to stderr.
        remedy: What to do about it.
    """

    def __init__(self, command: Sequence[str], returncode: int | None, stderr_tail: str, remedy: str = "") -> None:
        ending = "did not end in time" if returncode is None else f"exit status {returncode}"
        text = f"{shlex.join(command)}: {ending}"
        super().__init__(f"{text}\n{stderr_tail}" if stderr_tail else text, remedy)
        self.command = tuple(command)
        self.returncode = returncode
        self.stderr_tail = stderr_tail


class CommandTimeoutError(CommandError):
    """A program was stopped because it did not end in time."""

    def __init__(self, command: Sequence[str], timeout_seconds: float, stderr_tail: str) -> None:
        super().__init__(command, None, stderr_tail, f"it was stopped after {timeout_seconds:g} s; see why it hangs")
        self.timeout_seconds = timeout_seconds


class CommandMissingError(Failure):
    """The program is not installed, or may not be run."""

    def __init__(self, program: str, reason: str) -> None:
        super().__init__(f"cannot run {program}: {reason}", f"install {program}, or put it on PATH")
        self.program = program


def run(
    args: Sequence[str],
    *,
    input: str | None = None,  # noqa: A002 -- the same name as subprocess uses.
    env: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
    timeout_seconds: float | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end and return what it wrote.

    The program leads a process group of its own, so a time-out or Ctrl-C ends its children with it.

    Args:
        args: The program and its arguments; never a shell string.
        input: Text for its stdin; without it stdin is empty, so that no program waits for a person.
        env: Variables added to this process's own, or in their place; None takes one away.
        cwd: Where it runs.
        timeout_seconds: How long it may take; None for as long as it wants.
        check: Whether a non-zero exit status raises.

    Raises:
        CommandError: It ended with a non-zero status and `check` is set.
        CommandTimeoutError: It took longer than `timeout_seconds`.
        CommandMissingError: There is no such program.
    """
    command = [str(arg) for arg in args]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_change_environment(env or {}),
            cwd=cwd,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        raise CommandMissingError(command[0], error.strerror or str(error)) from error
    with process:
        try:
            stdout, stderr = process.communicate(input, timeout=timeout_seconds)
        except subprocess.TimeoutExpired as expired:
            _end(process)
            _, stderr = process.communicate()
            raise CommandTimeoutError(command, expired.timeout, _tail(stderr)) from None
        except BaseException:
            _end(process)
            raise
    if check and process.returncode != 0:
        raise CommandError(command, process.returncode, _tail(stderr))
    return Completed(process.returncode, stdout, stderr)


def _change_environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in {**os.environ, **changes}.items() if value is not None}


def _end(process: subprocess.Popen[str]) -> None:
    """End the program and its children; first politely, so that it can leave its work in order."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)


def _tail(text: str) -> str:
    return "\n".join(text.rstrip().splitlines()[-_TAIL_LINES:])
