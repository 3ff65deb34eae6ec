"""Every key of the guide's configuration reference is in the schema, as the guide has it, and has an effect."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.spec.config import read_config
from harness.spec.schema import Key, walk
from tests.chart.matrix import unfold

_ROOT = Path(__file__).parents[3]
_REFERENCE: dict[str, dict[str, Any]] = yaml.safe_load((_ROOT / "tests/guide/configuration.yaml").read_text())
_KEYS: dict[str, Key] = {key.dotted: key for key in walk()}
# What the guide uses elsewhere than in its reference: keys of its scaling example.
_ELSEWHERE = {"deployment.auto_scaling.target_memory_utilization"}
_TYPES = {bool: "boolean", int: "integer", str: "string", list: "array"}


@pytest.mark.parametrize("dotted", _REFERENCE)
def test_a_key_of_the_guide_is_as_the_guide_has_it(dotted: str):
    said, key = _REFERENCE[dotted], _KEYS[dotted]
    node = key.node

    assert {"default", "from", "to", "choices", "unit"} >= set(said)
    assert said["default"] == node["default"]
    assert _TYPES[type(said["default"])] == node["type"]
    assert not key.planned
    assert said.get("unit") == node.get("x-unit")
    if "choices" in said:
        assert said["choices"] == node["enum"]
    if "from" in said:
        assert (said["from"], said["to"]) == (node["minimum"], node["maximum"])


def test_numbers_have_ranges_and_names_are_choices_where_the_guide_gives_none():
    nodes = {dotted: _KEYS[dotted].node for dotted in _REFERENCE}

    assert [] == [name for name, node in nodes.items() if node["type"] == "integer" and "maximum" not in node]
    assert [] == [
        name for name, node in nodes.items() if node["type"] == "string" and not {"enum", "pattern"} & set(node)
    ]


def test_the_whole_reference_is_a_configuration_and_the_default_one(tmp_path: Path):
    path = tmp_path / "cluster-config.yaml"
    path.write_text(yaml.safe_dump(unfold({dotted: said["default"] for dotted, said in _REFERENCE.items()})))

    config = read_config(path)

    assert () == config.warnings
    assert config.values == read_config(_ROOT / "tests/guide/quick-start.yaml").values


def test_the_keys_that_the_guide_uses_beside_its_reference_are_there_too():
    assert _ELSEWHERE <= set(_KEYS)
