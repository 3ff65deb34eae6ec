"""`python deployment_cli.py` says what to do where nothing is installed, and runs where make prepared it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def start(*path, checkout):
    given = [*path, str(checkout / "deployment_cli.py"), "--help"]
    return subprocess.run(given, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})


def copy_checkout(directory):
    (directory / "deployment_cli.py").write_bytes((ROOT / "deployment_cli.py").read_bytes())
    (directory / "harness").symlink_to(ROOT / "harness")
    return directory


def test_without_its_packages_it_says_what_to_run(tmp_path):
    # -S hides every installed package, as a machine has it where nothing is installed yet.
    ended = start(sys.executable, "-S", "-B", checkout=copy_checkout(tmp_path))
    assert (2, "", True) == (ended.returncode, ended.stdout, ended.stderr.startswith("error: the Python package "))
    assert "  remedy: run `make venv` in the checkout, then the same command again\n" in ended.stderr


def test_it_goes_on_in_the_environment_that_make_prepared(tmp_path):
    checkout = copy_checkout(tmp_path)
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / ".ready").touch()
    prepared = checkout / ".venv" / "bin" / "python"
    prepared.write_text('#!/bin/sh\necho prepared "$(basename "$1")" "$2"\n')
    prepared.chmod(0o755)
    ended = start(sys.executable, "-S", "-B", checkout=checkout)
    assert (0, "prepared deployment_cli.py --help\n", "") == (ended.returncode, ended.stdout, ended.stderr)
