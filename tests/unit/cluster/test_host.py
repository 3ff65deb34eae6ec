"""Programs that are installed when they are missing."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.cluster import host
from harness.cluster.progress import Progress


def test_who_wants_the_same_program_at_once_installs_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: set[str] = set()
    asked: list[str] = []
    both = threading.Barrier(2)

    def which(name: str) -> str | None:
        return name if name == "apt-get" or name in installed else None

    def require_root(_purpose: str) -> None:
        both.wait(10)  # Both have found it missing.

    def run(command: list[str], **_options: object) -> None:
        asked.append(command[1])
        if command[1] == "install":
            installed.add("debootstrap")

    monkeypatch.setattr(host.shutil, "which", which)
    monkeypatch.setattr(host, "require_root", require_root)
    monkeypatch.setattr(host, "run", run)

    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(host.ensure_program, "debootstrap", "debootstrap", Progress())

    assert ["update", "install"] == asked
