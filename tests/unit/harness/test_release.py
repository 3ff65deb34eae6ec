from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from harness.failure import Failure
from harness.poll import WaitTimeoutError
from harness.release.helm import clear_pending, read_release
from harness.release.name import SECRETS, made_secrets
from harness.release.namespace import ensure_namespace
from harness.release.record import Record, change_phase, read_record
from harness.release.removal import remove
from harness.release.rollout import RolloutError, wait_for_rollout
from harness.release.status import read_status
from harness.spec.config import read_config
from harness.spec.schema import defaults
from tests.unit.harness.fake_api import FakeApi, FakeClock, deployed_api, put_helm_release, put_monitoring

NAMESPACE = "jarvis-system"
_OF_TLS = {name for name in SECRETS if name.endswith(("-tls", "-authority"))}


class FakeHelm:
    """Uninstalls what helm would: the workloads and its own Secrets."""

    namespace = NAMESPACE

    def __init__(self, api: FakeApi) -> None:
        self._api = api

    def uninstall(self) -> None:
        for kind, namespace, name in [*self._api.objects]:
            if kind in ("statefulsets", "deployments") or name.startswith("sh.helm.release"):
                del self._api.objects[kind, namespace, name]


def roll_out(api: FakeApi, deadline_seconds: float = 600, at: Callable[[float], None] = lambda _now: None) -> list[str]:
    clock = FakeClock()
    states: list[str] = []

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        at(clock.now - 1000)

    wait_for_rollout(
        api.kube(), NAMESPACE, deadline_seconds=deadline_seconds, progress=states.append, clock=clock, sleep=sleep
    )
    return states


def starting_api(reason: str, message: str = "") -> FakeApi:
    api = deployed_api()
    api.objects["statefulsets", NAMESPACE, "jarvis-crdt"]["status"]["readyReplicas"] = 2
    waiting = {"state": {"waiting": {"reason": reason, "message": message}}, "restartCount": 4}
    api.objects["pods", NAMESPACE, "jarvis-crdt-1"]["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [waiting],
    }
    return api


def test_a_complete_rollout_ends_at_once() -> None:
    assert roll_out(deployed_api()) == []


@pytest.mark.parametrize(
    ("plural", "change"),
    [
        ("statefulsets", {"observedGeneration": 0}),
        ("statefulsets", {"updatedReplicas": 2}),
        ("statefulsets", {"currentRevision": "r0"}),
        ("deployments", {"readyReplicas": 2}),
        ("deployments", {"replicas": 4}),
    ],
)
def test_a_rollout_is_not_complete_while_any_count_lags(plural: str, change: dict[str, object]) -> None:
    api = deployed_api()
    name = {"statefulsets": "jarvis-crdt", "deployments": "jarvis-backend"}[plural]
    api.objects[plural, NAMESPACE, name]["status"] |= change

    with pytest.raises(WaitTimeoutError):
        roll_out(api, deadline_seconds=5)


def test_a_rollout_waits_for_monitoring_too_and_says_what_holds_it_up() -> None:
    api = deployed_api()
    put_monitoring(api, "grafana", 3000, {})
    api.objects["deployments", NAMESPACE, "jarvis-grafana"]["status"]["readyReplicas"] = 0
    owner = {"name": "jarvis-grafana", "kind": "ReplicaSet"}
    labels = api.objects["pods", NAMESPACE, "jarvis-grafana-0"]["metadata"]["labels"]
    labels["pod-template-hash"] = "h2"
    for number in (1, 2):
        metadata = {
            "labels": {**labels, "pod-template-hash": f"h{number}"},
            "ownerReferences": [owner],
            "annotations": {"deployment.kubernetes.io/revision": str(number)},
        }
        api.put("replicasets", NAMESPACE, f"jarvis-grafana-h{number}", metadata=metadata)
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}, "restartCount": 0}
    api.objects["pods", NAMESPACE, "jarvis-grafana-0"]["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [waiting],
    }

    with pytest.raises(RolloutError) as caught:
        roll_out(api)

    assert caught.value.message == "jarvis-grafana-0 cannot start: ImagePullBackOff: no such image"


