"""The real Prometheus beside a cluster on loopback, and an API server that knows the cluster's processes as pods."""

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import yaml

from harness.cluster.tool import find_tool
from loadtests.cluster import free_port


class Prometheus:
    """The program with a configuration of its own, in a directory of its own."""

    def __init__(self, directory, config, *options):
        directory.mkdir()
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = directory / "log"
        self.config = directory / "prometheus.yml"
        self.config.write_text(yaml.safe_dump(config))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    str(find_tool("prometheus")),
                    f"--config.file={self.config}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                    *options,
                ],
                stdout=log,
                stderr=log,
            )

    def stop(self):
        self.process.terminate()
        self.process.wait(60)

    def fetch(self, path, params=None):
        """What its API answers, errors included; raises httpx.HTTPError while it starts."""
        answer = httpx.get(self.url + path, params=params)
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            answer.raise_for_status()
        return answer.json()

    def select(self, expr):
        """Labels and number of each series that an expression has now."""
        result = self.fetch("/api/v1/query", {"query": expr})["data"]["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in result]


def configure(cluster, namespace):
    """The configuration that scrapes a cluster each second, its processes named as the chart's pods are."""

    def target(port, instance):
        return {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": instance, "namespace": namespace}}

    nodes = [target(ports[1], name.replace("node", "jarvis-crdt")) for name, ports in cluster.ports.items()]
    backend = {"job_name": "jarvis-backend", "static_configs": [target(cluster.api_port, "jarvis-backend-0")]}
    if cluster.authority is not None:
        backend |= {"scheme": "https", "tls_config": {"ca_file": str(cluster.authority.file)}}
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [backend, {"job_name": "jarvis-crdt", "static_configs": nodes}],
    }


class PodApi:
    """As much of the Kubernetes API as finding pods takes: they are listed, and watched without any news."""

    def __init__(self, pods: list[dict[str, Any]]) -> None:
        self.paths: set[str] = set()
        stopping = self._stopping = threading.Event()
        paths = self.paths

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = parse_qs(url.query)
                paths.add(url.path)
                if "sendInitialEvents" in query:
                    # Older servers do not list by watching; the client then lists.
                    self._answer(422, {"kind": "Status", "apiVersion": "v1", "reason": "Invalid", "code": 422})
                elif "watch" in query:
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.end_headers()
                    stopping.wait()
                else:
                    wanted = set(query.get("labelSelector", [""])[0].split(","))
                    chosen = [pod for pod in pods if wanted <= _labels(pod) and _is_in(pod, url.path)]
                    listed = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}}
                    self._answer(200, {**listed, "items": chosen})

            def _answer(self, status: int, body: dict[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()


def _labels(pod: dict[str, Any]) -> set[str]:
    return {f"{key}={value}" for key, value in pod["metadata"]["labels"].items()}


def _is_in(pod: dict[str, Any], path: str) -> bool:
    return path == f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods"
