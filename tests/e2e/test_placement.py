"""Majority writes outlive a zone, a cold start, resizes, and the upgrade from before there were placements.

Each release is of these tests alone. What is counted is `concern=majority`: no acknowledged write may be lost, and
every majority read sees all of them.
"""

import itertools
import json
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from crdt_service.client import Retry
from harness.cluster.manager import Cluster, find_cluster, kubectl, load_images, read_objects
from harness.cluster.progress import Progress
from harness.cluster.service_image import ensure_service_image
from harness.cluster.tool import find_tool
from harness.cluster.version import SERVICE_IMAGE
from harness.kube import connect
from harness.poll import Done, Pending, wait_until
from harness.process import run
from harness.release.rollout import wait_for_rollout
from harness.release.service import Service, ServiceError
from tests.e2e.conftest import CONFIG, CONTEXT, ROOT

pytestmark = pytest.mark.e2e
_CHART = ROOT / "charts/jarvis"
# The last commit before placements.
_BEFORE = "aa6c783"
_BEFORE_TAG = "before-placements"
_WRITERS = 2
_RETRY = Retry(attempts_max=10)
# Values of values/high-availability.yaml, at the size of kind's nodes; what these tests do not look at is off.
_SMALL = {
    "monitoring": {"prometheus_enabled": False, "alerting_enabled": False},
    "backup": {"enabled": False},
    "security": {"rate_limiting": {"enabled": False}},
}
_AVAILABLE = {**_SMALL, "infrastructure": {"node_count": 6}, "crdt": {"replication_factor": 5}}


@dataclass
class Release:
    """One release in a namespace of its own."""

    cluster: Cluster
    namespace: str
    values: Path
    service: Service

    def helm(self, *arguments: str) -> None:
        run(
            [str(find_tool("helm")), *arguments, "--namespace", self.namespace, "--kube-context", CONTEXT],
            timeout_seconds=1200,
        )

    def upgrade(self, *settings: str, chart: Path = _CHART) -> None:
        given = [f"--set={setting}" for setting in settings]
        self.helm("upgrade", "jarvis", str(chart), "--values", str(CONFIG), "--values", str(self.values), *given)
        self.await_rollout()

    def await_rollout(self) -> None:
        wait_for_rollout(connect(CONTEXT), self.namespace, deadline_seconds=600, progress=lambda _: None)

    def kubectl(self, *arguments: str) -> str:
        return kubectl(self.cluster, *arguments, "--namespace", self.namespace)

    def nodes(self) -> dict[str, Any]:
        """The pods of nodes by name."""
        selector = "--selector=app.kubernetes.io/component=crdt"
        items = read_objects(self.cluster, "pods", "--namespace", self.namespace, selector)
        return {item["metadata"]["name"]: item for item in items}

    def delete(self, *pods: str) -> None:
        """Have pods go at once, as a machine does that loses its power."""
        self.kubectl("delete", "pod", *pods, "--grace-period=0", "--force")

    def await_seats(self, count: int) -> None:
        """Wait until so many nodes own all slots, and nothing is under way."""

        def look() -> Done[None] | Pending:
            try:
                placement = self.service.read_cluster().placement
            except ServiceError as error:
                return Pending(error.message)
            is_so = placement.epoch >= 2 and placement.change is None and len(placement.seats) == count
            return Done(None) if is_so else Pending(str(placement))

        wait_until(look, what=f"{count} seats", deadline_seconds=300, interval_seconds=2)

    def check(self, traffic: "Traffic") -> None:
        """See that every acknowledged write is there, by majorities and on all owners, and none twice."""
        assert [] == traffic.failures
        assert _WRITERS == len(traffic.acknowledged)
        for key, count in traffic.acknowledged.items():
            assert [count, count] == [self.service.read(key, concern=concern) for concern in ("majority", "all")]


