"""Alerts of the bundled Prometheus and Alertmanager reach a sink by all three protocols, under NetworkPolicies."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.cluster.manager import Cluster, find_cluster, kubectl
from harness.cluster.policy import enforce_policies, lift_policies
from harness.kube import connect
from harness.poll import Done, Pending, wait_until
from harness.release.rollout import wait_for_rollout
from tests.e2e.conftest import CONFIG, CONTEXT, NAMESPACE, NODES, ROOT, Deployment, helm
from tests.sink import pod_manifests, values

pytestmark = pytest.mark.e2e
_CHART = str(ROOT / "charts/jarvis")
_USER = "jarvis"
_ROUTING_KEY = "0" * 32
_SECRETS = {
    "sink-slack": {"url": "http://sink:8080/services/T/B/X"},
    "sink-email": {"password": "secret-of-mail"},
    "sink-pagerduty": {"routing-key": _ROUTING_KEY},
}
_RECEIVERS = ("slack", "email", "pagerduty")


@dataclass(frozen=True)
class Sink:
    """A pod beside the release that takes down whatever it is told."""

    cluster: Cluster

    def await_told(self, text: str, receivers: tuple[str, ...] = _RECEIVERS) -> dict[str, Any]:
        """Wait until each receiver was told of something with this text; return the first of each."""

        def look() -> Done[dict[str, Any]] | Pending:
            path = f"/api/v1/namespaces/{NAMESPACE}/services/sink:8080/proxy/notifications"
            lines = [json.loads(line) for line in kubectl(self.cluster, "get", "--raw", path).splitlines()]
            told = {line["receiver"]: line for line in reversed(lines) if text in json.dumps(line)}
            return Done(told) if set(receivers) <= set(told) else Pending(json.dumps(lines)[-2000:])

        return wait_until(look, what=f"{text} to be told to {', '.join(receivers)}", deadline_seconds=300)


def _secret(name: str, data: dict[str, str]) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


def _upgrade(*values_files: Path) -> None:
    helm("upgrade", "jarvis", _CHART, *(f"--values={file}" for file in (CONFIG, *values_files)))
    wait_for_rollout(connect(CONTEXT), NAMESPACE, deadline_seconds=300, progress=lambda _: None)


@pytest.fixture(scope="module")
def sink(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    cluster = find_cluster()
    assert cluster, "no cluster runs: `make up` brings it up"
    nodes = deployment.kubectl("get statefulset jarvis-crdt")["spec"]["template"]["spec"]
    pod = pod_manifests(nodes["containers"][0]["image"], login=(_USER, "sink-email"))
    items = [*(_secret(name, data) for name, data in _SECRETS.items()), *pod]
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    file = tmp_path_factory.mktemp("notifications") / "values.json"
    file.write_text(json.dumps(values(user=_USER)))
    place = ("--namespace", NAMESPACE, "--filename", "-")
    kubectl(cluster, "apply", *place, input=objects)
    try:
        _upgrade(file)
        kubectl(cluster, "wait", "pod/sink", "--namespace", NAMESPACE, "--for=condition=Ready", "--timeout=120s")
        enforce_policies(cluster)
        yield Sink(cluster)
    finally:
        lift_policies(cluster)
        _upgrade()
        kubectl(cluster, "delete", *place, "--ignore-not-found", input=objects)


def test_an_alert_by_hand_reaches_all_three(sink: Sink) -> None:
    alert = ["TryNotifications", "severity=critical", f"namespace={NAMESPACE}", "--annotation=summary=a try"]
    amtool = ["/bin/amtool", "--alertmanager.url=http://localhost:9093", "alert", "add", *alert]
    kubectl(sink.cluster, "exec", "--namespace", NAMESPACE, "deployment/jarvis-alertmanager", "--", *amtool)

    told = sink.await_told("TryNotifications")

    title = f"[FIRING 1] TryNotifications (critical) in {NAMESPACE}"
    assert (title, "a try\n") == tuple(told["slack"]["body"]["attachments"][0][part] for part in ("title", "text"))
    assert (title, _USER) == (told["email"]["headers"]["Subject"], told["email"]["user"])
    event = told["pagerduty"]["body"]
    assert (_ROUTING_KEY, "trigger", title) == (
        event["routing_key"],
        event["event_action"],
        event["payload"]["summary"],
    )


def test_a_node_that_is_gone_is_told_to_all_three(sink: Sink, deployment: Deployment) -> None:
    deployment.kubectl("scale statefulset jarvis-crdt", replicas="2", output_format="")
    try:
        told = sink.await_told("JarvisNodeDown")
        lost = NODES[-1]
        assert f"{lost} is down" in told["slack"]["body"]["attachments"][0]["text"]
        assert f"{lost} is down" in told["email"]["text"]
        assert "critical" == told["pagerduty"]["body"]["payload"]["severity"]
    finally:
        lift_policies(sink.cluster)
        deployment.kubectl("scale statefulset jarvis-crdt", replicas="3", output_format="")
    deployment.await_health()