def test_status_lists_monitoring_and_is_not_ready_before_it_is() -> None:
    api = deployed_api()
    put_monitoring(api, "prometheus", 9090, {})
    record = read_record(api.kube(), NAMESPACE)
    assert record

    status = read_status(api.kube(), NAMESPACE, record)
    api.objects["deployments", NAMESPACE, "jarvis-prometheus"]["status"]["readyReplicas"] = 0

    assert ["jarvis-crdt", "jarvis-backend", "jarvis-prometheus"] == [each.name for each in status.workloads]
    assert ("ready", "progressing") == (status.state, read_status(api.kube(), NAMESPACE, record).state)


@pytest.mark.parametrize(
    ("partition", "updated", "complete"), [(2, 1, True), (2, 0, False), (3, 0, True), (0, 1, False)]
)
def test_a_rollout_ends_at_its_partition(partition: int, updated: int, complete: bool) -> None:
    api = deployed_api()
    body = api.objects["statefulsets", NAMESPACE, "jarvis-crdt"]
    body["spec"]["updateStrategy"] = {"rollingUpdate": {"partition": partition}}
    body["status"] |= {"updateRevision": "r2", "updatedReplicas": updated}

    try:
        roll_out(api, deadline_seconds=5)
        ended = True
    except WaitTimeoutError:
        ended = False

    assert complete == ended


def test_progress_names_the_pod_and_the_reason_and_recovery_completes() -> None:
    api = starting_api("ImagePullBackOff", "no such image")
    healthy = deployed_api()

    def recover(now: float) -> None:
        if now >= 30:
            api.objects.update(healthy.objects)

    states = roll_out(api, at=recover)

    assert states == ["jarvis-crdt 2/3 ready, jarvis-backend 3/3 ready; jarvis-crdt-1 ImagePullBackOff: no such image"]


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("ErrImageNeverPull", "harness.cluster image"),
        ("ImagePullBackOff", "harness.cluster image"),
        ("InvalidImageName", "image.repository"),
        ("CrashLoopBackOff", "kubectl logs jarvis-crdt-1 -n jarvis-system"),
    ],
)
def test_hopeless_reasons_end_the_wait_early_with_a_remedy(reason: str, remedy: str) -> None:
    with pytest.raises(RolloutError) as caught:
        roll_out(starting_api(reason), deadline_seconds=100_000)

    assert caught.value.message == f"jarvis-crdt-1 cannot start: {reason}"
    assert remedy in caught.value.remedy


def test_an_unschedulable_pod_ends_the_wait() -> None:
    api = starting_api("")
    api.objects["pods", NAMESPACE, "jarvis-crdt-1"]["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: cpu"}
    ]

    with pytest.raises(RolloutError, match="jarvis-crdt-1 cannot start: Unschedulable: 0/3 nodes: cpu"):
        roll_out(api, deadline_seconds=100_000)


def test_pods_of_the_revision_before_do_not_stop_their_own_replacement() -> None:
    api = starting_api("CrashLoopBackOff")
    api.objects["pods", NAMESPACE, "jarvis-crdt-1"]["metadata"]["labels"]["controller-revision-hash"] = "r0"

    with pytest.raises(WaitTimeoutError):
        roll_out(api, deadline_seconds=1000)


def test_pods_that_are_refused_are_explained_by_the_event() -> None:
    api = starting_api("")
    del api.objects["pods", NAMESPACE, "jarvis-crdt-1"]
    api.objects["statefulsets", NAMESPACE, "jarvis-crdt"]["status"]["updatedReplicas"] = 2
    api.put("events", NAMESPACE, "e", reason="FailedCreate", message="forbidden: exceeded quota")

    with pytest.raises(RolloutError, match=r"jarvis-crdt cannot start: FailedCreate: .*exceeded quota"):
        roll_out(api, deadline_seconds=1000)


