"""The life of the deployment, in order: deploy, write, lose a node, lose a pod, be interrupted."""

import json
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest
import yaml

from harness.poll import Done, Pending, wait_until
from harness.process import run
from harness.release.service import ServiceError
from tests.e2e.conftest import CONFIG, NAMESPACE, NODES, ROOT, Deployment, cli_command, run_cli

pytestmark = pytest.mark.e2e
# Three that write so often stay below the rate limit for ten minutes, however quick the machine is.
_PAUSE_SECONDS = 0.15


@dataclass
class Tally:
    """How many increments were acknowledged, and how many more may have been applied."""

    acknowledged: int = 0
    uncertain: int = 0


def container_of(deployment: Deployment, pod: str) -> tuple[str, str]:
    """Return the cluster node and the container id of a pod's only container."""
    body = deployment.kubectl(f"get pod {pod}")
    return body["spec"]["nodeName"], body["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")


def kill_9(deployment: Deployment, pod: str) -> str:
    """Kill a pod's process from outside its pid namespace, where SIGKILL cannot be ignored; return its container."""
    node, container = container_of(deployment, pod)
    tasks = run(["docker", "exec", node, "ctr", "--namespace", "k8s.io", "tasks", "ls"]).stdout
    pid = next(line.split()[1] for line in tasks.splitlines() if line.startswith(container))
    run(["docker", "exec", node, "kill", "-9", pid])
    return container


def count_up(deployment: Deployment, key: str, node: str, stop: threading.Event) -> Tally:
    """Increment a counter through one node until told to stop."""
    tally = Tally()
    while not stop.is_set():
        try:
            deployment.service.write(key, "pn_counter", {"increment": 1}, node=node)
            tally.acknowledged += 1
        except ServiceError:
            tally.uncertain += 1
        stop.wait(_PAUSE_SECONDS)
    return tally


def test_deploy_again_keeps_the_id_and_follows_the_schema(deployment: Deployment) -> None:
    done = run_cli("deploy", str(CONFIG), "-o", "json")

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    jsonschema.validate(result, json.loads((ROOT / "docs" / "schemas" / "deploy.json").read_text()))
    assert (result["deployment_id"], result["state"]) == (deployment.id, "ready")


def test_the_namespace_enforces_restricted_pods(deployment: Deployment) -> None:
    labels = deployment.kubectl(f"get namespace {NAMESPACE}")["metadata"]["labels"]

    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("writer", NODES)
def test_a_write_on_one_node_is_read_on_the_others(deployment: Deployment, writer: str) -> None:
    key = f"e2e.from.{writer}"

    deployment.service.write(key, "lww_register", {"assign": f"hello from {writer}"}, node=writer)

    deployment.await_value(key, f"hello from {writer}")


def test_status_and_health_agree_that_all_is_well(deployment: Deployment) -> None:
    deployment.await_health()
    status = run_cli("status", "--deployment-id", deployment.id, "-o", "json")

    assert status.returncode == 0, status.stderr
    assert {pod["name"] for pod in json.loads(status.stdout)["pods"]} >= set(NODES)


def test_the_renewal_finds_nothing_to_do_and_may_do_it(deployment: Deployment) -> None:
    deployment.kubectl("create job renew-by-hand --from=cronjob/jarvis-tls", output_format="")
    try:

        def look() -> Done[None] | Pending:
            status = deployment.kubectl("get job renew-by-hand").get("status", {})
            assert not status.get("failed"), deployment.kubectl("logs job/renew-by-hand", output_format="")
            return Done(None) if status.get("succeeded") else Pending(str(status))

        wait_until(look, what="the renewal", deadline_seconds=180)
        said = deployment.kubectl("logs job/renew-by-hand", output_format="")
        assert 6 == said.count("is up to date")
    finally:
        deployment.kubectl("delete job renew-by-hand", output_format="")


