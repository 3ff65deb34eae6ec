from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cli.deploy import deploy
from harness.failure import Failure
from harness.kube import annotations_of
from harness.release.record import read_record
from harness.release.status import Status
from harness.spec.schema import defaults
from tests.unit.harness.fake_api import FakeApi, deployed_api, put_helm_release
from tests.unit.harness.test_preflight import FakeHelm, ready_api

NAMESPACE = "jarvis-system"


class InstallingHelm(FakeHelm):
    """Makes a healthy deployment appear, unless told to do something else instead."""

    def __init__(self, api: FakeApi, instead: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._api = api
        self._instead = instead

    def upgrade(self, _values: dict[str, Any]) -> None:
        if self._instead:
            self._instead()
        else:
            healthy = deployed_api().objects
            self._api.objects |= {
                key: body for key, body in healthy.items() if key[0] in ("statefulsets", "deployments")
            }


def empty_api() -> FakeApi:
    api = ready_api()
    for key in [("configmaps", NAMESPACE, "jarvis-deployment"), ("secrets", NAMESPACE, "sh.helm.release.v1.jarvis.v1")]:
        del api.objects[key]
    return api


def run_deploy(api: FakeApi, helm: FakeHelm) -> Status:
    values = {
        "infrastructure": {"availability_zones": [], "node_count": 3},
        "crdt": {"replication_factor": 3},
        "security": defaults()["security"],
    }
    config: Any = SimpleNamespace(values=values, overrides={})
    return deploy(config, api.kube(), helm, deadline_seconds=1, progress=lambda _text: None)  # type: ignore[arg-type]


def phase_of(api: FakeApi) -> tuple[str, str]:
    record = read_record(api.kube(), NAMESPACE)
    assert record is not None
    return record.phase, record.message


def test_a_first_deploy_makes_the_namespace_and_the_record() -> None:
    api = empty_api()

    status = run_deploy(api, InstallingHelm(api))

    assert (status.state, status.phase) == ("ready", "ready")
    assert status.deployment_id.startswith("jarvis-")
    assert len(status.config_digest) == 64
    assert annotations_of(api.objects["namespaces", "", NAMESPACE]) == {"jarvis/created-by": "deployment-cli"}


def test_a_second_deploy_keeps_id_and_creation_time() -> None:
    api = ready_api()

    status = run_deploy(api, InstallingHelm(api))

    assert (status.deployment_id, status.created) == ("jarvis-0123abcd", "2026-01-02T03:04:05Z")
    assert status.updated != status.created


def test_a_failing_preflight_changes_nothing() -> None:
    api = empty_api()
    del api.objects["storageclasses", "", "fast-ssd"]

    with pytest.raises(Failure, match="nothing was changed: Storage: no StorageClass fast-ssd"):
        run_deploy(api, InstallingHelm(api))

    assert api.changes == []


def test_a_failing_helm_is_on_record_and_a_new_deploy_repairs_it() -> None:
    api = empty_api()

    def fail() -> None:
        raise Failure("helm upgrade failed: the hook failed")

    with pytest.raises(Failure):
        run_deploy(api, InstallingHelm(api, fail))
    assert phase_of(api) == ("failed", "helm upgrade failed: the hook failed")

    run_deploy(api, InstallingHelm(api))
    assert phase_of(api) == ("ready", "")


def test_an_interrupt_is_on_record_and_leaves_no_pending_release() -> None:
    api = empty_api()

    def interrupt() -> None:
        put_helm_release(api, "pending-install", modified_seconds=2**40)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_deploy(api, InstallingHelm(api, interrupt))
    assert phase_of(api) == ("failed", "interrupted; deploy again to go on")

    assert run_deploy(api, InstallingHelm(api)).state == "ready"


def test_a_rollout_that_does_not_end_is_on_record() -> None:
    api = empty_api()

    with pytest.raises(Failure, match="timed out"):
        run_deploy(api, InstallingHelm(api, lambda: None))

    assert phase_of(api)[0] == "failed"


def test_writes_that_do_not_arrive_fail_the_deploy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.cli.deploy._SYNCHRONIZATION_SECONDS_MAX", 0.5)
    api = empty_api()
    api.service.deaf = set(api.service.nodes)

    with pytest.raises(Failure, match="a write does not reach the other nodes"):
        run_deploy(api, InstallingHelm(api))

    assert phase_of(api)[0] == "failed"


def test_a_deployment_that_is_being_removed_is_not_revived() -> None:
    api = ready_api()
    api.objects["configmaps", NAMESPACE, "jarvis-deployment"]["data"]["phase"] = "removing"

    with pytest.raises(Failure, match="is being removed") as caught:
        run_deploy(api, InstallingHelm(api))

    assert "cleanup jarvis-0123abcd" in caught.value.remedy