@dataclass
class Traffic:
    """What writers were told: acknowledged increments of each key, failures after retries, reads that missed any."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def await_more(self) -> None:
        """Wait until each writer was acknowledged ten more writes."""
        aims = {key: count + 10 for key, count in self.acknowledged.items()}

        def look() -> Done[None] | Pending:
            is_so = all(self.acknowledged[key] >= aim for key, aim in aims.items()) and len(aims) == _WRITERS
            return Done(None) if is_so else Pending(f"{self.acknowledged} of {aims}; {self.failures[-3:]}")

        wait_until(look, what="writes to go on", deadline_seconds=120)


@contextmanager
def writing(release: Release, name: str) -> Iterator[Traffic]:
    """Increment counters by majorities until the block ends, each write under a name, and read each by a majority."""
    traffic, stop = Traffic(), threading.Event()

    def write(key: str) -> None:
        with Service(connect(CONTEXT), release.namespace, retry=_RETRY) as service:
            for number in itertools.count(1):
                if stop.is_set():
                    return
                try:
                    service.write(
                        key, "pn_counter", {"increment": 1}, idempotency_key=f"{key}-{number}", concern="majority"
                    )
                    traffic.acknowledged[key] = number
                    seen = service.read(key, concern="majority")
                except ServiceError as error:
                    traffic.failures.append(f"{key} {number}: {error.message}")
                    return  # Whether it counted is open, so no later number would say anything.
                if seen != number:
                    traffic.failures.append(f"{key}: {seen} was read after {number} were acknowledged")
                stop.wait(0.1)

    with ThreadPoolExecutor(_WRITERS) as pool:
        writers = [pool.submit(write, f"e2e.{name}.{number}") for number in range(_WRITERS)]
        try:
            wait_until(
                lambda: Done(None) if len(traffic.acknowledged) == _WRITERS else Pending(str(traffic)),
                what="the first writes",
                deadline_seconds=60,
            )
            yield traffic
        finally:
            stop.set()
        for writer in writers:
            writer.result()


@contextmanager
def installed(namespace: str, folder: Path, values: dict[str, Any], chart: Path = _CHART) -> Iterator[Release]:
    """Install a release, and remove it and its namespace in the end."""
    cluster = find_cluster()
    assert cluster, "no cluster runs: `make up` brings it up"
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    kubectl(cluster, "create", "namespace", namespace)
    try:
        with Service(connect(CONTEXT), namespace, retry=_RETRY) as service:
            release = Release(cluster, namespace, file, service)
            release.helm("install", "jarvis", str(chart), "--values", str(CONFIG), "--values", str(file))
            release.await_rollout()
            yield release
    finally:
        kubectl(cluster, "delete", "namespace", namespace, "--timeout=300s")


@pytest.fixture(scope="module")
def available(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """Six nodes in three zones, five owners of each key."""
    with installed("jarvis-placement", tmp_path_factory.mktemp("values"), _AVAILABLE) as release:
        release.await_seats(6)
        yield release


def test_writes_go_on_while_a_zone_is_away(available: Release) -> None:
    zone = "topology.kubernetes.io/zone"
    machines = {node["metadata"]["name"]: node for node in read_objects(available.cluster, "nodes")}
    lost = [name for name, node in machines.items() if node["metadata"]["labels"].get(zone) == "zone-c"]
    gone = [name for name, pod in available.nodes().items() if pod["spec"]["nodeName"] in lost]
    assert 2 == len(gone)
    with writing(available, "zone") as traffic:
        for machine in lost:
            kubectl(available.cluster, "cordon", machine)
        try:
            available.delete(*gone)
            traffic.await_more()
            assert not set(gone) & {
                name for name, pod in available.nodes().items() if pod["status"]["phase"] == "Running"
            }
        finally:
            for machine in lost:
                kubectl(available.cluster, "uncordon", machine)
        available.await_rollout()
        traffic.await_more()
    available.await_seats(6)
    available.check(traffic)


def test_all_nodes_go_at_once_and_return_to_what_was_acknowledged(available: Release) -> None:
    with writing(available, "cold") as traffic:
        traffic.await_more()
    before = available.service.read_cluster().placement.epoch
    available.delete(*available.nodes())
    available.await_rollout()
    available.await_seats(6)
    assert before == available.service.read_cluster().placement.epoch
    available.check(traffic)
    with writing(available, "after-cold") as again:
        again.await_more()
    available.check(again)


@pytest.mark.parametrize("count", [5, 6])
def test_fewer_and_more_nodes_under_majority_writes(available: Release, count: int) -> None:
    with writing(available, f"resize-{count}") as traffic:
        available.upgrade(f"infrastructure.node_count={count}")
        available.await_seats(count)
        traffic.await_more()
    assert count == len(available.nodes())
    available.check(traffic)


def _extract_before(folder: Path) -> Path:
    """Write chart and service of the release before into a folder."""
    archive = folder / "before.tar"
    run(["git", "-C", str(ROOT), "archive", f"--output={archive}", _BEFORE, "charts/jarvis", "crdt_service"])
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture
def before(tmp_path: Path) -> Iterator[Release]:
    """A release of before placements, of three nodes."""
    folder = _extract_before(tmp_path)
    cluster = find_cluster()
    assert cluster, "no cluster runs: `make up` brings it up"
    progress = Progress()
    load_images(cluster, [ensure_service_image(_BEFORE_TAG, progress, folder / "crdt_service")], progress)
    values = {**_SMALL, "image": {"repository": SERVICE_IMAGE, "tag": _BEFORE_TAG}}
    with installed("jarvis-before", tmp_path, values, folder / "charts/jarvis") as release:
        yield release


def test_an_upgrade_from_before_placements_loses_nothing_and_ends_with_one(before: Release) -> None:
    *older, last = sorted(before.nodes())
    tag = yaml.safe_load((_CHART / "Chart.yaml").read_text())["appVersion"]
    with writing(before, "upgrade") as traffic:
        # One node of the new release beside two of the old one, of which one restarts as such.
        before.upgrade(f"image.tag={tag}", f"infrastructure.update_partition={len(older)}")
        assert [True, False, False] == [_runs(before.nodes()[name], tag) for name in (last, *older)]
        assert 0 == before.service.read_cluster().placement.epoch
        before.delete(older[0])
        before.await_rollout()
        assert not _runs(before.nodes()[older[0]], tag)
        traffic.await_more()
        before.upgrade(f"image.tag={tag}")
        assert all(_runs(pod, tag) for pod in before.nodes().values())
        before.await_seats(3)
        traffic.await_more()
    before.check(traffic)
    health = json.loads(before.kubectl("get", "--raw", _probe_path(before.namespace, last)))
    assert [True] == [check["passed"] for check in health["checks"] if check["name"] == "placement"], health


def _runs(pod: Any, tag: str) -> bool:
    return bool(pod["spec"]["containers"][0]["image"].endswith(f":{tag}"))


def _probe_path(namespace: str, pod: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods/{pod}:9101/proxy/health"
