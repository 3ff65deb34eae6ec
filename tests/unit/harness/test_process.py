import os
import sys
from pathlib import Path

import pytest

from harness.poll import Done, Pending, wait_until
from harness.process import CommandError, CommandMissingError, CommandTimeoutError, Completed, run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_returns_both_outputs_and_passes_input_and_variables(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.stdin.read(), os.environ['COLOUR'], os.getcwd()); print('e', file=sys.stderr)"

    done = run(python(code), input="in", env={"COLOUR": "blue"}, cwd=tmp_path)

    assert done == Completed(0, f"in blue {tmp_path}\n", "e\n")


def test_a_failure_carries_the_status_and_the_end_of_stderr() -> None:
    code = "import sys; [print(n, file=sys.stderr) for n in range(99)]; sys.exit(7)"

    with pytest.raises(CommandError) as caught:
        run(python(code))

    assert caught.value.returncode == 7
    assert caught.value.stderr_tail.splitlines() == [str(n) for n in range(79, 99)]
    assert "exit status 7" in str(caught.value)


def test_a_failure_is_returned_when_it_is_not_to_be_checked() -> None:
    assert run(python("raise SystemExit(3)"), check=False).returncode == 3


def test_a_time_out_ends_the_children_too(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    with pytest.raises(CommandTimeoutError):
        run(["sh", "-c", f"sleep 600 & echo $! > {pid_file}; wait"], timeout_seconds=2)

    status = Path(f"/proc/{pid_file.read_text().strip()}/status")

    def probe() -> Done[None] | Pending:
        # The kernel ends it in its own time; nobody may be there to reap it.
        alive = status.exists() and "Z (zombie)" not in status.read_text()
        return Pending("it still runs") if alive else Done(None)

    wait_until(probe, what="the child's end", deadline_seconds=60, interval_seconds=0.01)


def test_a_program_that_is_missing_or_not_executable_is_named(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    for program in ("no-such-program-anywhere", str(plain)):
        with pytest.raises(CommandMissingError, match=os.path.basename(program)):  # noqa: PTH119
            run([program])


def test_a_variable_is_added_or_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIVEN", "1")
    monkeypatch.setenv("KEPT", "2")
    script = "import os; print(*(os.environ.get(name) for name in ('GIVEN', 'KEPT', 'OWN')))"
    done = run([sys.executable, "-c", script], env={"GIVEN": None, "OWN": "3"})
    assert done.stdout == "None 2 3\n"
