"""Logs, traces and metrics of real processes."""

import contextlib
import json
import re
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from crdt_service.metrics.catalogue import CATALOGUE, CONTAINER, Exporter
from loadtests.cluster import LoopbackCluster, free_port, wait_until

INCREMENT = {"type": "pn_counter", "op": {"increment": 1}}


class Collector:
    """Takes spans by OTLP over HTTP; the newest last."""

    def __init__(self):
        self.spans = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/v1/traces":
                    collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def take(self, request):
        for resource in request.resource_spans:
            attributes = _attributes(resource.resource)
            for scope in resource.scope_spans:
                self.spans += [(attributes, span) for span in scope.spans]

    def of(self, trace_id):
        return [(resource, span) for resource, span in list(self.spans) if span.trace_id.hex() == trace_id]


def _attributes(owner):
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in owner.attributes}


@pytest.fixture(scope="module")
def collector():
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(tmp_path_factory, collector):
    """A cluster in production, which logs JSON and sends spans soon; traces are recorded if the caller says so."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        environment.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with LoopbackCluster(tmp_path_factory.mktemp("traced"), environment="production") as cluster:
            yield cluster


def _post(cluster, key, headers, query="", body=INCREMENT):
    return cluster.client.post(f"{cluster.url}/v1/keys/{key}{query}", json=body, headers=headers)


def test_a_write_is_traced_from_the_request_to_the_disk(traced, collector):
    trace_id, caller = secrets.token_hex(16), secrets.token_hex(8)
    headers = {"traceparent": f"00-{trace_id}-{caller}-01", "tracestate": "vendor=1", "x-request-id": "r-1"}
    _post(traced, "traced", headers, "?concern=all").raise_for_status()

    def chain():
        """The spans from the one that syncs up to the caller's."""
        spans = {span.span_id: (resource, span) for resource, span in collector.of(trace_id)}
        found = [item for item in spans.values() if item[1].name == "append"]
        while found and found[-1][1].parent_span_id in spans:
            found.append(spans[found[-1][1].parent_span_id])
        return len(found) == 5 and found

    append, commit, handled, asked, served = wait_until(chain, "five spans", lambda: repr(collector.of(trace_id)))
    kinds = [(span.name, span.kind) for _, span in (served, asked, handled, commit, append)]
    assert [
        ("POST /v1/keys/{key}", Span.SPAN_KIND_SERVER),
        ("write", Span.SPAN_KIND_CLIENT),
        ("write", Span.SPAN_KIND_SERVER),
        ("commit", Span.SPAN_KIND_INTERNAL),
        ("append", Span.SPAN_KIND_INTERNAL),
    ] == kinds
    assert (caller, "vendor=1") == (served[1].parent_span_id.hex(), served[1].trace_state)
    assert {
        "http.request.method": "POST",
        "http.route": "/v1/keys/{key}",
        "http.response.status_code": 200,
        "jarvis.request_id": "r-1",
    } == _attributes(served[1])
    assert 1 == _attributes(commit[1])["jarvis.items"]
    assert ["jarvis-backend", "jarvis-backend", *["jarvis-crdt"] * 3] == [
        resource["service.name"] for resource, _ in (served, asked, handled, commit, append)
    ]
    assert handled[0]["service.instance.id"] == _attributes(asked[1])["server.address"]
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for _, span in collector.of(trace_id))
    assert all(
        inner[1].start_time_unix_nano >= outer[1].start_time_unix_nano
        for outer, inner in pairwise((served, asked, handled, commit, append))
    )


def test_a_trace_that_is_not_sampled_sends_nothing(traced, collector):
    silent, loud = secrets.token_hex(16), secrets.token_hex(16)
    _post(traced, "k", {"traceparent": f"00-{silent}-{'1' * 16}-00"}).raise_for_status()
    _post(traced, "k", {"traceparent": f"00-{loud}-{'1' * 16}-01"}).raise_for_status()
    wait_until(lambda: len(collector.of(loud)) >= 5, "the spans of the later trace")
    assert [] == collector.of(silent)


def test_what_follows_changes_outlives_the_request_that_began_it_and_its_trace(traced, collector):
    """A long poll is neither part of that trace nor a slow node."""
    trace_id, later = secrets.token_hex(16), secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{'1' * 16}-01"}
    with traced.client.stream("GET", f"{traced.url}/v1/changes", headers=headers) as feed:
        assert 200 == feed.status_code
        lines = feed.iter_lines()
        for number in range(3):  # Each is told by a poll that began after the one before was told.
            _post(traced, f"followed-{number}", {}).raise_for_status()
            assert any(f'"followed-{number}"' in line for line in lines)
        assert "healthy" == traced.get("/health")["status"]
    _post(traced, "k", {"traceparent": f"00-{later}-{'1' * 16}-01"}).raise_for_status()
    wait_until(lambda: len(collector.of(later)) >= 5, "the spans of the later trace")
    assert "GET /v1/changes" in {span.name for _, span in collector.of(trace_id)}
    assert "changes" not in {span.name for _, span in collector.of(trace_id)}


