"""Plugins in a backend's own processes: one that is installed as the chart installs it, and some that misbehave."""

import shutil
import subprocess
import sys

import pytest

from loadtests.cluster import ROOT, LoopbackCluster, wait_until

EXAMPLE = ROOT / "examples/plugins/shapes"
RULES = {"orders/": {"required": ["id"], "defaults": {"state": "new"}}}
# Each misbehaves for keys of its own.
_TROUBLE = """
import os, time
from crdt_service.plugins.hook import Endpoint, hookimpl
_leak = []

@hookimpl
def validate_write(key):
    if key.startswith("{kind}/"):
        {does}

@hookimpl
def endpoints():
    return [Endpoint("POST", "echo", "Answer with the body.", lambda request: request.body, access="write")]
"""
TROUBLES = {
    "raises": "raise ValueError('no good')",
    "hangs": "time.sleep(1000)",
    "leaks": "_leak.append(bytearray(64 << 20))",
    "exits": "os._exit(3)",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cluster")
    plugins = [{"name": "shapes", "required": True, "settings": RULES}]
    plugins += [{"name": kind, "timeout_ms": 2000} for kind in TROUBLES]
    cluster = LoopbackCluster(directory, node_count=1, plugins=plugins)
    source = shutil.copytree(EXAMPLE, directory / "source")
    install = ("pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target")
    subprocess.run([sys.executable, "-m", *install, cluster.plugins_dir / "shapes", source], check=True)
    for kind, does in TROUBLES.items():
        (cluster.plugins_dir / f"{kind}.py").write_text(_TROUBLE.format(kind=kind, does=does))
    with cluster:
        yield cluster


def assign(cluster, key, value):
    body = {"type": "lww_register", "op": {"assign": value}}
    return cluster.client.post(f"{cluster.url}/v1/keys/{key}", json=body)


def find_plugin(cluster, name):
    return next(plugin for plugin in cluster.get("/v1/plugins")["plugins"] if plugin["name"] == name)


def find_check(cluster, name):
    return next(check for check in cluster.get("/health")["checks"] if check["name"] == f"plugin_{name}")


def test_an_installed_plugin_refuses_transforms_and_answers(cluster):
    refused = assign(cluster, "orders/1", {"colour": "blue"})
    written = assign(cluster, "orders/1", {"id": 7}).json()

    assert (422, "plugin_refused", "plugin shapes: orders/1: the value lacks id") == (
        refused.status_code,
        refused.json()["error"]["code"],
        refused.json()["error"]["message"],
    )
    assert {"id": 7, "state": "new", "_members": 2} == written["value"]
    assert {"id": 7, "state": "new", "_members": 2} == cluster.get("/v1/keys/orders/1")["value"]
    rules = {"orders/": {"required": ["id"], "bytes_max": 1 << 20, "defaults": {"state": "new"}}}
    assert rules == cluster.get("/v1/plugins/shapes/rules?prefix=orders/")
    assert 400 == cluster.client.get(f"{cluster.url}/v1/plugins/shapes/rules?colour=blue").status_code
    assert 404 == cluster.client.get(f"{cluster.url}/v1/plugins/shapes/other").status_code
    assert [1] == cluster.post("/v1/plugins/raises/echo", [1])


def test_a_plugin_learns_of_changes(cluster):
    def is_told():
        assign(cluster, "orders/3", {"id": 3})
        return cluster.get("/v1/plugins/shapes/seen").get("orders/")

    assert wait_until(is_told, "the plugin to learn of a change", cluster.logs) >= 1


def test_a_write_of_a_batch_that_a_plugin_refuses_is_refused_alone(cluster):
    writes = [
        {"key": f"orders/{name}", "type": "lww_register", "op": {"assign": value}}
        for name, value in (("good", {"id": 1}), ("bad", {}))
    ]
    written = cluster.post("/v1/batch/write?value=true", {"writes": writes})["results"]
    bad = cluster.post("/v1/batch/write", {"writes": writes[1:]})["results"]

    assert [200, 422] == [result["status"] for result in written]
    assert {"id": 1, "state": "new", "_members": 2} == written[0]["value"]
    assert ["plugin_refused"] == [result["error"]["code"] for result in bad]
    read = cluster.post("/v1/batch/read", {"keys": ["orders/bad", "orders/1"]})["results"]
    assert [404, {"id": 7, "state": "new", "_members": 2}] == [read[0]["status"], read[1]["value"]]


def test_the_api_document_has_the_pages_of_plugins(cluster):
    paths = cluster.get("/openapi.json")["paths"]

    assert "Show the rules by prefix." in str(paths["/v1/plugins/shapes/rules"]["get"])


def test_all_plugins_are_listed(cluster):
    shapes = find_plugin(cluster, "shapes")

    assert ["configure", "validate_write", "transform_write", "transform_read", "on_change", "endpoints"] == shapes[
        "hooks"
    ][:-1]
    assert "conflict_strategies" == shapes["hooks"][-1]
    assert ("active", True, "") == (shapes["state"], shapes["required"], shapes["error"])
    assert ["shapes", *TROUBLES] == [plugin["name"] for plugin in cluster.get("/v1/plugins")["plugins"]]


@pytest.mark.parametrize("kind", TROUBLES)
def test_a_plugin_that_misbehaves_is_disabled_while_requests_go_on(cluster, kind):
    says = {"hangs": "no answer within 2000 ms", "leaks": "MemoryError", "exits": "its process ended"}
    written = []

    def is_disabled():
        written.append(assign(cluster, f"{kind}/1", len(written)))
        return find_plugin(cluster, kind)["state"] == "disabled"

    wait_until(is_disabled, f"{kind} to be disabled", cluster.logs)

    assert {200} == {answer.status_code for answer in written}
    assert len(written) - 1 == cluster.get(f"/v1/keys/{kind}/1")["value"]
    assert says.get(kind, "ValueError: no good") in find_plugin(cluster, kind)["error"]
    check = find_check(cluster, kind)
    assert (False, True) == (check["passed"], check["message"].startswith(("disabled: ", "failing: ")))
    assert "degraded" == cluster.get("/health")["status"]
    metrics = cluster.client.get(f"{cluster.url}/metrics").text
    assert f'jarvis_plugin_failures_total{{plugin="{kind}"}} 5.0' in metrics
    assert {"id": 1, "state": "new", "_members": 2} == assign(cluster, "orders/2", {"id": 1}).json()["value"]


def test_the_states_are_counted(cluster):
    lines = cluster.client.get(f"{cluster.url}/metrics").text.splitlines()
    counts = {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("jarvis_plugins{")}

    assert {f'jarvis_plugins{{state="{state}"}}' for state in ("active", "failing", "disabled")} == set(counts)
    assert 1 + len(TROUBLES) == sum(counts.values())


LEDGER = """
from crdt_service.plugins.hook import Endpoint, hookimpl
_seen = {}

@hookimpl
def transform_write(op, caller):
    return {"assign": f"{op['assign']} by {caller.name} ({caller.scope})"}

@hookimpl
def on_change(change):
    _seen[change["key"]] = len(change["key"])

def narrowed(request):
    return {key: value for key, value in _seen.items() if request.caller.may_touch(key)}

@hookimpl
def endpoints():
    return [
        Endpoint("GET", "all", "Show all.", lambda request: _seen),
        Endpoint("GET", "one", "Show one.", lambda request: _seen.get(request.query.get("key")),
            parameters={"key": "Which."}, keys=["key"]),
        Endpoint("GET", "mine", "Show what is the caller's.", narrowed, narrows=True),
        Endpoint("DELETE", "forget", "Forget all.", lambda request: _seen.clear(), access="admin"),
    ]
"""


def test_endpoints_keep_to_the_prefixes_of_the_caller(tmp_path):
    cluster = LoopbackCluster(tmp_path, node_count=1, plugins=[{"name": "ledger"}], api_keys=True)
    cluster.plugins_dir.mkdir()
    (cluster.plugins_dir / "ledger.py").write_text(LEDGER)
    limited = cluster.create_api_key("--name", "limited", "--scope", "write", "--prefix", "a/")
    writer = cluster.create_api_key("--name", "writer", "--scope", "write")
    with cluster:

        def ask(method, path, token=limited, **body):
            headers = {"authorization": f"Bearer {token}"}
            return cluster.client.request(method, cluster.url + path, headers=headers, **body)

        def write(key, token):
            body = {"type": "lww_register", "op": {"assign": "v"}}
            return ask("POST", f"/v1/keys/{key}?concern=all", token, json=body).json()["value"]

        def is_known():
            write("a%2F1", limited)
            write("b%2F12", writer)
            return known == ask("GET", "/v1/plugins/ledger/all", writer).json()

        known = {"a/1": 3, "b/12": 4}
        assert "v by limited (write)" == write("a%2F1", limited)
        assert "v by writer (write)" == write("b%2F12", writer)
        wait_until(is_known, "the plugin to hear of changes", cluster.logs)

        assert 403 == ask("GET", "/v1/plugins/ledger/all").status_code
        assert {"a/1": known["a/1"]} == ask("GET", "/v1/plugins/ledger/mine").json()
        assert known == ask("GET", "/v1/plugins/ledger/mine", writer).json()
        assert known["a/1"] == ask("GET", "/v1/plugins/ledger/one?key=a%2F1").json()
        assert known["b/12"] == ask("GET", "/v1/plugins/ledger/one?key=b%2F12", writer).json()
        for refused in ("one?key=b%2F12", "one", "one?key=_jarvis%2Fx"):
            answer = ask("GET", f"/v1/plugins/ledger/{refused}")
            assert answer.status_code in (400, 403), refused

        for path, method in (("/v1/plugins", "GET"), ("/v1/plugins/ledger/forget", "DELETE")):
            assert 403 == ask(method, path, writer).status_code
        assert 200 == cluster.client.delete(f"{cluster.url}/v1/plugins/ledger/forget").status_code
        assert ["ledger"] == [plugin["name"] for plugin in cluster.get("/v1/plugins")["plugins"]]
