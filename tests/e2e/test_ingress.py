"""The chart's own Ingress, answered by Contour while policies hold: HTTPS, a redirect, a change feed."""

import base64
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from harness.cluster import contour
from harness.cluster.manager import find_cluster, read_objects
from harness.cluster.policy import enforce_policies, lift_policies
from harness.poll import Done, Pending, wait_until
from tests.e2e.conftest import CONFIG, Deployment, run_cli

pytestmark = pytest.mark.e2e
_HOST = "jarvis-e2e.example"
_SECONDS = 60.0


@dataclass(frozen=True)
class Outside:
    """A client outside of the cluster, which knows a node's address, the host's name and whom to trust."""

    address: str
    trusted: ssl.SSLContext
    token: str

    def client(self, host: str = _HOST, verify: ssl.SSLContext | None = None) -> httpx.Client:
        return httpx.Client(
            base_url=f"https://{self.address}:{contour.HTTPS_NODE_PORT}",
            headers={"Host": host, "Authorization": f"Bearer {self.token}"},
            verify=verify or self.trusted,
            timeout=_SECONDS,
        )

    def get(self, path: str, host: str = _HOST, verify: ssl.SSLContext | None = None) -> httpx.Response:
        with self.client(host, verify) as client:
            return client.get(path, extensions={"sni_hostname": host})


def _read(deployment: Deployment, kind: str, name: str, key: str) -> str:
    return deployment.kubectl(f"get {kind} {name}")["data"][key]


@pytest.fixture(scope="module")
def outside(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """Deployed with an Ingress, and again without one afterwards; policies hold meanwhile."""
    cluster = find_cluster()
    assert cluster
    values = yaml.safe_load(CONFIG.read_text())
    config: Path = tmp_path_factory.mktemp("ingress") / "cluster-config.yaml"
    config.write_text(yaml.safe_dump({**values, "ingress": {"enabled": True, "hosts": [_HOST]}}))
    done = run_cli("deploy", str(config), "-o", "json")
    assert done.returncode == 0, done.stderr
    # Before Envoy has any connection to the backends, which would outlive a change of the rules.
    enforce_policies(cluster)
    try:
        addresses = read_objects(cluster, "nodes")[0]["status"]["addresses"]
        client = Outside(
            next(item["address"] for item in addresses if item["type"] == "InternalIP"),
            ssl.create_default_context(cadata=_read(deployment, "configmap", "jarvis-ca", "ca.crt")),
            base64.b64decode(_read(deployment, "secret", "jarvis-admin-token", "token")).decode(),
        )

        def look() -> Done[None] | Pending:
            try:
                status = client.get("/ready").status_code
            except httpx.TransportError as error:
                return Pending(repr(error))
            return Done(None) if status == httpx.codes.OK else Pending(f"status {status}")

        wait_until(look, what="an answer through the Ingress", deadline_seconds=240)
        yield client
    finally:
        lift_policies(cluster)
        again = run_cli("deploy", str(CONFIG), "-o", "json")
        assert again.returncode == 0, again.stderr


def test_the_api_is_answered_under_its_host_with_the_clusters_own_certificate(outside: Outside) -> None:
    answer = outside.get("/v1/cluster")

    assert (200, True) == (answer.status_code, "members" in answer.json())


def test_a_client_that_trusts_others_and_one_that_asks_for_another_host_are_refused(outside: Outside) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        outside.get("/ready", verify=ssl.create_default_context())
    with pytest.raises(httpx.TransportError):
        outside.get("/ready", host="another.example")


def test_plain_http_is_redirected(outside: Outside) -> None:
    answer = httpx.get(
        f"http://{outside.address}:{contour.HTTP_NODE_PORT}/v1/keys?limit=1",
        headers={"Host": _HOST},
        timeout=_SECONDS,
    )

    assert (301, f"https://{_HOST}/v1/keys?limit=1") == (answer.status_code, answer.headers["location"])


def test_without_a_key_nobody_gets_in(outside: Outside) -> None:
    with httpx.Client(verify=outside.trusted, timeout=_SECONDS) as client:
        url = f"https://{outside.address}:{contour.HTTPS_NODE_PORT}/v1/keys"
        answer = client.get(url, headers={"Host": _HOST}, extensions={"sni_hostname": _HOST})

    assert (401, "unauthenticated") == (answer.status_code, answer.json()["error"]["code"])


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Each event of a feed: its id, and its name and data if it has them."""
    event: dict[str, Any] = {}
    for line in lines:
        name, _, text = line.partition(": ")
        if name in {"id", "event"}:
            event[name] = text
        elif name == "data":
            event[name] = json.loads(text)
        elif not line and event:
            yield event
            event = {}


def test_a_change_feed_outlives_the_time_out_of_requests_and_tells_at_once(
    outside: Outside, deployment: Deployment
) -> None:
    """Envoy ends requests after 15 seconds if nobody tells it otherwise; an idle feed says where it is as often."""
    with (
        outside.client() as client,
        client.stream("GET", "/v1/changes?prefix=e2e.ingress", extensions={"sni_hostname": _HOST}) as feed,
    ):
        assert 200 == feed.status_code
        events = _events(feed.iter_lines())
        quiet = [next(event for event in events if "event" not in event) for _ in range(3)]
        assert [{"id"}] * 3 == [set(event) for event in quiet]
        deployment.service.write("e2e.ingress", "lww_register", {"assign": "hello"})
        told = next(event for event in events if event.get("event") == "change")

    assert "e2e.ingress" == told["data"]["key"]