def test_a_killed_node_loses_no_acknowledged_write(deployment: Deployment) -> None:
    victim, key, stop = NODES[1], "e2e.killed", threading.Event()
    with ThreadPoolExecutor(len(NODES)) as pool:
        counting = [pool.submit(count_up, deployment, key, node, stop) for node in NODES]
        try:
            wait_for_increments(deployment, key)
            before = kill_9(deployment, victim)
            wait_for_restart(deployment, victim, before)
            wait_for_increments(deployment, key)
        finally:
            stop.set()
        tallies = [future.result() for future in counting]

    acknowledged = sum(tally.acknowledged for tally in tallies)
    uncertain = sum(tally.uncertain for tally in tallies)
    deployment.await_health()
    final = deployment.service.read(key, node=NODES[0])
    deployment.await_value(key, final)
    assert acknowledged <= final <= acknowledged + uncertain
    assert all(tally.acknowledged > 0 for tally in tallies)


def wait_for_increments(deployment: Deployment, key: str) -> None:
    """Wait until ten more increments than now are visible."""
    start = deployment.service.read(key) or 0

    def look() -> Done[None] | Pending:
        value = deployment.service.read(key) or 0
        return Done(None) if value >= start + 10 else Pending(f"{value} after {start}")

    wait_until(look, what="ten more increments", deadline_seconds=60)


def wait_for_restart(deployment: Deployment, pod: str, before: str) -> None:
    """Wait until another container than before is ready in the pod."""

    def look() -> Done[None] | Pending:
        state = deployment.kubectl(f"get pod {pod}")["status"]["containerStatuses"][0]
        fresh = state["ready"] and not state["containerID"].endswith(before)
        return Done(None) if fresh else Pending(str(state["state"]))

    wait_until(look, what=f"{pod} to restart", deadline_seconds=120)


def test_health_sees_a_missing_node_and_its_return(deployment: Deployment) -> None:
    deployment.kubectl("scale statefulset jarvis-crdt", replicas="2", output_format="")
    try:
        done = run_cli("health", "-o", "json")
        assert done.returncode in (1, 4), done.stderr
        verdicts = {row["name"]: row["verdict"] for row in json.loads(done.stdout)["checks"]}
        assert verdicts["CRDT workload"] == "degraded"
    finally:
        deployment.kubectl("scale statefulset jarvis-crdt", replicas="3", output_format="")
    deployment.await_health()


def test_growing_and_shrinking_loses_nothing_and_counts_nothing_twice(deployment: Deployment, tmp_path: Path) -> None:
    keys = [f"e2e.resize.{number}" for number in range(20)]
    for increment, nodes in ((1, 4), (2, 3)):
        for key in keys:
            deployment.service.write(key, "pn_counter", {"increment": increment})
        resize(deployment, tmp_path, nodes)

    assert [3] * len(keys) == [deployment.service.read(key) for key in keys]
    again = run_cli("deploy", str(CONFIG))
    assert again.returncode == 0, again.stderr
    deployment.await_health()
    deployment.await_value(keys[0], 3)


def resize(deployment: Deployment, directory: Path, nodes: int) -> None:
    """Deploy with so many nodes, and each key on two of them only."""
    config = yaml.safe_load(CONFIG.read_text())
    config["infrastructure"]["node_count"] = nodes
    config["crdt"] = {"replication_factor": 2}
    file = directory / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    done = run_cli("deploy", str(file))
    assert done.returncode == 0, done.stderr
    deployment.await_health()


def test_an_interrupted_deploy_is_told_and_repaired(deployment: Deployment) -> None:
    process = subprocess.Popen(
        cli_command("deploy", str(CONFIG)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "installing the chart" in line:
            process.send_signal(signal.SIGINT)
            break
    process.communicate()
    assert process.returncode not in (0, None)

    status = run_cli("status", "-o", "json")
    assert status.returncode == 1
    assert json.loads(status.stdout)["phase"] == "failed"

    repaired = run_cli("deploy", str(CONFIG))
    assert repaired.returncode == 0, repaired.stderr
    deployment.await_health()
