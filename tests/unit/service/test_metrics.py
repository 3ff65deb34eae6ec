"""The catalogue is what is exported, and what is documented."""

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from crdt_service import VERSION
from crdt_service.kernel.error import StorageFullError
from crdt_service.metrics.catalogue import CATALOGUE, CONTAINER, PLATFORM, Exporter, Kind
from crdt_service.metrics.metrics import BackendMetrics, NodeMetrics
from crdt_service.metrics.page import PAGE, render_page

ROOT = Path(__file__).parents[3]
# Of the names that other parts of the project, such as alerts, rely on.
PROMISED = {
    "jarvis_crdt_sync_latency_seconds": (),
    "jarvis_crdt_conflicts_total": ("type", "strategy"),
    "jarvis_requests_total": ("route", "status"),
    "jarvis_request_duration_seconds": ("route",),
    "jarvis_database_connections": ("state",),
    "jarvis_database_errors_total": ("kind",),
    "jarvis_database_query_duration_seconds": ("operation",),
    "jarvis_plugins": ("state",),
    "jarvis_plugin_failures_total": ("plugin",),
    "jarvis_members": ("state",),
    "jarvis_storage_bytes": ("state",),
    "jarvis_under_replicated_keys": (),
    "jarvis_antientropy_bytes_total": (),
}


def families(metrics):
    return {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}


def samples(metrics):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families(metrics).values()
        for sample in family.samples
    }


@pytest.mark.parametrize(("make", "exporter"), [(NodeMetrics, Exporter.NODE), (BackendMetrics, Exporter.BACKEND)])
def test_a_process_exports_what_the_catalogue_says_and_nothing_else(make, exporter):
    listed = {m.name: m.kind.value for m in (*CATALOGUE, *CONTAINER, *PLATFORM) if exporter in m.exporters}

    exported = {
        name + ("_total" if family.type == "counter" else ""): family.type for name, family in families(make()).items()
    }

    assert listed == exported


def test_every_promised_name_has_its_labels():
    labels = {metric.name: tuple(label.name for label in metric.labels) for metric in CATALOGUE}

    assert PROMISED == {name: labels[name] for name in PROMISED}


def test_names_end_with_their_unit_or_what_they_count():
    for metric in (*CATALOGUE, *CONTAINER):
        assert (metric.kind is Kind.COUNTER) == metric.name.endswith("_total"), metric.name
        is_duration = metric.name.endswith("_seconds") and not re.search(
            "_(timestamp|offset|lead)_seconds$", metric.name
        )
        assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets) == is_duration, metric.name
        assert metric.sentence.endswith("."), metric.name
        assert all(bool(label.values) != bool(label.bound) for label in metric.labels), metric.name


def test_the_page_is_up_to_date_and_has_every_metric():
    page = PAGE.read_text()

    assert render_page() == page
    listed = {metric.name for metric in (*CATALOGUE, *CONTAINER, *PLATFORM)}
    assert listed == set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))


def test_series_with_listed_values_exist_from_the_start():
    assert {"connecting", "reachable", "unreachable", "refused"} == {
        sample.labels["state"] for sample in families(NodeMetrics())["jarvis_links"].samples
    }


def test_a_node_reports():
    metrics = NodeMetrics()
    metrics.on_disk_operation("append", 0.003)
    metrics.on_disk_error(StorageFullError("there"))
    metrics.on_disk_error(OSError())
    metrics.set_members(["alive", "alive", "left"])
    metrics.set_storage(1, 2, 3)
    metrics.on_storage(4)
    metrics.set_plugins(["active", "failing"])
    metrics.on_plugin_failure("example")

    values = samples(metrics)

    assert {
        ("jarvis_database_query_duration_seconds_count", "append"): 1,
        ("jarvis_database_errors_total", "storage_full"): 1,
        ("jarvis_database_errors_total", "disk_failed"): 1,
        ("jarvis_members", "alive"): 2,
        ("jarvis_members", "left"): 1,
        ("jarvis_storage_bytes", "snapshot"): 1,
        ("jarvis_storage_bytes", "free"): 2,
        ("jarvis_storage_bytes", "capacity"): 3,
        ("jarvis_storage_bytes", "log"): 4,
        ("jarvis_plugins", "active"): 1,
        ("jarvis_plugins", "disabled"): 0,
        ("jarvis_plugins", "failing"): 1,
        ("jarvis_plugin_failures_total", "example"): 1,
        ("jarvis_build_info", VERSION): 1,
    }.items() <= values.items()


def test_a_backend_reports():
    metrics = BackendMetrics()
    metrics.on_request("/v1/keys/{key}", 200, 0.001)
    metrics.on_request("/v1/keys/{key}", 200, 0.001)
    metrics.on_request("/v1/keys/{key}", 503, 0.001)
    is_failure = [metrics.on_query("read", 0.001, error) for error in ("", "outcome_unknown", "type_conflict")]
    metrics.set_connections(["idle", "busy", "busy", "refused"])

    values = samples(metrics)

    assert [False, True, False] == is_failure
    assert {
        ("jarvis_requests_total", "/v1/keys/{key}", "200"): 2,
        ("jarvis_requests_total", "/v1/keys/{key}", "503"): 1,
        ("jarvis_request_duration_seconds_count", "/v1/keys/{key}"): 3,
        ("jarvis_database_query_duration_seconds_count", "read"): 3,
        ("jarvis_database_errors_total", "outcome_unknown"): 1,
        ("jarvis_database_connections", "busy"): 2,
        ("jarvis_database_connections", "full"): 0,
    }.items() <= values.items()
    assert 1 == sum(value for (name, *_), value in values.items() if name == "jarvis_database_errors_total")


def test_the_program_and_the_chart_have_one_version():
    chart = yaml.safe_load((ROOT / "charts/jarvis/Chart.yaml").read_text())

    assert {VERSION} == {chart["appVersion"], chart["version"]}
