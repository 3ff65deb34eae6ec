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
