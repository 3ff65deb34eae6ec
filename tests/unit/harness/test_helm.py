import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.failure import Failure
from harness.release.helm import Helm

# A program that notes what it is asked, and answers from a file beside it.
FAKE = """#!{python}
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
asked = {{"arguments": sys.argv[1:], "input": "" if sys.argv[1] == "version" else sys.stdin.read()}}
with (folder / "asked").open("a") as notes:
    notes.write(json.dumps(asked) + "\\n")
answer = json.loads((folder / "answer").read_text())[sys.argv[1]]
sys.stdout.write(answer.get("stdout", ""))
sys.stderr.write(answer.get("stderr", ""))
sys.exit(answer.get("status", 0))
"""


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    program = tmp_path / "helm"
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(0o755)
    return Helm(program, "kind-test", "jarvis-system")


def answer(helm: Helm, **answers: dict[str, Any]) -> None:
    (helm.program.parent / "answer").write_text(json.dumps(answers))


def asked(helm: Helm) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (helm.program.parent / "asked").read_text().splitlines()]


@pytest.mark.parametrize(
    ("text", "version"), [("v4.3.0", (4, 3, 0)), ("v3.22.1+g0abc", (3, 22, 1)), ("v4.0.0-rc.1", (4, 0, 0))]
)
def test_versions(helm: Helm, text: str, version: tuple[int, ...]) -> None:
    answer(helm, version={"stdout": text})

    assert helm.version() == version


@pytest.mark.parametrize(("version", "forces"), [("v3.22.0", False), ("v4.3.0", True)])
def test_upgrade_names_the_place_passes_values_and_takes_over_fields_where_helm_can(
    helm: Helm, version: str, forces: bool
) -> None:
    answer(helm, version={"stdout": version}, upgrade={})

    helm.upgrade({"infrastructure": {"node_count": 3}})

    call = asked(helm)[-1]
    assert call["arguments"][:3] == ["upgrade", "--install", "jarvis"]
    assert call["arguments"][-4:] == ["--namespace", "jarvis-system", "--kube-context", "kind-test"]
    assert ("--force-conflicts" in call["arguments"]) is forces
    assert json.loads(call["input"]) == {"infrastructure": {"node_count": 3}}


def test_render_returns_the_objects(helm: Helm) -> None:
    answer(helm, template={"stdout": "---\nkind: A\n---\n# nothing\n---\nkind: B\n"})

    assert helm.render({}) == [{"kind": "A"}, {"kind": "B"}]


def test_a_failure_carries_what_helm_said(helm: Helm) -> None:
    answer(helm, uninstall={"stderr": "Error: the hook failed\n", "status": 1})

    with pytest.raises(Failure, match="helm uninstall failed: the hook failed"):
        helm.uninstall()


def test_helm_is_led_by_its_command_line_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of CI images and of helmfile name another cluster, user, namespace or store of releases."""
    foreign = (
        *("HELM_KUBEAPISERVER", "HELM_KUBECONTEXT", "HELM_KUBETOKEN", "HELM_KUBEASUSER", "HELM_KUBEASGROUPS"),
        *("HELM_KUBECAFILE", "HELM_KUBEINSECURE_SKIP_TLS_VERIFY", "HELM_KUBETLS_SERVER_NAME", "HELM_NAMESPACE"),
        *("HELM_DRIVER", "HELM_DRIVER_SQL_CONNECTION_STRING", "HELM_DEBUG", "HELM_PLUGINS", "HELM_MAX_HISTORY"),
        *("HELM_SOMETHING_NEW", "KUBERNETES_MASTER"),
    )
    for name in (*foreign, "HELM_CACHE_HOME", "HELM_QPS", "KUBECONFIG", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "elsewhere")
    program = tmp_path / "helm"
    program.write_text('#!/bin/sh\nenv > "$0.seen"\ncase $1 in version) echo v3.22.0;; esac\n')
    program.chmod(0o755)
    helm = Helm(program, "context", "agents")

    for act in (helm.version, helm.uninstall, lambda: helm.upgrade({}), lambda: helm.render({})):
        act()
        seen = {line.partition("=")[0] for line in program.with_suffix(".seen").read_text().splitlines()}
        assert set() == seen & set(foreign)
        assert seen >= {"HELM_CACHE_HOME", "HELM_QPS", "KUBECONFIG", "HTTPS_PROXY"}
