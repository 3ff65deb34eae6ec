"""Clocks of real nodes that are wrong by minutes to years: what is told of them, and what becomes of writes."""

import os
import secrets
import time

import pytest

from loadtests.cluster import ROOT, LoopbackCluster, command, wait_until

MINUTES, HOURS, YEARS = 600, 7200, 10 * 365 * 24 * 3600
ALL = ("node-0", "node-1", "node-2")
# Beside the standard library, in processes of these tests: a wall clock that is off by what a file says.
SHIFTED = """
import os, time

_file, _time, _time_ns = os.environ["WRONG_CLOCK"], time.time, time.time_ns

def _shift():
    with open(_file) as file:
        return float(file.read() or 0)

time.time = lambda: _time() + _shift()
time.time_ns = lambda: _time_ns() + int(_shift() * 1e9)
"""
STAMPED = {
    "lww_register": {"assign": "ahead"},
    "mv_register": {"assign": "ahead"},
    "map": {"update": {"f": {"type": "lww_register", "op": {"assign": 1}}}},
    "workflow": {"create": {"initial": "a", "states": ["a", "b"], "transitions": [["a", "b"]]}},
}


class Clocks:
    """A cluster whose nodes' clocks can be set."""

    def __init__(self, folder):
        self.cluster = LoopbackCluster(folder / "cluster")
        self._folder = folder
        (folder / "site").mkdir()
        (folder / "site/sitecustomize.py").write_text(SHIFTED)
        for name in ALL:
            self.set(name, 0)
        self.cluster.command_of = self._command_of

    def set(self, name, seconds):
        new = self._folder / f"{name}.new"
        new.write_text(str(seconds))
        new.rename(self._folder / name)

    def _command_of(self, name, arguments):
        if name not in ALL:
            return command(*arguments)
        path = os.pathsep.join((str(self._folder / "site"), str(ROOT)))
        return ["env", f"PYTHONPATH={path}", f"WRONG_CLOCK={self._folder / name}", *command(*arguments)]


@pytest.fixture(scope="module")
def clocks(tmp_path_factory):
    made = Clocks(tmp_path_factory.mktemp("clocks"))
    with made.cluster:
        yield made


def told(cluster):
    """Who says that clocks differ: the API, and each node."""
    views = {"API": cluster.get("/health"), **{name: cluster.probe(name, "/health").json() for name in ALL}}
    failed = {name: [check["name"] for check in view["checks"] if not check["passed"]] for name, view in views.items()}
    return {name for name, checks in failed.items() if "clock" in checks}


def offsets(cluster):
    """How far each node says that its clock is ahead."""
    lines = {name: cluster.metrics(name).splitlines() for name in ALL}
    return {
        name: float(next(line for line in lines[name] if line.startswith("jarvis_clock_offset_seconds ")).split()[1])
        for name in ALL
    }


def write(cluster, name, key, type_name, op):
    """Write by a name of its own, again where a busy machine leaves the outcome unknown."""
    url, named = f"{cluster.url}/v1/keys/{key}?concern=majority&node={name}", {"idempotency-key": secrets.token_hex(8)}
    answers = []

    def is_written():
        answers.append(cluster.client.post(url, json={"type": type_name, "op": op}, headers=named))
        assert answers[-1].status_code in {200, 503}, answers[-1].text
        return answers[-1].status_code == 200

    wait_until(is_written, f"{key} is written on {name}", lambda: answers[-1].text)


def shown(cluster, key):
    return {name: cluster.get(f"/v1/keys/{key}?node={name}")["value"] for name in ALL}


def wait_shown(cluster, key, value):
    wait_until(lambda: set(shown(cluster, key).values()) == {value}, "all show it", lambda: str(shown(cluster, key)))


@pytest.mark.parametrize(
    ("wrong", "seconds"),
    [
        (["node-2"], 61),
        (["node-0"], -61),
        (["node-0", "node-1"], -MINUTES),
        (ALL, HOURS),
        (["node-1"], YEARS),
        (["node-2"], -YEARS),
        (["node-0", "node-2"], YEARS),
    ],
)
def test_writes_go_on_through_wrong_clocks_which_are_told_and_a_later_one_wins(clocks, wrong, seconds):
    cluster, key = clocks.cluster, f"{seconds}-{len(wrong)}"
    for name in wrong:
        clocks.set(name, seconds)
    if wrong is not ALL:
        wait_until(lambda: told(cluster) == {"API", *ALL}, "all tell of clocks that differ", lambda: str(told(cluster)))
        [odd] = wrong if len(wrong) == 1 else set(ALL) - set(wrong)
        ahead = seconds if odd in wrong else -seconds
        assert {name: pytest.approx(ahead if name == odd else -ahead, abs=1) for name in ALL} == offsets(cluster)
    for name in ALL:
        for type_name, op in STAMPED.items():
            write(cluster, name, f"{type_name}-{name}-{key}", type_name, op)
        point = {"append": {"at": int(time.time() * 1000), "value": 1}}
        write(cluster, name, f"series-{key}", "time_series", point)
    for name in ALL:
        clocks.set(name, 0)
    wait_until(lambda: not told(cluster), "clocks are right", lambda: str(told(cluster)))
    for name in ALL:
        write(cluster, name, f"lww_register-{wrong[0]}-{key}", "lww_register", {"assign": f"by {name}"})
    wait_shown(cluster, f"lww_register-{wrong[0]}-{key}", f"by {ALL[-1]}")
    wait_shown(cluster, f"mv_register-{wrong[0]}-{key}", "ahead")
    assert "healthy" == cluster.get("/health")["status"]


def test_a_later_write_wins_over_stamps_of_the_future_after_all_have_started_again(clocks):
    cluster = clocks.cluster
    for name in ALL:
        clocks.set(name, YEARS)
    write(cluster, "node-0", "again", "lww_register", {"assign": "ahead"})
    for name in ALL:
        cluster.kill(name)
        clocks.set(name, 0)
    for name in ALL:
        cluster.start_node(name)
    for name in ALL:
        cluster.wait_ready(name)
    wait_until(lambda: cluster.get("/health")["status"] == "healthy", "healthy", cluster.logs)
    for name in ALL:
        write(cluster, name, "again", "lww_register", {"assign": f"by {name}"})
    wait_shown(cluster, "again", f"by {ALL[-1]}")
