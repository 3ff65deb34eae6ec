import json
import subprocess
from pathlib import Path

import pytest

import harness.cluster

_WRAPPER = Path(harness.cluster.__file__).with_name("runc-without-sys-resource.sh")


@pytest.fixture
def wrapper(tmp_path: Path) -> Path:
    """The wrapper over a runc that prints its arguments."""
    real = tmp_path / "runc"
    real.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    real.chmod(0o755)
    script = tmp_path / "wrapper"
    script.write_text(_WRAPPER.read_text().replace("real=/usr/sbin/runc", f"real={real}"))
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["CAP_SYS_RESOURCE"], []),
        (["CAP_CHOWN", "CAP_SYS_RESOURCE"], ["CAP_CHOWN"]),
        (["CAP_SYS_RESOURCE", "CAP_CHOWN"], ["CAP_CHOWN"]),
        (["CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_KILL"], ["CAP_CHOWN", "CAP_KILL"]),
        (["CAP_CHOWN"], ["CAP_CHOWN"]),
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "--bundle", "{}", "id"],
        ["run", "-b", "{}", "id"],
        ["create", "--bundle={}", "id"],
        ["exec", "--process", "{}/config.json", "id"],
        ["exec", "-p", "{}/config.json", "id"],
        ["exec", "--process={}/config.json", "id"],
    ],
)
def test_only_the_capability_goes(wrapper: Path, tmp_path: Path, indent, before, after, arguments):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"process": {"capabilities": {"bounding": before}}}, indent=indent))
    command = [argument.format(tmp_path) for argument in arguments]

    done = subprocess.run([wrapper, *command], capture_output=True, text=True, check=True)

    assert {"process": {"capabilities": {"bounding": after}}} == json.loads(file.read_text())
    assert command == done.stdout.split()


def test_commands_without_a_bundle_pass_through(wrapper: Path):
    done = subprocess.run([wrapper, "kill", "id", "9"], capture_output=True, text=True, check=True)
    assert ["kill", "id", "9"] == done.stdout.split()
