"""What `make up` says when the machine cannot run containers; each case ends before anything is changed."""

import subprocess
from pathlib import Path

import pytest

from harness.cluster import engine, host, tool
from harness.cluster.progress import Progress
from harness.failure import Failure


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH without a single program, and a cache of its own."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("JARVIS_CACHE", str(tmp_path / "cache"))
    return programs


def test_no_engine_and_no_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    with pytest.raises(Failure, match="root is needed to start a container engine") as caught:
        engine.ensure_engine(Progress())

    assert "sudo" in caught.value.remedy
    assert not (tmp_path / "cache").exists()


def test_no_engine_and_no_package_manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("os.geteuid", lambda: 0)

    with pytest.raises(Failure, match="dockerd is not installed") as caught:
        engine.ensure_engine(Progress())

    assert "docker.io" in caught.value.remedy
    assert not (tmp_path / "cache").exists()


def test_no_disk_space(tmp_path: Path):
    with pytest.raises(Failure, match=r"GiB free, 1000000 GiB needed") as caught:
        host.require_free_space(tmp_path / "not" / "yet" / "there", 1e6)

    assert "JARVIS_CACHE" in caught.value.remedy


def test_an_engine_that_fails_to_start_shows_its_last_words(
    empty_machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    dockerd = empty_machine / "dockerd"
    dockerd.write_text("#!/bin/sh\necho 'no space left on device' >&2\nexit 7\n")
    dockerd.chmod(0o755)
    monkeypatch.setattr("os.geteuid", lambda: 0)

    with pytest.raises(Failure, match=r"dockerd ended with status 7\nno space left on device") as caught:
        engine.ensure_engine(Progress())

    assert str(tmp_path / "cache/engine/dockerd.log") in caught.value.remedy


def test_an_engine_that_is_not_ours_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with subprocess.Popen(["/bin/sleep", "60"]) as other:
        pid_file = tmp_path / "engine.pid"
        pid_file.write_text(str(other.pid))
        monkeypatch.setattr(engine, "_PID_FILE", pid_file)

        engine.stop_engine(Progress())

        assert other.poll() is None
        other.kill()


def test_a_missing_tool_names_the_remedy():
    with pytest.raises(Failure, match="helm is not installed") as caught:
        tool.find_tool("helm")

    assert "make tools" in caught.value.remedy


def test_without_go_nothing_is_compiled():
    with pytest.raises(Failure, match="Go is not installed"):
        tool.ensure_tool("kind", Progress())
