"""`dev` runs a whole cluster in one process; what it prints works as it stands."""

import contextlib
import re
import signal
import subprocess
from pathlib import Path

import pytest

from crdt_service.client import Client, read_token_file
from loadtests.cluster import command, environment, free_port


@contextlib.contextmanager
def developing(directory, *arguments):
    """Yield what it prints once it is ready, and end it as Ctrl-C does."""
    given = command("dev", "--data", str(directory), "--port", str(free_port()), *arguments)
    with subprocess.Popen(
        given, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("Ctrl-C"):
                    break
            else:
                raise AssertionError(process.stderr.read())
            yield "".join(lines)
        finally:
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate()
    # A machine with much else to do may be warned of slow answers; nothing fails.
    assert (0, "", False) == (process.returncode, rest, "ERROR" in errors or "Traceback" in errors), errors


def refuse(directory, *arguments):
    given = command("dev", "--data", str(directory), *arguments)
    ended = subprocess.run(given, env=environment(), capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr


def run_line(printed, name):
    line = re.search(rf"^  {name} +(.*)$", printed, re.MULTILINE)[1]
    return subprocess.run(["sh", "-c", f"{line} --silent"], capture_output=True, text=True, check=True).stdout


def run_python(printed):
    line = re.search(r"^  Python +(.*)$", printed, re.MULTILINE)[1]
    with contextlib.ExitStack() as clients:

        def make_client(*arguments, **options):
            return clients.enter_context(Client(*arguments, **options))

        names = {"Client": make_client, "read_token_file": read_token_file, "Path": Path}
        return eval(line, names)  # noqa: S307 - it is what we printed.


@pytest.mark.parametrize("arguments", [[], ["--nodes", "3"], ["--nodes", "3", "--with-keys"]])
def test_the_lines_it_prints_write_and_read_and_the_data_is_there_next_time(tmp_path, arguments):
    with developing(tmp_path / "data", *arguments) as printed:
        assert '"value":1' in run_line(printed, "write")
        assert '"value":1' in run_line(printed, "read")
        assert 2 == run_python(printed).value
    with developing(tmp_path / "data", *arguments[2:]) as printed:
        assert ("3 nodes" if "3" in arguments else "1 node") in printed
        assert '"value":3' in run_line(printed, "write")


def test_with_keys_a_request_without_one_is_refused(tmp_path):
    with developing(tmp_path / "data", "--with-keys") as printed:
        bare = re.sub(r' -H "[^"]*"', "", printed)
        assert '"code":"unauthenticated"' in run_line(bare, "read")


def test_what_it_cannot_do_it_says_with_a_remedy(tmp_path):
    with developing(tmp_path / "data", "--nodes", "1") as printed:
        port = re.search(r"127.0.0.1:(\d+)", printed)[1]
        assert (2, f"cannot listen on 127.0.0.1:{port}") == (
            (ended := refuse(tmp_path / "other", "--port", port))[0],
            re.search(r"cannot listen on \S+(?=:)", ended[1])[0],
        )
        status, said = refuse(tmp_path / "data", "--port", str(free_port()))
        assert (2, True) == (status, "another process writes there" in said)
    status, said = refuse(tmp_path / "data", "--nodes", "5")
    assert (2, True) == (status, "give --nodes 1, or another directory by --data" in said)
    (tmp_path / "file").write_text("")
    status, said = refuse(tmp_path / "file")
    assert (2, True) == (status, "give a directory that this user may write" in said)
    assert 2 == refuse(tmp_path / "data", "--nodes", "0")[0]
