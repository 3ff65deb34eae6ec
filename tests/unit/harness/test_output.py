"""Where results go: a pipe whose reader leaves, a full disk, a closed descriptor, a terminal of ASCII alone."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
import yaml

from harness.checks.health import Health
from harness.cli.terminal import show_result
from harness.report.render import Format

ROOT = Path(__file__).parents[3]
# A deployment that every command finds, so that each has something to write.
_DEPLOYED = """
import sys
from harness.cli import app as cli
from tests.unit.harness.fake_api import deployed_api
api = deployed_api()
cli.connect = lambda _context=None: api.kube()
cli.main()
"""
_COMMANDS = {
    "help": ["--help"],
    "help of a command": ["deploy", "--help"],
    "template": ["template", "TEMPLATE"],
    "status": ["status"],
    "status, JSON": ["status", "-o", "json"],
    "status, YAML": ["status", "-o", "yaml"],
    "health, JSON": ["health", "-o", "json"],
}
_LOST = {
    "full": "No space left on device",
    "closed": "Bad file descriptor",
    "no reader": "Broken pipe",
}


def _run(arguments: list[str], stdout: int | IO[bytes], **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", _DEPLOYED, *arguments],
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )


def _lose(kind: str, arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
    if kind == "full":
        with Path("/dev/full").open("wb") as full:
            return _run(arguments, full)
    if kind == "closed":
        script = 'exec "$0" -c "$1" "${@:2}" >&-'
        command = ["bash", "-c", script, sys.executable, _DEPLOYED, *arguments]
        return subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, check=False)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return _run(arguments, writer)
    finally:
        os.close(writer)


@pytest.mark.parametrize("kind", _LOST)
@pytest.mark.parametrize("command", _COMMANDS)
def test_output_that_cannot_be_written_is_one_line_and_exit_status_1(tmp_path: Path, command: str, kind: str) -> None:
    arguments = [str(tmp_path / "file.yaml") if each == "TEMPLATE" else each for each in _COMMANDS[command]]
    done = _lose(kind, arguments)
    assert done.stderr.decode() == f"error: cannot write to standard output: {_LOST[kind]}\n"
    assert done.returncode == 1


def test_a_command_goes_on_where_no_one_can_read_what_it_reports(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("infrastructure: {node_count: -5}\n")
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "deployment_cli.py", "deploy", str(config)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=full, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    closed = ["bash", "-c", f"{sys.executable} {ROOT}/deployment_cli.py deploy {config} 2>&-"]
    assert subprocess.run(closed, check=False).returncode == 2


_ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("name", ["größe.yaml", "\udcff.yaml", "😀.yaml"])
@pytest.mark.parametrize("environment", [{}, _ASCII], ids=["UTF-8", "ASCII"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str, environment: dict[str, str]) -> None:
    path = tmp_path / name
    done = _run(["template", str(path)], subprocess.PIPE, **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "infrastructure:" in path.read_text(encoding="utf-8")
    done = _run(["template", str(path)], subprocess.PIPE, **environment)
    assert (done.returncode, b"exists already" in done.stderr) == (2, True)


@pytest.mark.parametrize("form", [Format.JSON, Format.YAML])
def test_json_and_yaml_are_utf_8_whatever_the_terminal_takes(monkeypatch: pytest.MonkeyPatch, form: Format) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    show_result(Health(overall="healthy", time="now", context="größe", namespace="n", checks=[]), form)
    assert yaml.safe_load(written.getvalue().decode("utf-8"))["context"] == "größe"


@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf", "1e400", "0", "9" * 100_000])
def test_a_time_that_no_one_waits_for_is_refused(seconds: str) -> None:
    for arguments in (["health", "--interval", seconds], ["cleanup", "id", "--timeout", seconds]):
        done = _run(arguments, subprocess.PIPE)
        assert (done.returncode, b"Traceback" in done.stderr) == (2, False)
