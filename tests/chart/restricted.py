"""Judges pods by Kubernetes' Pod Security Standard `restricted`, control by control, without a cluster.

Source: "Pod Security Standards" of Kubernetes' documentation. Controls of the profile `baseline` that `restricted`
makes stricter are there in their stricter form alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Node = dict[str, Any]
_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
}
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
}
_SELINUX_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop")
_EACH = "spec.CONTAINERS[*]"
_OF_POD_AND_EACH = ("spec.securityContext", f"{_EACH}.securityContext")


@dataclass(frozen=True)
class Control:
    """One control of the standard.

    Attributes:
        name: As the standard calls it.
        fields: What it looks at; `CONTAINERS` stands for containers of every kind.
        allows: Whether a value is allowed; None is a field that is not there.
        is_inherited: Whether the pod's field, which comes first, counts for containers that lack theirs.
    """

    name: str
    fields: tuple[str, ...]
    allows: Callable[[Any], bool]
    is_inherited: bool = False


def _is_off(value: Any) -> bool:
    return value in (None, False)


def _is_empty(value: Any) -> bool:
    return value in (None, "")


def _has_known_volume(volume: Node) -> bool:
    kinds = set(volume) - {"name"}
    return len(kinds) == 1 and kinds <= _VOLUMES


def _are_known_profiles(annotations: Any) -> bool:
    profiles = [value for name, value in (annotations or {}).items() if name.startswith(_APPARMOR)]
    return all(profile == "runtime/default" or profile.startswith("localhost/") for profile in profiles)


CONTROLS = (
    Control("HostProcess", tuple(f"{of}.windowsOptions.hostProcess" for of in _OF_POD_AND_EACH), _is_off),
    Control("Host Namespaces", ("spec.hostNetwork", "spec.hostPID", "spec.hostIPC"), _is_off),
    Control("Privileged Containers", (f"{_EACH}.securityContext.privileged",), _is_off),
    Control("Host Ports", (f"{_EACH}.ports[*].hostPort",), lambda value: value in (None, 0)),
    Control(
        "Host Probes and Lifecycle Hooks",
        tuple(f"{_EACH}.{probe}.{way}.host" for probe in _PROBES for way in ("httpGet", "tcpSocket")),
        _is_empty,
    ),
    Control(
        "AppArmor",
        tuple(f"{of}.appArmorProfile.type" for of in _OF_POD_AND_EACH),
        lambda value: value in (None, "RuntimeDefault", "Localhost"),
    ),
    Control("AppArmor annotations", ("metadata.annotations",), _are_known_profiles),
    Control("SELinux type", tuple(f"{of}.seLinuxOptions.type" for of in _OF_POD_AND_EACH), _SELINUX_TYPES.__contains__),
    Control(
        "SELinux user and role",
        tuple(f"{of}.seLinuxOptions.{field}" for of in _OF_POD_AND_EACH for field in ("user", "role")),
        _is_empty,
    ),
    Control("/proc Mount Type", (f"{_EACH}.securityContext.procMount",), lambda value: value in (None, "Default")),
    Control("Sysctls", ("spec.securityContext.sysctls[*].name",), _SYSCTLS.__contains__),
    Control("Volume Types", ("spec.volumes[*]",), _has_known_volume),
    Control(
        "Privilege Escalation", (f"{_EACH}.securityContext.allowPrivilegeEscalation",), lambda value: value is False
    ),
    Control(
        "Running as Non-root",
        tuple(f"{of}.runAsNonRoot" for of in _OF_POD_AND_EACH),
        lambda value: value is True,
        is_inherited=True,
    ),
    Control("Running as Non-root user", tuple(f"{of}.runAsUser" for of in _OF_POD_AND_EACH), lambda value: value != 0),
    Control(
        "Seccomp",
        tuple(f"{of}.seccompProfile.type" for of in _OF_POD_AND_EACH),
        lambda value: value in ("RuntimeDefault", "Localhost"),
        is_inherited=True,
    ),
    Control(
        "Capabilities to drop",
        (f"{_EACH}.securityContext.capabilities.drop",),
        lambda value: "ALL" in (value or []),
    ),
    Control(
        "Capabilities to add",
        (f"{_EACH}.securityContext.capabilities.add",),
        lambda value: set(value or []) <= {"NET_BIND_SERVICE"},
    ),
)


def judge(pod: Node) -> list[str]:
    """Return each violation of a pod or a template of pods as `CONTROL: FIELD`; none if it is restricted."""
    return [f"{control.name}: {place}" for control in CONTROLS for place in _violations(control, pod)]


def pods_of(body: Any) -> Iterator[Node]:
    """Yield every pod and template of pods in a manifest, whatever its kind is."""
    if isinstance(body, dict):
        if isinstance(body.get("spec"), dict) and "containers" in body["spec"]:
            yield body
        for value in body.values():
            yield from pods_of(value)
    elif isinstance(body, list):
        for value in body:
            yield from pods_of(value)


def _violations(control: Control, pod: Node) -> Iterator[str]:
    if not control.is_inherited:
        yield from (
            place for field in control.fields for place, value in _find(pod, field) if not control.allows(value)
        )
        return
    above, each = control.fields
    [(place, of_pod)] = _find(pod, above)
    if of_pod is not None and not control.allows(of_pod):
        yield place
    for place, value in _find(pod, each):
        if not control.allows(of_pod if value is None else value):
            yield place


def _find(node: Any, field: str, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each place of a field, and its value, or None where a mapping on the way to it is not there."""
    if not field:
        yield place.removeprefix("."), node
        return
    name, _, rest = field.partition(".")
    if name == "CONTAINERS[*]":
        for kind in ("initContainers", "containers", "ephemeralContainers"):
            yield from _find(node, f"{kind}[*].{rest}", place)
    elif name.endswith("[*]"):
        name = name.removesuffix("[*]")
        for index, item in enumerate((node or {}).get(name) or []):
            yield from _find(item, rest, f"{place}.{name}[{index}]")
    else:
        yield from _find((node or {}).get(name), rest, f"{place}.{name}")