def test_the_record_round_trips_and_keeps_its_id() -> None:
    kube = deployed_api().kube()
    record = read_record(kube, NAMESPACE)
    assert record is not None

    changed = change_phase(kube, NAMESPACE, record, "failed", "why")

    assert read_record(kube, NAMESPACE) == changed
    assert (changed.id, changed.phase, changed.message, changed.node_count) == ("jarvis-0123abcd", "failed", "why", 3)


def test_a_damaged_record_says_how_to_go_on() -> None:
    api = deployed_api()
    api.objects["configmaps", NAMESPACE, "jarvis-deployment"]["data"]["node_count"] = "several"

    with pytest.raises(Failure, match="is damaged") as caught:
        read_record(api.kube(), NAMESPACE)

    assert "kubectl delete configmap" in caught.value.remedy


@pytest.mark.parametrize(
    ("phase", "ready", "state"),
    [("ready", 3, "ready"), ("ready", 2, "progressing"), ("deploying", 3, "progressing"), ("failed", 3, "failed")],
)
def test_status_is_truthful(phase: str, ready: int, state: str) -> None:
    api = deployed_api()
    api.objects["configmaps", NAMESPACE, "jarvis-deployment"]["data"]["phase"] = phase
    api.objects["statefulsets", NAMESPACE, "jarvis-crdt"]["status"]["readyReplicas"] = ready
    record = read_record(api.kube(), NAMESPACE)
    assert record is not None

    status = read_status(api.kube(), NAMESPACE, record)

    assert (status.state, status.helm_revision, status.helm_status) == (state, 1, "deployed")
    assert [pod.name for pod in status.pods] == ["jarvis-crdt-0", "jarvis-crdt-1", "jarvis-crdt-2"]


def test_status_without_the_right_to_read_secrets_says_so() -> None:
    api = deployed_api()
    api.refused["/secrets"] = 403
    record = read_record(api.kube(), NAMESPACE)
    assert record is not None

    assert read_status(api.kube(), NAMESPACE, record).helm_revision is None


def test_a_fresh_pending_release_is_left_alone_and_an_old_one_is_cleared() -> None:
    api = deployed_api()
    put_helm_release(api, "pending-upgrade", modified_seconds=5000, revision=2)

    with pytest.raises(Failure, match="revision 2 of jarvis in jarvis-system is pending-upgrade since 100 s") as caught:
        clear_pending(api.kube(), NAMESPACE, 5100)
    assert "run this again in 200 s" in caught.value.remedy

    assert clear_pending(api.kube(), NAMESPACE, 5300)
    release = read_release(api.kube(), NAMESPACE)
    assert release is not None
    assert (release.revision, release.status) == (1, "deployed")
    assert not clear_pending(api.kube(), NAMESPACE, 9999)


def test_a_new_namespace_is_restricted_and_an_existing_one_keeps_its_labels() -> None:
    api = FakeApi()
    ensure_namespace(api.kube(), "new", lambda _text: None)
    labels = api.objects["namespaces", "", "new"]["metadata"]["labels"]
    assert labels == {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}

    api.put("namespaces", "", "old", metadata={"labels": {"pod-security.kubernetes.io/enforce": "baseline"}})
    changes = list(api.changes)
    ensure_namespace(api.kube(), "old", lambda _text: None)
    assert api.changes == changes


def test_a_namespace_on_its_way_out_is_not_used() -> None:
    api = FakeApi()
    api.put("namespaces", "", "going", status={"phase": "Terminating"})

    with pytest.raises(Failure, match="is being deleted"):
        ensure_namespace(api.kube(), "going", lambda _text: None)


def removable_api(created_by: str) -> FakeApi:
    api = deployed_api()
    api.put("namespaces", "", NAMESPACE, metadata={"annotations": {"jarvis/created-by": created_by}})
    for name in ("jarvis-cluster", "jarvis-encryption", "jarvis-api-keys", "jarvis-admin-token"):
        api.put("secrets", NAMESPACE, name)
    return api


