import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from harness.cli import app as cli
from harness.spec.config import read_config
from tests.unit.harness.fake_api import FakeApi, deployed_api
from tests.unit.harness.test_kube import write_kubeconfig

ROOT = Path(__file__).parents[3]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def run_process(*arguments: str, kubeconfig: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "deployment_cli.py"), *arguments],
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """A healthy deployment that the commands find behind every context."""
    api = deployed_api()
    monkeypatch.setattr(cli, "connect", lambda _context=None: api.kube())
    return api


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """A kubeconfig of a cluster that does not answer."""
    return write_kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration that `template` writes."""
    path = tmp_path / "cluster-config.yaml"
    assert run("template", str(path)).exit_code == 0
    return path


def test_the_template_is_a_valid_configuration(config: Path) -> None:
    assert read_config(config).values["infrastructure"]["node_count"] == 3


def test_the_template_is_not_written_over_a_file_that_exists(config: Path) -> None:
    config.write_text("mine")

    refused = run("template", str(config))
    assert refused.exit_code == 2
    assert "exists already" in refused.stderr
    assert config.read_text() == "mine"

    assert run("template", str(config), "--force").exit_code == 0
    assert read_config(config).overrides


def test_the_template_cannot_be_written_where_there_is_no_folder(tmp_path: Path) -> None:
    assert run("template", str(tmp_path / "absent" / "file.yaml")).exit_code == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"infrastructure:\n  node_count: -5\n", ["cluster-config.yaml:2:", "node_count", "-5"]),
        (b"infrastructure:\n  node_count: banana\n", ["cluster-config.yaml:2:", "banana"]),
        (b"infrastructure:\n  node_cuont: 3\n", ["cluster-config.yaml:2:", "node_cuont", "did you mean", "node_count"]),
        (b"- a\n- list\n", ["cluster-config.yaml"]),
        (b"a: [1,\n", ["cluster-config.yaml:"]),
        (b"\x00\x01\xff\xfe binary", ["cluster-config.yaml"]),
        (None, ["cluster-config.yaml"]),
    ],
    ids=["negative", "banana", "unknown", "list", "syntax", "binary", "missing"],
)
def test_a_wrong_configuration_is_explained_before_anything_happens(
    text: bytes | None, told: list[str], tmp_path: Path, api: FakeApi
) -> None:
    path = tmp_path / "cluster-config.yaml"
    if text is not None:
        path.write_bytes(text)

    result = run("deploy", str(path))

    assert result.exit_code == 2
    assert [word for word in told if word not in result.stderr] == []
    assert result.stdout == ""
    assert api.changes == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["health", "--interval", "0"],
        ["health", "--interval", "often"],
        ["status", "--format", "xml"],
        ["status", "-o", "xml"],
        ["deploy"],
        ["cleanup"],
        ["explode"],
        ["status", "--unknown"],
        ["deploy", "x.yaml", "--timeout", "-1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""


def test_status_of_a_deployment(api: FakeApi) -> None:
    result = run("status", "--format", "json", "--deployment-id", "jarvis-0123abcd")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["state"] == "ready"


def test_status_of_another_deployment_names_the_one_that_is_there(api: FakeApi) -> None:
    result = run("status", "--deployment-id", "jarvis-99999999")

    assert result.exit_code == 1
    assert "jarvis-99999999 is not deployed" in result.stderr
    assert "jarvis-0123abcd is" in result.stderr


@pytest.mark.parametrize(("phase", "code"), [("ready", 0), ("failed", 1), ("deploying", 4)])
def test_status_exits_with_what_it_says(api: FakeApi, phase: str, code: int) -> None:
    api.objects["configmaps", "jarvis-system", "jarvis-deployment"]["data"]["phase"] = phase

    assert run("status").exit_code == code


def test_health_exits_with_what_it_says(api: FakeApi) -> None:
    assert run("health").exit_code == 0

    api.service.status = "degraded"
    assert run("health").exit_code == 4

    api.down = True
    result = run("health", "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["overall"] == "unhealthy"


def test_continuous_health_writes_one_result_per_interval_until_interrupted(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Callable[[], None]] = [lambda: None, lambda: setattr(api.service, "status", "degraded")]

    def sleep(seconds: float) -> None:
        assert seconds == 30
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()

    monkeypatch.setattr(cli.time, "sleep", sleep)

    result = run("health", "--continuous", "--interval", "30", "-o", "json")

    overall = [json.loads(line)["overall"] for line in result.stdout.splitlines()]
    assert overall == ["healthy", "healthy", "degraded"]
    assert result.exit_code == 4, "the last one's"


def test_cleanup_of_another_deployment_changes_nothing(api: FakeApi) -> None:
    result = run("cleanup", "jarvis-99999999")

    assert result.exit_code == 1
    assert "jarvis-0123abcd" in result.stderr
    assert api.changes == []


def test_nothing_to_clean_up(api: FakeApi) -> None:
    result = run("cleanup", "jarvis-0123abcd", "--namespace", "empty")

    assert result.exit_code == 1
    assert "nothing is deployed in the namespace empty" in result.stderr


@pytest.mark.parametrize("command", [["status"], ["health"], ["cleanup", "jarvis-0123abcd"]], ids=" ".join)
def test_an_unreachable_cluster_fails_with_a_remedy(command: list[str], dead: Path) -> None:
    result = run_process(*command, kubeconfig=dead)

    assert result.returncode == 1
    told = result.stdout + result.stderr
    assert "does not answer" in told
    assert "make up" in told
    assert "Traceback" not in told


def test_deploying_to_an_unreachable_cluster_fails_with_a_remedy(config: Path, dead: Path) -> None:
    result = run_process("deploy", str(config), "--context", "dead", kubeconfig=dead)

    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "remedy: " in result.stderr
    assert result.stdout == ""


def test_an_unknown_context_is_wrong_usage(dead: Path) -> None:
    result = run_process("status", "--context", "elsewhere", kubeconfig=dead)

    assert result.returncode == 2
    assert "use one of: dead" in result.stderr


def test_no_kubeconfig_fails_with_a_remedy(tmp_path: Path) -> None:
    result = run_process("status", kubeconfig=tmp_path / "absent")

    assert result.returncode == 1
    assert "there is no kubeconfig" in result.stderr
    assert "make up" in result.stderr


def test_wrong_usage_of_the_real_program_exits_with_2(dead: Path) -> None:
    assert run_process("health", "--interval", "0", kubeconfig=dead).returncode == 2
    assert run_process(kubeconfig=dead).returncode == 2


def test_every_command_explains_itself() -> None:
    for command in ("template", "deploy", "status", "health", "cleanup"):
        result: Any = run(command, "--help")
        assert result.exit_code == 0
        assert "Usage" in result.stdout
