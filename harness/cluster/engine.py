"""Finds the container engine, or starts one of its own and says so."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

from harness.cluster import host
from harness.cluster.cache import cache_root
from harness.cluster.progress import Progress
from harness.failure import Failure
from harness.poll import Done, Pending, wait_until
from harness.process import CommandMissingError, CommandTimeoutError, run

_START_SECONDS_MAX: Final = 60
_ANSWER_SECONDS_MAX: Final = 20
_PID_FILE: Final = Path("/run/jarvis-engine.pid")


def ensure_engine(progress: Progress) -> None:
    """Make `docker` work: use the running engine, else start `dockerd` with its data in the cache.

    Raises:
        Failure: No engine runs and none can be started; says why and what to do.
    """
    if engine_answers():
        return
    host.require_root("start a container engine")
    host.ensure_program("dockerd", "docker.io", progress)
    _start(progress)


def engine_answers() -> bool:
    """Whether `docker version` reaches a running engine."""
    try:
        asked = run(["docker", "version"], check=False, timeout_seconds=_ANSWER_SECONDS_MAX)
    except (CommandMissingError, CommandTimeoutError):
        return False
    return asked.returncode == 0


def stop_engine(progress: Progress) -> None:
    """Stop the engine that `ensure_engine` started; leave the user's own alone."""
    pid = _started_pid()
    if pid is None:
        return
    with progress.step("stopping the container engine"):
        os.kill(pid, signal.SIGTERM)
        wait_until(
            lambda: Done(None) if _started_pid() is None else Pending(f"dockerd (pid {pid}) still runs"),
            deadline_seconds=_START_SECONDS_MAX,
            interval_seconds=0.5,
        )


def _start(progress: Progress) -> None:
    folder = _engine_folder()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "dockerd.log"
    command = [
        "dockerd",
        f"--data-root={folder / 'data'}",
        "--exec-root=/run/jarvis-engine",
        f"--pidfile={_PID_FILE}",
    ]
    if host.lacks_sys_resource():
        wrapper = folder / "runc-without-sys-resource.sh"
        shutil.copy(Path(__file__).with_name(wrapper.name), wrapper)
        command += [f"--add-runtime=jarvis={wrapper}", "--default-runtime=jarvis"]
    with progress.step(f"no container engine answered; starting dockerd (log: {log})"), log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )

        def probe() -> Done[None] | Pending:
            if process.poll() is not None:
                last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
                raise Failure(f"dockerd ended with status {process.returncode}\n" + "\n".join(last), f"read {log}")
            return Done(None) if engine_answers() else Pending("dockerd does not answer yet")

        wait_until(probe, deadline_seconds=_START_SECONDS_MAX, interval_seconds=0.5)


def _engine_folder() -> Path:
    return cache_root() / "engine"


def _started_pid() -> int | None:
    """The pid of our own dockerd while it lives; a stale file, or another program with its pid, counts as none."""
    try:
        pid = int(_PID_FILE.read_text(encoding="ascii"))
        return pid if b"dockerd" in Path(f"/proc/{pid}/cmdline").read_bytes() else None
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
