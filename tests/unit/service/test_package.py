"""What `pip install .` installs works away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from crdt_service import VERSION

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of what git knows, with the tools that are here."""
    directory = tmp_path_factory.mktemp("package")
    source = directory / "source"
    source.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "crdt_service", "requirements", "pyproject.toml", "README.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    run_pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(source))
    return next(directory.glob("*.whl"))


def run_pip(*arguments):
    given = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    ended = subprocess.run(given, capture_output=True, text=True, check=False)
    assert (0, "") == (ended.returncode, ended.stderr)


def test_the_wheel_has_the_service_and_nothing_else(wheel):
    assert f"jarvis_crdt-{VERSION}-py3-none-any.whl" == wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert {"crdt_service", f"jarvis_crdt-{VERSION}.dist-info"} == {name.partition("/")[0] for name in names}
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("crdt_service/**/*.py")}
    assert modules == {name for name in names if name.endswith(".py")}


def test_the_command_runs_away_from_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    run_pip("install", "--no-deps", "--no-compile", "--target", str(site), str(wheel))
    shown = subprocess.run(
        [site / "bin" / "jarvis", "dev", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "usage: jarvis dev [-h] [--nodes NODES]" in shown.stdout
