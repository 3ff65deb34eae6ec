"""Probes, and the way of spans to a collector."""

import pytest

from tests.chart.conftest import Manifest, Render


def _containers(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Nodes' and the backend's; what watches them is judged elsewhere."""
    workloads = {m["metadata"]["name"]: m for m in manifests if m["kind"] in {"Deployment", "StatefulSet"}}
    return {
        name: workloads[name]["spec"]["template"]["spec"]["containers"][0] for name in ("jarvis-crdt", "jarvis-backend")
    }


def _variables(container: Manifest) -> dict[str, str]:
    return {env["name"]: env["value"] for env in container.get("env", []) if "value" in env}


def test_only_readiness_asks_for_more_than_a_process_that_runs(render: Render):
    for container in _containers(render()).values():
        paths = {name: probe["httpGet"]["path"] for name, probe in container.items() if name.endswith("Probe")}
        assert {"startupProbe": "/live", "livenessProbe": "/live", "readinessProbe": "/ready"} == paths


def test_both_workloads_send_spans_to_the_endpoint(render: Render):
    values = {"tracing": {"endpoint": "http://collector.monitoring:4318", "sampling_percent": 5}}
    expected = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.monitoring:4318",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.05",
    }

    containers = _containers(render(values))

    assert {"jarvis-crdt": expected, "jarvis-backend": expected} == {
        name: _variables(container) for name, container in containers.items()
    }
    assert [{}, {}] == [_variables(container) for container in _containers(render()).values()]


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("", None),
        ("http://collector:4318", 4318),
        ("https://traces.example/otlp", 443),
        ("http://collector", 80),
        ("http://collector:8126/v1", 8126),
    ],
)
def test_policies_let_spans_out_and_nothing_more(render: Render, endpoint: str, port: int | None):
    manifests = render({"tracing": {"endpoint": endpoint}})
    policies = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"}

    for name in ("jarvis-crdt", "jarvis-backend"):
        dns, *everywhere = [rule["ports"] for rule in policies[name]["egress"] if "to" not in rule]
        assert {53, 5353} == {each["port"] for each in dns}
        assert ([] if port is None else [[{"port": port}]]) == everywhere
