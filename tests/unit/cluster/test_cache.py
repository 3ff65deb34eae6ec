import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.cluster.cache import cached, content_key


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JARVIS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _parts(cache: Path) -> list[Path]:
    return [path for path in (cache / "part").iterdir() if not path.name.endswith(".lock")]


def test_two_builders_of_one_part_build_it_once():
    builds: list[Path] = []
    both_run = threading.Event()

    def build(scratch: Path) -> None:
        builds.append(scratch)
        both_run.wait(60)

    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(cached, "part", "0123456789ab", build) for _ in range(2))
        while not second.running():
            time.sleep(0.01)
        both_run.set()

    assert first.result() == second.result()
    assert 1 == len(builds)


def test_builds_once_for_the_same_content():
    builds: list[Path] = []

    def build(scratch: Path) -> None:
        builds.append(scratch)
        (scratch / "result").write_text("built")

    first, second = (cached("part", content_key("input"), build) for _ in range(2))

    assert "built" == (second / "result").read_text()
    assert first == second
    assert 1 == len(builds)


def test_an_interrupted_build_leaves_nothing_and_is_done_again(cache: Path):
    def interrupted(scratch: Path) -> None:
        (scratch / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("part", content_key("input"), interrupted)
    assert [] == _parts(cache)

    done = cached("part", content_key("input"), lambda scratch: (scratch / "whole").touch())
    assert ["whole"] == [file.name for file in done.iterdir()]


def test_a_new_result_replaces_the_old_one_of_the_same_part_only(cache: Path):
    other = cached("part-other", content_key("a"), lambda _scratch: None)
    old = cached("part", content_key("a"), lambda _scratch: None)
    new = cached("part", content_key("b"), lambda _scratch: None)

    assert {other, new} == set(_parts(cache))
    assert not old.exists()


def test_the_key_follows_names_and_contents_and_nothing_else(tmp_path: Path):
    folder = tmp_path / "folder"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "file").write_text("a")
    key = content_key(folder)

    (folder / "__pycache__" / "file.pyc").write_text("compiled")
    assert key == content_key(folder)

    (folder / "file").write_text("b")
    changed = content_key(folder)
    assert key != changed

    (folder / "file").rename(folder / "renamed")
    assert content_key(folder) not in {key, changed}
    assert content_key("ab", "c") != content_key("a", "bc")
