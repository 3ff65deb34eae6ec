"""The chart's Prometheus: its configuration finds the pods that the chart makes, scrapes them, and names them."""

import contextlib
import json

import pytest
import yaml

from harness.cluster.tool import find_tool
from harness.process import run
from loadtests.cluster import ROOT, LoopbackCluster, wait_until
from tests.loopback.prometheus import PodApi, Prometheus

NAMESPACE = "agents"
ZONE = "topology.kubernetes.io/zone"


def _render(tls):
    """The manifests of a release, by kind and name."""
    values = json.dumps({"security": {"enable_tls": tls, "api_key_required": True}})
    command = ["template", "jarvis", str(ROOT / "charts/jarvis"), "--namespace", NAMESPACE, "--values", "-"]
    manifests = yaml.safe_load_all(run([str(find_tool("helm")), *command], input=values).stdout)
    return {(body["kind"], body["metadata"]["name"]): body for body in manifests if body}


def _pod(manifests, workload, name, ports, **more):
    """A pod of a workload as the API server shows it; its ports are those that processes here listen on."""
    template = manifests[workload]["spec"]["template"]
    [container] = template["spec"]["containers"]
    open_ports = [{**port, "containerPort": ports[port["name"]], "protocol": "TCP"} for port in container["ports"]]
    labels = {**template["metadata"]["labels"], **more.get("labels", {})}
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": name, "labels": labels},
        "spec": {"nodeName": "worker", "containers": [{**container, "ports": open_ports}]},
        "status": {"phase": more.get("phase", "Running"), "podIP": "127.0.0.1", "hostIP": "127.0.0.1"},
    }


def _pods(manifests, cluster):
    nodes, backend = ("StatefulSet", "jarvis-crdt"), ("Deployment", "jarvis-backend")
    for name, (peers, metrics) in cluster.ports.items():
        labels = {ZONE: f"zone-{name[-1]}"}
        yield _pod(manifests, nodes, f"jarvis-crdt-{name[-1]}", {"peers": peers, "metrics": metrics}, labels=labels)
    port = {"http": cluster.api_port}
    yield _pod(manifests, backend, "jarvis-backend-a", port)
    # What was evicted stays in the list until somebody clears it up, and other releases are neighbours.
    yield _pod(manifests, backend, "jarvis-backend-evicted", port, phase="Failed")
    yield _pod(manifests, backend, "other-backend-a", port, labels={"app.kubernetes.io/instance": "other"})


def _fit(config, api, cluster):
    """The rendered configuration, with what is a pod's in the cluster found here."""
    for job in config["scrape_configs"]:
        job["kubernetes_sd_configs"][0]["api_server"] = api.url
        if "tls_config" in job:
            job["tls_config"]["ca_file"] = str(cluster.authority.file)
    return {**config, "global": {"scrape_interval": "1s", "evaluation_interval": "1s"}}


@pytest.fixture(scope="module", params=[True, False], ids=["tls", "plain"])
def watched(tmp_path_factory, request):
    directory = tmp_path_factory.mktemp("watched")
    manifests = _render(request.param)
    cluster = LoopbackCluster(directory / "cluster", tls=request.param, api_keys=True)
    if cluster.authority:
        cluster.certificates["api"] = cluster.authority.issue("localhost", "127.0.0.1", "jarvis-backend")
    with contextlib.ExitStack() as stack:
        stack.enter_context(cluster)
        api = PodApi(list(_pods(manifests, cluster)))
        stack.callback(api.stop)
        config = yaml.safe_load(manifests["ConfigMap", "jarvis-prometheus"]["data"]["prometheus.yml"])
        rules = directory / "rules"
        config = {**_fit(config, api, cluster), "rule_files": [f"{rules}/*.yaml"]}
        options = manifests["Deployment", "jarvis-prometheus"]["spec"]["template"]["spec"]["containers"][0]["args"]
        [reload] = [option for option in options if option == "--config.auto-reload"]
        prometheus = Prometheus(directory / "prometheus", config, reload, "--config.auto-reload-interval=1s")
        stack.callback(prometheus.stop)
        yield cluster, prometheus, api, rules


def test_every_pod_is_scraped_and_named_by_its_pod_and_zone(watched):
    _, prometheus, api, _ = watched
    own = {"namespace": NAMESPACE, "__name__": "up"}
    nodes = [
        {**own, "job": "jarvis-crdt", "instance": name, "pod": name, "zone": f"zone-{name[-1]}"}
        for name in ("jarvis-crdt-0", "jarvis-crdt-1", "jarvis-crdt-2")
    ]
    name = "jarvis-backend-a"
    expected = [({**own, "job": "jarvis-backend", "instance": name, "pod": name}, 1.0), *((n, 1.0) for n in nodes)]

    def found():
        return sorted(prometheus.select("up"), key=lambda sample: sample[0]["instance"])

    wait_until(lambda: expected == found(), "all targets to be up", lambda: f"{found()}\n{prometheus.log.read_text()}")
    assert {f"/api/v1/namespaces/{NAMESPACE}/pods"} == api.paths
    assert {name, *(node["pod"] for node in nodes)} == {
        labels["instance"] for labels, _ in prometheus.select(f'jarvis_build_info{{namespace="{NAMESPACE}"}}')
    }


def test_both_limits_of_the_volume_are_taken(watched):
    _, prometheus, _, _ = watched

    wait_until(
        lambda: prometheus.fetch("/api/v1/status/runtimeinfo")["data"]["storageRetention"] == "30d or 16GiB",
        "the limits to be taken",
        lambda: repr(prometheus.fetch("/api/v1/status/runtimeinfo")),
    )


def test_rules_that_come_later_are_loaded_without_a_restart(watched):
    _, prometheus, _, rules = watched
    rule = {"record": "jarvis:up:sum", "expr": "sum(up)"}
    rules.mkdir()
    (rules / "one.yaml").write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": [rule]}]}))

    def recorded():
        return [number for _, number in prometheus.select("jarvis:up:sum")]

    wait_until(lambda: [4.0] == recorded(), "the rule to be evaluated", prometheus.log.read_text)


def test_a_backend_whose_certificate_names_another_is_not_trusted(watched, tmp_path):
    cluster, watching, _, _ = watched
    config = yaml.safe_load(watching.config.read_text())
    backend = config["scrape_configs"][0]
    assert (cluster.authority is not None) == ("tls_config" in backend)
    backend |= {"scheme": "https", "tls_config": {**backend.get("tls_config", {}), "server_name": "other-backend"}}
    prometheus = Prometheus(tmp_path / "prometheus", {**config, "scrape_configs": [backend]})

    def errors():
        return [target["lastError"] for target in prometheus.fetch("/api/v1/targets")["data"]["activeTargets"]]

    refusal = "HTTP response to HTTPS client" if cluster.authority is None else "other-backend"
    try:
        wait_until(lambda: any(refusal in error for error in errors()), "the scrape to fail", lambda: repr(errors()))
        assert [0.0] == [number for _, number in prometheus.select("up")]
    finally:
        prometheus.stop()