def test_a_clients_mistake_is_no_error_of_the_span(traced, collector):
    trace_id = secrets.token_hex(16)
    answer = _post(traced, "k", {"traceparent": f"00-{trace_id}-{'1' * 16}-01"}, body={"type": "none", "op": {}})
    assert 400 == answer.status_code

    def served():
        return [span for _, span in collector.of(trace_id) if span.parent_span_id.hex() == "1" * 16]

    [span] = wait_until(served, "the span")
    assert ("unknown_type", Status.STATUS_CODE_UNSET) == (
        _attributes(span)["jarvis.error_code"],
        span.status.code,
    )


def _lines(cluster, name):
    return [json.loads(line) for line in (cluster.directory / f"{name}.log").read_text().splitlines()]


def test_every_line_of_every_process_is_json(traced):
    trace_id = secrets.token_hex(16)
    _post(traced, "k", {"traceparent": f"00-{trace_id}-{'1' * 16}-01", "x-request-id": "r-2"}).raise_for_status()
    by_id = wait_until(
        lambda: [line for line in _lines(traced, "backend") if line.get("request_id") == "r-2"], "the access line"
    )
    for name in (*traced.node_ids, "backend"):
        for line in _lines(traced, name):
            assert {"time", "level", "logger", "message", "node"} <= line.keys()
            assert name == "backend" or name == line["node"]
    [line] = by_id
    assert {
        "logger": "jarvis.access",
        "level": "info",
        "trace_id": trace_id,
        "method": "POST",
        "route": "/v1/keys/{key}",
        "status": 200,
    }.items() <= line.items()
    assert "crdt_service.node" in {line["logger"] for line in _lines(traced, "node-0")}


def test_probes_are_not_in_the_access_log_of_production(traced):
    traced.get("/health")
    routes = {line.get("route") for line in _lines(traced, "backend")}
    assert set() == routes & {"/health", "/ready", "/live", "/metrics"}


def test_a_collector_that_is_not_there_harms_nothing(tmp_path):
    with pytest.MonkeyPatch.context() as environment, contextlib.ExitStack() as stack:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
        cluster = stack.enter_context(LoopbackCluster(tmp_path, node_count=1))
        for _ in range(10):
            cluster.post("/v1/keys/k", INCREMENT)
        assert 10 == cluster.get("/v1/keys/k")["value"]
        assert {"node-0": 0, "backend": 0} == cluster.stop()


def test_metrics_are_those_of_the_catalogue(traced):
    _post(traced, "k", {}).raise_for_status()
    backend = traced.client.get(f"{traced.url}/metrics").text
    for exporter, text in ((Exporter.NODE, traced.metrics("node-0")), (Exporter.BACKEND, backend)):
        named = set(re.findall(r"^# TYPE (jarvis_\w+) ", text, re.MULTILINE))
        assert {metric.name for metric in (*CATALOGUE, *CONTAINER) if exporter in metric.exporters} == named
    for series in (
        'jarvis_database_query_duration_seconds_count{operation="write"}',
        'jarvis_requests_total{route="/v1/keys/{key}",status="200"}',
    ):
        assert series in backend
    wait_until(
        lambda: any(
            re.search(r'operation="append"\} [1-9]', line)
            for name in traced.node_ids
            for line in traced.metrics(name).splitlines()
            if line.startswith("jarvis_database_query_duration_seconds_count")
        ),
        "an append",
    )
    assert 'jarvis_database_query_duration_seconds_count{operation="recover"} 1.0' in traced.metrics("node-0")
    wait_until(lambda: "jarvis_event_loop_lag_seconds_count 0.0" not in traced.metrics("node-0"), "the first lag")


def test_no_secret_is_logged_even_in_detail(tmp_path):
    directory = tmp_path / "cluster"
    cluster = LoopbackCluster(directory, node_count=2, tls=True, environment="development")
    encryption_key = directory / "encryption-key"
    encryption_key.write_text(secrets.token_hex(32))
    cluster.key_files = [encryption_key]
    told = [secrets.token_hex(16) for _ in range(3)]
    with cluster:
        cluster.client.post(
            f"{cluster.url}/v1/keys/k",
            json=INCREMENT,
            headers={"authorization": f"Bearer {told[0]}", "x-api-key": told[1], "cookie": f"session={told[2]}"},
        )
        cluster.client.post(f"{cluster.url}/v1/keys/k", content=b"{broken", headers={"x-api-key": told[1]})
        stranger = LoopbackCluster(tmp_path / "stranger", node_count=1)
        with contextlib.ExitStack() as stack:
            stack.callback(stranger.stop)
            stranger.ports["node-1"] = cluster.ports["node-1"]
            stranger.peers = ["node-0", "node-1"]
            stranger.start_node("node-0")
            wait_until(lambda: 'jarvis_links{state="refused"} 1.0' in stranger.metrics("node-0"), "the refusal")
    text = "".join(path.read_text() for path in tmp_path.rglob("*.log"))
    assert "DEBUG" in text
    hidden = [
        cluster.secret_file.read_text(),
        stranger.secret_file.read_text(),
        encryption_key.read_text(),
        *told,
        *(line for path in directory.rglob("*.key") for line in path.read_text().splitlines()[1:-1]),
    ]
    assert len(hidden) > 6
    assert [] == [secret[:8] for secret in hidden if secret in text]
