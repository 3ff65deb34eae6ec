"""Every query of every dashboard, asked of a real Prometheus that scrapes a real cluster under traffic."""

import contextlib

import pytest

from harness.dashboard.query import fill, find_failures, read_dashboards
from loadtests.cluster import LoopbackCluster, wait_until
from tests.loopback.partition import heal, start_apart
from tests.loopback.prometheus import Prometheus, configure
from tests.loopback.request import ask

NAMESPACE = "jarvis-system"


@pytest.fixture(scope="module", params=[True, False], ids=["tls", "plain"])
def watched(tmp_path_factory, request):
    """A cluster and its Prometheus; the nodes wrote the same key without seeing each other, and have met since."""
    directory = tmp_path_factory.mktemp("watched")
    cluster = LoopbackCluster(directory / "cluster", tls=request.param)
    with contextlib.ExitStack() as stack:
        stack.callback(cluster.stop)
        start_apart(cluster)
        for name in cluster.node_ids:
            cluster.post(f"/v1/keys/met?node={name}", {"type": "mv_register", "op": {"assign": name}})
        prometheus = Prometheus(directory / "prometheus", configure(cluster, NAMESPACE))
        stack.callback(prometheus.stop)
        heal(cluster)
        yield cluster, prometheus


def _use(cluster):
    """A little of what agents do: they write, read, delete, and make mistakes."""
    increment = {"type": "pn_counter", "op": {"increment": 1}}
    answers = [
        ask(cluster, "POST", "/v1/keys/visits?concern=majority", json=increment),
        ask(cluster, "POST", "/v1/keys/name", json={"type": "lww_register", "op": {"assign": "a"}}),
        ask(cluster, "GET", "/v1/keys/visits?concern=majority"),
        ask(cluster, "DELETE", "/v1/keys/name"),
        ask(cluster, "GET", "/v1/keys"),
        ask(cluster, "POST", "/v1/keys/visits", json={"type": "none", "op": {}}),
    ]
    return [answer.status_code for answer in answers]


def test_every_query_of_every_dashboard_has_a_number_to_show(watched):
    cluster, prometheus = watched
    failures = []

    def answered():
        assert [200, 200, 200, 200, 200, 400] == _use(cluster)
        failures[:] = find_failures(prometheus.fetch)
        return not failures

    wait_until(answered, "every query to be answered", lambda: "\n".join(failures) + prometheus.log.read_text())


def _panel(board, title):
    [panel] = [panel for panel in read_dashboards()[board]["panels"] if panel["title"] == title]
    chosen = {"namespace": NAMESPACE, "instance": ".*", "job": ".*", "__rate_interval": "1m", "__range": "1h"}
    return [fill(target["expr"], chosen) for target in panel["targets"]]


@pytest.mark.parametrize(
    ("board", "title", "label", "expected"),
    [
        ("crdt.json", "Conflicts by type", "type", {"mv_register"}),
        ("api.json", "Requests by status", "status", {"200", "400"}),
        ("api.json", "Client errors by route", "route", {"/v1/keys/{key}"}),
        (
            "cluster.json",
            "Reached by Prometheus",
            "instance",
            {"jarvis-backend-0", *(f"jarvis-crdt-{n}" for n in "012")},
        ),
    ],
)
def test_a_panel_tells_apart_what_its_legend_names(watched, board, title, label, expected):
    cluster, prometheus = watched

    def shown():
        _use(cluster)
        return {labels.get(label) for expr in _panel(board, title) for labels, _ in prometheus.select(expr)}

    wait_until(lambda: expected <= shown(), f"{title} to show {expected}", lambda: repr(shown()))


def test_a_node_that_is_down_shows_at_once(watched):
    cluster, prometheus = watched
    [down], [nodes] = _panel("cluster.json", "Targets down"), _panel("cluster.json", "Nodes up")
    [members] = _panel("cluster.json", "Members suspect or dead")

    def numbers():
        return [prometheus.select(expr)[0][1] for expr in (down, nodes, members)]

    wait_until(lambda: [0, 3, 0] == numbers(), "all to be well", lambda: repr(numbers()))
    cluster.kill("node-2")
    wait_until(lambda: [1, 2, 1] == numbers(), "one to be down", lambda: repr(numbers()))
    cluster.start_node("node-2")
    cluster.wait_ready("node-2")
    wait_until(lambda: [0, 3, 0] == numbers(), "it to be back", lambda: repr(numbers()))


def test_what_prometheus_refuses_or_has_nothing_for_is_told():
    def fetch(path, params):
        if path.startswith("/api/v1/label/"):
            return {"status": "success", "data": []}
        return {"status": "error", "error": "parse error"}

    failures = find_failures(fetch)
    asked = sum(len(panel.get("targets", [])) for board in read_dashboards().values() for panel in board["panels"])
    chosen = sum(len(board["templating"]["list"]) - 1 for board in read_dashboards().values())

    assert asked + chosen == len(failures)
