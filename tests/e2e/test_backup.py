"""A backup on the running cluster: a job takes it, helm test reads it, nodes show it, and a job restores it."""

import json
import re
import time
from typing import Any

import pytest

from harness.cluster.manager import Cluster, find_cluster, kubectl
from harness.poll import Done, Pending, wait_until
from tests.e2e.conftest import NAMESPACE, NODES, Deployment, helm

pytestmark = pytest.mark.e2e


@pytest.fixture
def cluster(deployment: Deployment) -> Cluster:
    found = find_cluster()
    assert found
    return found


def _run_job(cluster: Cluster, action: str) -> str:
    """Run a job of the CronJob with another action, as docs/backup.md does; return its log."""
    name = f"backup-{action}-{time.time_ns()}"
    place = ("--namespace", NAMESPACE)
    made = kubectl(
        cluster, "create", "job", name, "--from=cronjob/jarvis-bkp", "--dry-run=client", "--output=json", *place
    )
    body: dict[str, Any] = json.loads(made)
    arguments = body["spec"]["template"]["spec"]["containers"][0]["args"]
    assert ["backup", "take"] == arguments[:2]
    arguments[1] = action
    kubectl(cluster, "create", "--filename=-", *place, input=json.dumps(body))

    def look() -> Done[str] | Pending:
        text = kubectl(cluster, "get", "job", name, *place, "--output=jsonpath={.status}")
        status = json.loads(text or "{}")
        ended = {each["type"] for each in status.get("conditions", []) if each["status"] == "True"}
        if ended & {"Complete", "Failed"}:
            return Done("Complete" if "Complete" in ended else "Failed")
        return Pending(text)

    ended = wait_until(look, what=f"the job {name}", deadline_seconds=300)
    log = kubectl(cluster, "logs", f"job/{name}", *place)
    assert "Complete" == ended, log
    return log


def _show(cluster: Cluster, metric: str) -> float:
    """The largest of what the nodes show at a scrape."""
    values = []
    for node in NODES:
        page = kubectl(cluster, "get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{node}:9101/proxy/metrics")
        values += [float(text) for text in re.findall(rf"^{metric} (\S+)$", page, re.MULTILINE)]
    assert len(NODES) == len(values)
    return max(values)


def test_a_backup_is_taken_verified_shown_and_restored(cluster: Cluster, deployment: Deployment):
    deployment.service.write("e2e.backup", "pn_counter", {"increment": 3})
    deployment.await_value("e2e.backup", 3)
    began = time.time()

    taken = json.loads(next(line for line in _run_job(cluster, "take").splitlines() if line.startswith("{")))

    assert (sorted(NODES), []) == (taken["nodes"], taken["missed"])
    assert {"cluster-name", "config.json", "node-count", "values.json"} == set(taken["configuration"])
    assert taken["key_id"]
    # The clocks of the host and of its containers are one.
    assert began <= _show(cluster, "jarvis_backup_last_success_timestamp_seconds") <= time.time()
    assert taken["keys"] == _show(cluster, "jarvis_backup_keys") >= 1
    assert "Succeeded" in helm("test", "jarvis", "--filter", "name=jarvis-test-backup")
    deployment.service.write("e2e.backup", "pn_counter", {"increment": 1})
    assert taken["id"] in _run_job(cluster, "restore")
    deployment.await_value("e2e.backup", 4)
