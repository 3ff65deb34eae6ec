"""Every pod that the chart makes is restricted; the judge of that refuses a bad pod for each field of each control."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.chart.conftest import Manifest, find_pods
from tests.chart.matrix import CASES
from tests.chart.restricted import CONTROLS, judge, pods_of

Rendered = Callable[[str], list[Manifest]]

_GOOD: Manifest = {
    "metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "localhost/own"}},
    "spec": {
        "hostNetwork": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
            "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}],
            "seLinuxOptions": {"type": "container_t", "level": "s0"},
            "appArmorProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [
            {"name": "a", "emptyDir": {}},
            {"name": "b", "projected": {"sources": []}},
            {"name": "c", "secret": {"secretName": "c"}},
        ],
        **{
            kind: [
                {
                    "name": kind.lower(),
                    "ports": [{"containerPort": 80, "hostPort": 0}],
                    "livenessProbe": {"httpGet": {"path": "/", "port": 80}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "privileged": False,
                        "procMount": "Default",
                        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
                    },
                }
            ]
            for kind in ("initContainers", "containers", "ephemeralContainers")
        },
    },
}
# What each control refuses, besides what is not there if it has to be.
_BAD: dict[str, list[Any]] = {
    "HostProcess": [True],
    "Host Namespaces": [True],
    "Privileged Containers": [True],
    "Host Ports": [8000],
    "Host Probes and Lifecycle Hooks": ["127.0.0.1", "example.com"],
    "AppArmor": ["Unconfined", ""],
    "AppArmor annotations": [{"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}],
    "SELinux type": ["spc_t"],
    "SELinux user and role": ["system_u"],
    "/proc Mount Type": ["Unmasked"],
    "Sysctls": ["kernel.msgmax", None],
    "Volume Types": [
        {"name": "a", kind: {}}
        for kind in ("hostPath", "nfs", "iscsi", "gcePersistentDisk", "awsElasticBlockStore", "flexVolume", "gitRepo")
    ],
    "Privilege Escalation": [True, None],
    "Running as Non-root": [False],
    "Running as Non-root user": [0],
    "Seccomp": ["Unconfined", ""],
    "Capabilities to drop": [None, [], ["NET_RAW"], ["all"]],
    "Capabilities to add": [["SYS_ADMIN"], ["NET_BIND_SERVICE", "CHOWN"], ["ALL"]],
}
_KINDS = ("initContainers", "containers", "ephemeralContainers")


def _set(pod: Manifest, field: str, value: Any) -> Manifest:
    """A copy of a pod with another value in the first place of a field."""
    pod = copy.deepcopy(pod)
    node: Any = pod
    *above, last = field.replace("[*]", ".0").split(".")
    for name, following in zip(above, [*above[1:], last], strict=True):
        if isinstance(node, dict) and name not in node:
            node[name] = [{}] if following == "0" else {}
        node = node[int(name)] if isinstance(node, list) else node[name]
    node[int(last) if isinstance(node, list) else last] = value
    return pod


def _cases() -> list[tuple[str, str, Any]]:
    return [
        (control.name, field.replace("CONTAINERS", kind), value)
        for control in CONTROLS
        for field in control.fields
        for kind in (_KINDS if "CONTAINERS" in field else ("",))
        for value in _BAD[control.name]
    ]


def test_a_good_pod_is_restricted():
    assert [] == judge(_GOOD)
    assert {control.name for control in CONTROLS} == set(_BAD)


@pytest.mark.parametrize(("control", "field", "value"), _cases())
def test_a_bad_pod_breaks_exactly_the_control_that_forbids_it(control: str, field: str, value: Any):
    broken = {violation.partition(": ")[0] for violation in judge(_set(_GOOD, field, value))}

    assert {control} == broken


@pytest.mark.parametrize(("field", "value"), [("runAsNonRoot", True), ("seccompProfile", {"type": "Localhost"})])
def test_what_the_pod_leaves_open_each_container_has_to_say(field: str, value: Any):
    pod = copy.deepcopy(_GOOD)
    del pod["spec"]["securityContext"][field]
    assert 3 == len(judge(pod))
    for kind in _KINDS:
        pod["spec"][kind][0]["securityContext"][field] = value
    assert [] == judge(pod)


def test_a_pod_that_says_nothing_is_not_restricted():
    broken = {violation.partition(": ")[0] for violation in judge({"spec": {"containers": [{"name": "a"}]}})}

    assert {"Privilege Escalation", "Running as Non-root", "Seccomp", "Capabilities to drop"} == broken


def test_every_template_of_pods_is_found():
    pod = {"spec": {"containers": []}}
    job = {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": pod}}}}

    assert [1, 1, 1] == [len([*pods_of(body)]) for body in ({"kind": "Pod", **pod}, job, [{"a": pod}])]


@pytest.mark.parametrize("name", CASES)
def test_pods_are_restricted_in_every_values_file_and_whatever_is_switched(rendered: Rendered, name: str):
    manifests = rendered(name)
    judged = [
        ((manifest["kind"], manifest["metadata"]["name"]), judge(pod))
        for manifest in manifests
        for pod in pods_of(manifest)
    ]

    assert [] == [(place, violations) for place, violations in judged if violations]
    assert len(find_pods(manifests)) == len(judged)
    assert {("StatefulSet", "jarvis-crdt"), ("Pod", "jarvis-test-health")} <= {place for place, _ in judged}
