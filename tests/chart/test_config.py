"""The configuration file that the chart renders is the one that the service takes."""

from pathlib import Path

import pytest
import yaml

from crdt_service.kernel.config import Config, ConflictRule, CrdtConfig, RateLimitingConfig, SecurityConfig, read_config
from crdt_service.resolution.policy import read_policy
from crdt_service.resolution.strategy import STRATEGIES
from tests.chart.conftest import CHART, ROOT, Manifest, Render


def _read_all(render: Render, directory: Path, values: Manifest) -> Config:
    maps = {m["metadata"]["name"]: m["data"] for m in render(values) if m["kind"] == "ConfigMap"}
    path = directory / "config.json"
    path.write_text(maps["jarvis-config"]["config.json"], encoding="utf-8")
    return read_config(path)


def _read(render: Render, directory: Path, crdt: Manifest) -> CrdtConfig:
    return _read_all(render, directory, {"crdt": crdt}).crdt


def test_the_service_takes_keys_and_limits(render: Render, tmp_path: Path):
    limits = {"enabled": False, "requests_per_minute": 1_000_000, "burst_limit": 1}
    values = {"security": {"api_key_required": False, "rate_limiting": limits}}

    assert SecurityConfig(True, RateLimitingConfig(True, 1000, 2000)) == _read_all(render, tmp_path, {}).security
    assert (
        SecurityConfig(False, RateLimitingConfig(False, 1_000_000, 1)) == _read_all(render, tmp_path, values).security
    )


@pytest.mark.parametrize("mode", ["lww", "multi_value", "advanced"])
def test_the_service_takes_every_mode(render: Render, tmp_path: Path, mode: str):
    config = _read(render, tmp_path, {"conflict_resolution": mode})

    assert (mode, []) == (config.conflict_resolution, config.conflict_rules)
    read_policy(config)


def test_rules_arrive_in_order_and_complete(render: Render, tmp_path: Path):
    rules = [
        {"prefix": "price/<é>&", "type": "map", "strategy": "max"},
        {"strategy": "priority", "sources": ["jarvis-crdt-1", "jarvis-crdt-0"]},
    ]

    config = _read(render, tmp_path, {"conflict_rules": rules})

    assert [
        ConflictRule("price/<é>&", "map", "max", []),
        ConflictRule("", "any", "priority", ["jarvis-crdt-1", "jarvis-crdt-0"]),
    ] == config.conflict_rules
    read_policy(config)


def test_the_documentation_has_every_strategy_and_an_example_that_is_taken(render: Render, tmp_path: Path):
    text = (ROOT / "docs/conflicts.md").read_text(encoding="utf-8")
    example = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]

    assert set(STRATEGIES) == {name for row in rows for name in row.strip(" `").split("`, `")} & set(STRATEGIES)
    read_policy(_read(render, tmp_path, example["crdt"]))


def test_the_schema_lists_the_strategies_that_the_service_has():
    schema = yaml.safe_load((CHART / "values.schema.yaml").read_text())
    rule = schema["properties"]["crdt"]["properties"]["conflict_rules"]["items"]["properties"]

    assert rule["strategy"]["pattern"].startswith(f"^({'|'.join(STRATEGIES)}|[")
