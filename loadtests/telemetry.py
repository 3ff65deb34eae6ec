"""What logs, metrics and traces cost: `python -m loadtests.telemetry [--requests 3000] [--rounds 3]`.

First the CPU time of a backend and three nodes for each write through the API, in rounds that take turns: without a
collector, and with one for none, 1 % and all of the requests. Then that of single calls.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import logging
import os
import statistics
import tempfile
import threading
import time
import timeit
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from crdt_service.metrics.metrics import BackendMetrics
from crdt_service.telemetry.log import configure_logging
from crdt_service.telemetry.recorder import make_recorder
from crdt_service.telemetry.request import LINES_PER_SECOND_MAX, Requests
from loadtests.cluster import LoopbackCluster

CONNECTIONS = 16
HEADERS = [(b"host", b"jarvis"), (b"accept", b"*/*"), (b"user-agent", b"x"), (b"content-type", b"application/json")]
WAYS = {"no collector": None, "none sampled": "0", "1 % sampled": "0.01", "all sampled": "1"}


class Sink(BaseHTTPRequestHandler):
    """A collector that keeps nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    costs: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, ratio in WAYS.items():
            with collecting(endpoint, ratio):
                costs[way].append(measure(options.requests))
    for way, seconds in costs.items():
        each = ", ".join(f"{second * 1e6:.0f}" for second in sorted(seconds))
        print(f"{way}: {statistics.median(seconds) * 1e6:.0f} CPU µs per write, the median of {each}")
    time_calls(endpoint)
    server.shutdown()


@contextlib.contextmanager
def collecting(endpoint: str, ratio: str | None) -> Iterator[None]:
    """Have processes that are started inside send this share of spans there."""
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": ratio or "",
    }
    try:
        if ratio is not None:
            os.environ.update(variables)
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)


def measure(requests: int) -> float:
    """CPU seconds of all processes for each write."""
    with (
        tempfile.TemporaryDirectory() as directory,
        LoopbackCluster(Path(directory), environment="production") as cluster,
    ):
        write_many(cluster.api_port, requests // 10)
        before = cluster.cpu_seconds()
        write_many(cluster.api_port, requests)
        return (cluster.cpu_seconds() - before) / requests


def write_many(port: int, count: int) -> None:
    body = json.dumps({"type": "pn_counter", "op": {"increment": 1}})

    def write(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for number in range(first, count, CONNECTIONS):
            connection.request("POST", f"/v1/keys/k-{number % 500}?value=false", body)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"answered with {answer.status}")
        connection.close()

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(write, range(CONNECTIONS)))


def time_calls(endpoint: str) -> None:
    metrics = BackendMetrics()
    _show("metrics of a request", lambda: metrics.on_request("/v1/keys/{key}", 200, 0.001))
    _show("metrics of a request to a node", lambda: metrics.on_query("write", 0.001, ""))
    with Path(os.devnull).open("w") as nowhere:
        configure_logging("production", "node-0", nowhere)
        second = itertools.count()
        _show("request, line written", partial(_serve, Requests(None, lambda: next(second))))
        silent = Requests(None, lambda: 0)
        for _ in range(LINES_PER_SECOND_MAX):
            _serve(silent)
        _show("request, line left out", partial(_serve, silent))
        for way, ratio in WAYS.items():
            with collecting(endpoint, ratio):
                recorder = make_recorder(os.environ, service="s", instance="i", version="v")
                requests = Requests(recorder, lambda: 0)
                for _ in range(LINES_PER_SECOND_MAX):
                    _serve(requests)
                _show(f"the same, {way}", partial(_serve, requests))
                if recorder is not None:
                    recorder.close()
        logging.shutdown()


def _serve(requests: Requests) -> None:
    requests.begin("POST", "0123456789ab-1", HEADERS).end("/v1/keys/{key}", 200, 0.001)


def _show(what: str, call: Callable[[], object]) -> None:
    seconds = min(timeit.repeat(call, number=2000, repeat=7, timer=time.thread_time)) / 2000
    print(f"{what}: {seconds * 1e6:.1f} µs")


if __name__ == "__main__":
    main()
