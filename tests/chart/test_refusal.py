"""Bad values are refused by helm itself, whoever installs."""

from typing import Any

import pytest

from tests.chart.conftest import nested


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("infrastructure.node_count", -5, "minimum"),
        ("infrastructure.node_count", 11, "maximum"),
        ("infrastructure.node_count", "three", "string"),
        ("infrastructure.instance_type", "banana", "'small', 'medium', 'large', 'xlarge'"),
        ("infrastructure.nodes", 3, "nodes"),
        ("infrastructure.storage_size", "100", "pattern"),
        ("infrastructure.vpc_cidr", "10.0.0.0/33", "pattern"),
        ("infrastructure.availability_zones", [], "minItems"),
        ("deployment.resource_limits.cpu", "0m", "pattern"),
        ("crdt.gossip_protocol.fan_out", 3, "fan_out"),
        ("instance_presets.small", {"requests": {"gpu": "1"}}, "gpu"),
        ("colour", "blue", "colour"),
    ],
)
def test_the_schema_refuses(template: Any, path: str, value: Any, says: str):
    done = template(nested(tuple(path.split(".")), value))

    assert 0 != done.returncode
    assert says in done.stderr
    assert "" == done.stdout


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"deployment": {"auto_scaling": {"min_replicas": 5, "max_replicas": 4}}},
            "min_replicas (5) is above max_replicas (4)",
        ),
        (
            {"infrastructure": {"node_count": 2}, "crdt": {"replication_factor": 3}},
            "replication_factor (3) is above infrastructure.node_count (2)",
        ),
    ],
)
def test_rules_across_keys_refuse_and_name_both(template: Any, values: Any, says: str):
    done = template(values)

    assert 0 != done.returncode
    assert says in done.stderr


def test_a_parent_chart_may_pass_globals(template: Any):
    assert 0 == template({"global": {"anything": 1}}).returncode
