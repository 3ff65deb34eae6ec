import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

from harness.spec import generate
from harness.spec.config import read_config
from harness.spec.schema import defaults, walk


def test_generated_files_are_up_to_date():
    done = subprocess.run(
        [sys.executable, "-m", "harness.spec.generate", "--check"], capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stdout + done.stderr)


def test_values_are_the_defaults():
    assert defaults() == yaml.safe_load(generate.render_values())


def test_the_template_is_valid_and_changes_no_default(tmp_path: Path):
    path = tmp_path / "cluster-config.yaml"
    path.write_text(generate.render_template())

    config = read_config(path)

    assert defaults() == config.values
    assert () == config.warnings


def test_the_template_with_planned_keys_uncommented_is_valid_too(tmp_path: Path):
    path = tmp_path / "cluster-config.yaml"
    path.write_text(re.sub(r"^# (?=  |# |[a-z_]+:$)", "", generate.render_template(), flags=re.MULTILINE))

    warned = {warning.split()[0] for warning in read_config(path).warnings}

    assert {key.dotted for key in walk() if key.planned and key.is_leaf} == warned


def test_every_key_has_a_sentence_and_stands_in_the_reference():
    reference = generate.render_documentation()
    for key in walk():
        assert key.node["description"].endswith("."), key.dotted
        assert not key.is_leaf or f"| `{key.dotted}` |" in reference, key.dotted


def test_the_json_schema_has_no_extension_keywords():
    assert "x-" not in {name[:2] for name in _names(json.loads(generate.render_json_schema()))}


def _names(node: object) -> set[str]:
    if isinstance(node, dict):
        return set(node) | {name for child in node.values() for name in _names(child)}
    return {name for child in node for name in _names(child)} if isinstance(node, list) else set()
