"""What docs/upgrade.md says, while agents write: one node and all backends first, and back."""

import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from crdt_service.client import Retry
from harness.kube import connect
from harness.release.rollout import wait_for_rollout
from harness.release.service import Service, ServiceError
from tests.e2e.conftest import CONFIG, CONTEXT, NAMESPACE, NODES, ROOT, Deployment, helm, run_cli

pytestmark = pytest.mark.e2e
_CHART = str(ROOT / "charts/jarvis")
_WRITERS = 2
# A node that is replaced is away for seconds, and a key's other owners answer meanwhile.
_RETRY = Retry(attempts_max=8)


@dataclass
class Traffic:
    """What writers were told: how many increments of each key were acknowledged, and every failure after retries."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@contextmanager
def writing(name: str) -> Iterator[Traffic]:
    """Increment counters until the block ends, each write under a name of its own so that it may be sent again."""
    traffic, stop = Traffic(), threading.Event()

    def write(key: str) -> None:
        with Service(connect(CONTEXT), NAMESPACE, retry=_RETRY) as service:
            for number in itertools.count(1):
                if stop.is_set():
                    return
                try:
                    service.write(key, "pn_counter", {"increment": 1}, idempotency_key=f"{key}-{number}")
                    traffic.acknowledged[key] = traffic.acknowledged.get(key, 0) + 1
                except ServiceError as error:
                    traffic.failures.append(f"{key} {number}: {error.message}")
                stop.wait(0.1)  # So that no rate limit is met, however long it takes.

    with ThreadPoolExecutor(_WRITERS) as pool:
        writers = [pool.submit(write, f"e2e.{name}.{number}") for number in range(_WRITERS)]
        try:
            yield traffic
        finally:
            stop.set()
        for writer in writers:
            writer.result()


def revisions(deployment: Deployment) -> dict[str, str]:
    """Return which revision of the StatefulSet each node runs."""
    pods = deployment.kubectl("get pods", selector="app.kubernetes.io/component=crdt")
    return {pod["metadata"]["name"]: pod["metadata"]["labels"]["controller-revision-hash"] for pod in pods}


def await_rollout() -> None:
    wait_for_rollout(connect(CONTEXT), NAMESPACE, deadline_seconds=300, progress=lambda _: None)


def upgrade(*settings: str) -> None:
    """Upgrade as docs/upgrade.md says, with settings `key=value` beside those of kind, and wait for the pods."""
    helm("upgrade", "jarvis", _CHART, "--values", str(CONFIG), *(f"--set={setting}" for setting in settings))
    await_rollout()


def test_one_node_first_and_back_without_a_failed_or_lost_write(deployment: Deployment) -> None:
    deployment.service.write("e2e.before-upgrade", "lww_register", {"assign": "kept"})
    before = revisions(deployment)
    first = helm("history", "jarvis", "--output", "json")
    with writing("upgrade") as traffic:
        upgrade("crdt.sync_interval=6", f"infrastructure.update_partition={len(NODES) - 1}")
        after = revisions(deployment)
        helm("rollback", "jarvis", str(json.loads(first)[-1]["revision"]))
        await_rollout()
        back = revisions(deployment)

    *kept, last = NODES
    assert [before[node] for node in kept] == [after[node] for node in kept]
    assert before[last] != after[last]
    assert before == back
    assert [] == traffic.failures
    assert _WRITERS == len(traffic.acknowledged)
    deployment.await_health()
    for key, count in traffic.acknowledged.items():
        deployment.await_value(key, count)
    deployment.await_value("e2e.before-upgrade", "kept")


def test_another_size_of_the_volumes_is_refused_before_anything_changes(deployment: Deployment, tmp_path: Path) -> None:
    config = yaml.safe_load(CONFIG.read_text())
    config["infrastructure"]["storage_size"] = "2Gi"
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    before = json.loads(helm("history", "jarvis", "--output", "json"))

    done = run_cli("deploy", str(file))

    assert (1, True) == (done.returncode, "docs/upgrade.md" in done.stderr), done.stderr
    assert before == json.loads(helm("history", "jarvis", "--output", "json"))
    assert 0 == run_cli("status").returncode
