"""The chart's alert rules in a real Prometheus, over a real cluster that gets what they are for.

Only times are shorter here: promtool sees the true ones (tests/chart/test_rules.py).
"""

import contextlib
import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from harness.cluster.tool import find_tool
from harness.dashboard.query import fill, read_dashboards
from harness.process import run
from loadtests.cluster import ROOT, LoopbackCluster, wait_until
from tests.loopback.prometheus import Prometheus, configure
from tests.loopback.request import ask

NAMESPACE = "jarvis-system"
VALUES = {
    "deployment": {"auto_scaling": {"enabled": False}, "replicas": 1},
    # What else this machine does is not the matter.
    "monitoring": {"alert_thresholds": {"cpu_usage": 100, "memory_usage": 100, "disk_usage": 100}},
}
RAISES = """
from crdt_service.plugins.hook import hookimpl

@hookimpl
def validate_write(key):
    if key.startswith("boom/"):
        raise ValueError("no good")
"""
# The cluster's certificates live for a day here.
ALWAYS = {"JarvisWatchdog", "JarvisCertificateExpiring"}
ASSIGN = {"type": "mv_register", "op": {"assign": "a"}}


def _write_rules(folder):
    """Render the rules, with seconds for minutes."""
    helm = [str(find_tool("helm")), "template", "jarvis", str(ROOT / "charts/jarvis")]
    given = ["--namespace", NAMESPACE, "--show-only", "templates/rules/configmap.yaml", "--values", "-"]
    config = yaml.safe_load(run([*helm, *given], input=json.dumps(VALUES)).stdout)
    folder.mkdir()
    for name, text in config["data"].items():
        short = re.sub(r"\[\d+m\]", "[15s]", re.sub(r"for: \d+m", "for: 2s", text))
        (folder / name).write_text(short)
    return set(config["data"])


class Watched:
    """A cluster and the Prometheus that watches it."""

    def __init__(self, cluster, prometheus, names):
        self.cluster = cluster
        self.prometheus = prometheus
        self.names = names

    def alerts(self):
        """(name, instance, state) of all that is pending or firing, but for what always is."""
        alerts = self.prometheus.fetch("/api/v1/alerts")["data"]["alerts"]
        found = {(a["labels"]["alertname"], a["labels"].get("instance", ""), a["state"]) for a in alerts}
        return {alert for alert in found if alert[0] not in ALWAYS}

    def wait_for(self, *expected, meanwhile=lambda: None):
        """Wait until these are among the alerts, whatever else is."""

        def fire():
            meanwhile()
            return set(expected) <= self.alerts()

        wait_until(fire, f"{expected} to be told", self.explain)

    def wait_for_calm(self):
        # A plugin that nobody calls counts as well again after a minute.
        wait_until(lambda: not self.alerts(), "every alert to end", self.explain, 300)

    def explain(self):
        return f"{sorted(self.alerts())}\n{self.prometheus.log.read_text()[-2000:]}\n{self.cluster.logs()}"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    directory = tmp_path_factory.mktemp("watched")
    cluster = LoopbackCluster(directory / "cluster", tls=True, plugins=[{"name": "raises"}])
    cluster.plugins_dir.mkdir()
    (cluster.plugins_dir / "raises.py").write_text(RAISES)
    names = _write_rules(directory / "rules")
    with cluster, contextlib.ExitStack() as stack:
        config = {**configure(cluster, NAMESPACE), "rule_files": [f"{directory}/rules/*.yaml"]}
        prometheus = Prometheus(directory / "prometheus", config)
        stack.callback(prometheus.stop)
        yield Watched(cluster, prometheus, names)


@pytest.fixture
def watched(running):
    """All is well before each test."""
    wait_until(lambda: len(running.prometheus.select("up == 1")) == 4, "all targets to be up", running.explain)
    running.wait_for_calm()
    return running


def test_every_rule_is_loaded_and_evaluated(watched):
    def evaluated():
        groups = watched.prometheus.fetch("/api/v1/rules")["data"]["groups"]
        return {(group["name"], rule["health"], rule.get("lastError")) for group in groups for rule in group["rules"]}

    expected = {(name.removesuffix(".yaml"), "ok", None) for name in watched.names}
    wait_until(lambda: expected == evaluated(), "every rule to be evaluated", lambda: f"{evaluated()}")


def test_the_watchdog_fires_and_so_do_certificates_that_live_for_a_day(watched):
    def firing():
        selected = watched.prometheus.select('ALERTS{alertstate="firing"}')
        return {(labels["alertname"], labels["namespace"], labels.get("certificate")) for labels, _ in selected}

    expected = {("JarvisWatchdog", NAMESPACE, None)}
    expected |= {("JarvisCertificateExpiring", NAMESPACE, name) for name in ("peer", "api")}
    wait_until(lambda: expected == firing(), "both to fire", watched.explain)
    [board] = [board for board in read_dashboards().values() if board["title"] == "Jarvis: cluster"]
    [panel] = [panel for panel in board["panels"] if panel["title"] == "Alerts firing"]
    [(_, shown)] = watched.prometheus.select(fill(panel["targets"][0]["expr"], {"namespace": NAMESPACE}))
    assert shown == len(expected) - 1


def test_a_node_that_is_killed_is_missed_by_all_who_need_it(watched):
    cluster = watched.cluster
    for index in range(20):
        cluster.post(f"/v1/keys/replicated/{index}", ASSIGN)
    cluster.kill("node-2")
    try:
        watched.wait_for(("JarvisNodeDown", "jarvis-crdt-2", "pending"))
        statuses = set()
        watched.wait_for(
            ("JarvisNodeDown", "jarvis-crdt-2", "firing"),
            ("JarvisDatabaseConnectionIssues", "jarvis-backend-0", "firing"),
            ("JarvisUnderReplicated", "", "firing"),
            ("JarvisHighErrorRate", "", "firing"),
            meanwhile=lambda: statuses.add(ask(cluster, "POST", "/v1/keys/all?concern=all", json=ASSIGN).status_code),
        )
        assert statuses == {503}
    finally:
        cluster.start_node("node-2")
        cluster.wait_ready("node-2")


def test_nodes_that_write_the_same_keys_at_once_are_a_spike_of_conflicts(watched):
    def write(place):
        watched.cluster.post(f"/v1/keys/contested/{place // 3}?node=node-{place % 3}", ASSIGN)

    with ThreadPoolExecutor(12) as pool:
        watched.wait_for(("JarvisCRDTConflictSpike", "", "firing"), meanwhile=lambda: list(pool.map(write, range(240))))


def test_a_node_that_stops_for_two_seconds_applies_writes_late(watched):
    node = watched.cluster.processes["node-1"]

    def stop_and_go():
        node.send_signal(signal.SIGSTOP)
        try:
            for index in range(20):
                ask(watched.cluster, "POST", f"/v1/keys/late/{index}?node=node-0", json=ASSIGN)
            # The alert is about time that passes.
            wait_until(lambda: not watched.prometheus.select('up{instance="jarvis-crdt-1"} == 1'), "it to be missed")
        finally:
            node.send_signal(signal.SIGCONT)

    stop_and_go()
    watched.wait_for(("JarvisCRDTSyncLatencyHigh", "jarvis-crdt-1", "firing"))


def test_a_plugin_that_raises_is_told_of(watched):
    watched.wait_for(
        ("JarvisPluginFailure", "jarvis-backend-0", "firing"),
        meanwhile=lambda: ask(watched.cluster, "POST", "/v1/keys/boom/1", json=ASSIGN),
    )
