"""What a node and a backend make of their state; docs/operations.md has the same rows."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec.structs import replace as replace_struct

from crdt_service.api.health import MIB, BackendFacts, NodeFacts, judge_backend, judge_node
from crdt_service.plugins.plugin import PluginView

WELL = NodeFacts(
    phase="serving",
    states=7,
    is_refusing=False,
    append_seconds=0.004,
    log_bytes=10 * MIB,
    log_bytes_max=64 * MIB,
    snapshot_bytes=100 * MIB,
    free_bytes=1000 * MIB,
    is_synced=True,
    surplus_slots=0,
    members=["alive", "alive", "alive", "left"],
    needed=3,
    is_placed=True,
    placement="placement 2: 3 of 3 nodes own all slots",
)
WORKS = PluginView("shapes", "active", False, [], "")
CONNECTED = BackendFacts(["idle", "busy", "idle"], needed=3, query_seconds=0.01, failed=1, queries=100)


def failed(checks):
    return [check.name for check in checks if not check.passed]


def test_a_node_that_is_well():
    status, checks = judge_node(WELL)
    assert ("healthy", []) == (status, failed(checks))
    assert [
        "serving",
        "disk_writable",
        "disk_space",
        "log_size",
        "checkpoint",
        "sync_time",
        "synced",
        "placement",
        "volume",
        "handed_over",
        "members",
        "clock",
    ] == [check.name for check in checks]


@pytest.mark.parametrize("phase", ["recovering", "stopping"])
def test_a_node_that_serves_nothing_is_unhealthy(phase):
    status, checks = judge_node(replace(WELL, phase=phase))
    assert ("unhealthy", ["serving"]) == (status, failed(checks))


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"is_refusing": True}, "disk_writable"),
        ({"free_bytes": 113 * MIB}, "disk_space"),
        ({"log_bytes": 129 * MIB}, "log_size"),
        ({"append_seconds": 1.2}, "sync_time"),
        ({"checkpoint_error": "OSError: no"}, "checkpoint"),
        ({"is_synced": False}, "synced"),
        ({"is_placed": False}, "placement"),
        ({"surplus_slots": 1}, "handed_over"),
        ({"members": ["alive", "alive", "dead"], "needed": 2}, "members"),
        ({"members": ["alive", "suspect"], "needed": 1}, "members"),
        ({"members": ["alive", "alive"]}, "members"),
        ({"offsets": {"node-1": 61.0, "node-2": 0.1}}, "clock"),
        ({"offsets": {"node-1": -61.0, "node-2": 0.1}}, "clock"),
    ],
)
def test_a_node_that_serves_though_something_is_amiss_is_degraded(change, check):
    status, checks = judge_node(replace(WELL, **change))
    assert ("degraded", [check]) == (status, failed(checks))


def test_a_volume_that_is_not_what_it_was_is_told_until_the_node_has_a_new_seat():
    fenced = replace(WELL, fenced="some commits are gone")
    assert ("degraded", ["placement", "volume"]) == (
        judge_node(replace(fenced, is_placed=False))[0],
        failed(judge_node(replace(fenced, is_placed=False))[1]),
    )
    assert ("healthy", "it got a new seat: some commits are gone") == (
        judge_node(fenced)[0],
        next(check.message for check in judge_node(fenced)[1] if check.name == "volume"),
    )


def test_clocks_that_are_wrong_are_named_the_worst_first():
    offsets = {"node-1": 59.9, "node-2": -7200.0, "node-3": 600.4, "node-4": 61.0, "node-5": 62.0}
    named = "node-2's clock is 7200 s behind this node's, node-3's clock is 600 s ahead of this node's"
    assert (
        f"{named}, node-5's clock is 62 s ahead of this node's, and 1 more differ: set the clocks that are wrong"
        == (judge_node(replace(WELL, offsets=offsets))[1][-1].message)
    )
    assert "2 other clocks are within 59.9 s of this node's" == (
        judge_node(replace(WELL, offsets={"node-1": -59.9, "node-2": 3.0}))[1][-1].message
    )


def test_a_backend_compares_the_clocks_of_nodes_with_each_other_not_with_its_own():
    far = {"node-0": 7200.0, "node-1": 7201.0, "node-2": 7199.5}
    assert "healthy" == judge_backend(replace(CONNECTED, offsets=far))[0]
    checks = {check.name: check for check in judge_backend(replace(CONNECTED, offsets=far | {"node-1": 7261.0}))[1]}
    assert "node-1's clock is 62 s ahead of node-2's: set the clocks that are wrong" == checks["clock"].message


def test_a_backend_that_is_well():
    status, checks = judge_backend(CONNECTED)
    assert ("healthy", []) == (status, failed(checks))


@pytest.mark.parametrize(
    ("change", "status", "names"),
    [
        ({"connections": ["idle", "idle", "idle", "unreachable"]}, "degraded", ["all_nodes_reachable"]),
        ({"connections": ["idle", "idle"]}, "degraded", ["replication_factor"]),
        ({"connections": ["full", "idle", "idle"]}, "degraded", ["database_connections"]),
        ({"query_seconds": 3.0}, "degraded", ["database_query_time"]),
        ({"failed": 11}, "degraded", ["database_errors"]),
        ({"offsets": {"node-0": -31.0, "node-1": 0.0, "node-2": 31.0}}, "degraded", ["clock"]),
        ({"plugins": [WORKS, replace_struct(WORKS, state="failing")]}, "degraded", ["plugin_shapes"]),
        ({"plugins": [replace_struct(WORKS, state="disabled")]}, "degraded", ["plugin_shapes"]),
        ({"connections": []}, "unhealthy", ["any_node_reachable", "replication_factor"]),
        (
            {"connections": ["refused", "connecting"]},
            "unhealthy",
            ["any_node_reachable", "all_nodes_reachable", "replication_factor"],
        ),
    ],
)
def test_a_backend_that_is_not(change, status, names):
    judged, checks = judge_backend(replace(CONNECTED, **change))
    assert (status, names) == (judged, failed(checks))


def test_the_documentation_has_a_row_for_every_check():
    text = (Path(__file__).parents[3] / "docs/operations.md").read_text()
    checks = {check.name for check in (*judge_node(WELL)[1], *judge_backend(replace(CONNECTED, plugins=[WORKS]))[1])}

    assert checks == set(re.findall(r"(?:degraded|unhealthy): `(\w+)`", text))