def recorded(api: FakeApi) -> Record:
    record = read_record(api.kube(), NAMESPACE)
    assert record is not None
    return record


def test_removal_takes_everything_with_the_namespace_that_the_cli_made() -> None:
    api = removable_api("deployment-cli")

    removal = remove(api.kube(), FakeHelm(api), recorded(api), deadline_seconds=10, progress=lambda _text: None)

    assert removal.namespace_deleted
    left = {key for key in api.objects if key[1] == NAMESPACE or key[0] == "namespaces"}
    assert left == {("configmaps", NAMESPACE, "jarvis-deployment")}, "which goes with the namespace"


def test_removal_leaves_a_namespace_that_was_there_before() -> None:
    api = removable_api("somebody")

    removal = remove(api.kube(), FakeHelm(api), recorded(api), deadline_seconds=10, progress=lambda _text: None)

    assert not removal.namespace_deleted
    assert {key for key in api.objects if key[1] == NAMESPACE} == set()
    assert ("namespaces", "", NAMESPACE) in api.objects


def test_removal_leaves_secrets_that_somebody_else_made() -> None:
    api = removable_api("deployment-cli")
    values = {**defaults(), "security": {**defaults()["security"], "enable_rbac": False}}
    record = msgspec.structs.replace(recorded(api), secrets=" ".join(made_secrets(values)))

    removal = remove(api.kube(), FakeHelm(api), record, deadline_seconds=10, progress=lambda _text: None)

    assert "secrets/jarvis-encryption" in removal.note
    assert ("secrets", NAMESPACE, "jarvis-api-keys") in api.objects


@pytest.mark.parametrize(
    ("security", "made"),
    [
        ({}, set(SECRETS)),
        ({"enable_rbac": False}, set()),
        ({"secrets": {"source": "existing"}}, _OF_TLS),
        ({"secrets": {"source": "external"}, "certificates": {"source": "existing"}}, set(SECRETS) - _OF_TLS),
        ({"enable_rbac": False, "certificates": {"source": "cert_manager"}}, _OF_TLS),
        ({"secrets": {"names": {"cluster": "own"}}}, {"own", *SECRETS} - {"jarvis-cluster"}),
    ],
)
def test_a_cleanup_deletes_what_the_release_made(security: dict[str, Any], made: set[str], tmp_path: Path) -> None:
    path = tmp_path / "cluster-config.yaml"
    store = {"external": {"store_name": "vault"}} if "external" in str(security) else {}
    secrets = {**security.get("secrets", {}), **store}
    path.write_text(yaml.safe_dump({"security": {**security, **({"secrets": secrets} if secrets else {})}}))

    assert made == set(made_secrets(read_config(path).values))


def test_removal_leaves_a_namespace_with_guests() -> None:
    api = removable_api("deployment-cli")
    api.put("configmaps", NAMESPACE, "theirs")

    removal = remove(api.kube(), FakeHelm(api), recorded(api), deadline_seconds=10, progress=lambda _text: None)

    assert removal.note == "the namespace jarvis-system holds other objects and stays: configmaps/theirs"


def test_removal_that_does_not_end_times_out_and_keeps_the_record() -> None:
    api = removable_api("deployment-cli")
    labels = {"app.kubernetes.io/name": "jarvis", "app.kubernetes.io/instance": "jarvis"}
    api.put("services", NAMESPACE, "stuck", metadata={"labels": labels})
    clock = FakeClock()

    with pytest.raises(WaitTimeoutError, match="services/stuck still there"):
        remove(
            api.kube(),
            FakeHelm(api),
            recorded(api),
            deadline_seconds=10,
            progress=lambda _text: None,
            clock=clock,
            sleep=clock.sleep,
        )

    assert ("configmaps", NAMESPACE, "jarvis-deployment") in api.objects
