"""What the documentation names exists in the code."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from crdt_service.api.errors import CODES
from tests.sim.bug import BUGS
from tests.sim.placement_bug import PLACEMENT_BUGS

ROOT = Path(__file__).parents[3]
INVARIANTS = (ROOT / "docs/invariants.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
API = (ROOT / "docs/api.md").read_text()
# What an operator sees on a command line, in a log or on the framed port, and no client of the API.
NOT_OF_THE_API = {
    "authentication_failed",
    "backup_damaged",
    "backup_outrun",
    "backup_under_way",
    "backup_unknown",
    "bucket_failed",
    "certificate_refused",
    "change_under_way",
    "corrupt_data",
    "has_seat",
    "incomplete",
    "invalid_config",
    "kubernetes_conflict",
    "kubernetes_refused",
    "kubernetes_unreachable",
    "last_member",
    "moved",
    "no_placement",
    "not_empty",
    "node_count_differs",
    "other_cluster",
    "owners_lost",
    "placement_changed",
    "repair_postponed",
    "rolled_back",
    "seat_present",
    "states_refused",
    "types_collide",
    "undecided",
    "unknown_seat",
    "unplaced",
    "unvouched",
    "wrong_role",
}


def calls():
    for path in sorted((ROOT / "crdt_service").rglob("*.py")):
        yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def raised_codes():
    """The constants that stand where each way to make an error takes its code."""
    places = {"ServiceError": 0, "__init__": 0, "OperationError": 2}
    codes = set()
    for call in calls():
        name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        place = places.get(name, len(call.args))
        if place < len(call.args) and isinstance(call.args[place], ast.Constant):
            codes.add(call.args[place].value)
    return codes | {"invalid_operation"}


def test_every_test_that_an_invariant_names_exists():
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", INVARIANTS))
    assert named
    missing = {(path, name) for path, name in named if f"def {name}(" not in (ROOT / path).read_text()}
    assert set() == missing


def test_the_invariants_name_the_planted_bugs_and_no_others():
    rows = re.findall(r"^\| Planted bugs? \| (.*) \|$", INVARIANTS, re.MULTILINE)
    assert {bug.__name__ for bug in BUGS | PLACEMENT_BUGS} == set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_every_file_that_an_invariant_names_exists():
    named = set(re.findall(r"`(crdt_service/[\w/.]+)`", INVARIANTS))
    assert set() == {path for path in named if not (ROOT / path).exists()}


def test_the_api_knows_every_code_that_clients_may_get_and_no_others():
    assert raised_codes() - NOT_OF_THE_API == CODES.keys()


def test_the_document_shows_each_code_with_its_status_and_sentence():
    listed = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (.*) \|$", API, re.MULTILINE)
    assert [(str(code.status), name, code.when) for name, code in CODES.items()] == listed


@pytest.mark.parametrize("part", ["service", "harness"])
def test_contributing_shows_the_layers_that_are_checked(part):
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["name"] == f"The {part}'s layers")
    shown = re.search(rf"^- {part}: (.*)$", CONTRIBUTING, re.MULTILINE)[1]
    assert [re.split(r" [|:] ", layer) for layer in layers] == [
        re.findall(r"`(\w+)`", layer) for layer in shown.split(" → ")
    ]


def test_every_link_between_documents_leads_somewhere():
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    broken = [
        (document.name, target)
        for document in documents
        for target in re.findall(r"\]\((?!\w+:)([^)#]+)", document.read_text())
        if not (document.parent / target).exists()
    ]
    assert [] == broken
