"""Rules that span keys; the schema holds those of one key. The chart's `_validate.tpl` has the same."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from harness.spec.quantity import read_quantity

Path = tuple[str | int, ...]
# Names that are left empty are made of the release's; the CLI has but one.
_RELEASE = "jarvis"


@dataclass(frozen=True, slots=True)
class Violation:
    """A value that another one does not allow.

    Attributes:
        path: The names and indices from the root to the key that is refused.
        bound: The same of the key that does not allow it.
        value: What stands at `path`.
        message: What is wrong.
        remedy: What to do about it.
    """

    path: Path
    bound: Path
    value: object
    message: str
    remedy: str


def judge(values: Mapping[str, Any]) -> Iterator[Violation]:
    """Yield every rule that these complete values, each valid by itself, break together."""
    for path, bound in _pairs(values):
        value, limit = _read(values, path), _read(values, bound)
        if read_quantity(value) > read_quantity(limit):
            raised = bound[-1] if bound[-1] not in path else ".".join(bound)
            message = f"above {'.'.join(bound)} ({limit})"
            yield Violation(path, bound, value, message, f"at most {limit}, or raise {raised}")
    yield from _judge_conflict_rules(values["crdt"], {plugin["name"] for plugin in values["plugins"]})
    yield from _judge_plugins(values["plugins"])
    yield from _judge_ingress(values["ingress"], values["security"])
    if values["gateway"]["enabled"] and not values["gateway"]["parent_refs"]:
        path, bound = ("gateway", "parent_refs"), ("gateway", "enabled")
        yield Violation(path, bound, [], "empty while gateway.enabled is true", "a Gateway, or set enabled: false")
    yield from _judge_notifications(values["notifications"], values["monitoring"])
    yield from _judge_secrets(values["security"])
    yield from _judge_certificates(values["security"]["certificates"])
    yield from _judge_monitoring(values["monitoring"])
    yield from _judge_backup(values["backup"])


def _judge_conflict_rules(crdt: Mapping[str, Any], plugins: Set[str]) -> Iterator[Violation]:
    path, mode = ("crdt", "conflict_rules"), crdt["conflict_resolution"]
    if crdt["conflict_rules"] and mode != "advanced":
        message, remedy = (
            f"given while crdt.conflict_resolution is {mode}",
            "none, or set conflict_resolution: advanced",
        )
        yield Violation(path, ("crdt", "conflict_resolution"), crdt["conflict_rules"], message, remedy)
    for index, rule in enumerate(crdt["conflict_rules"]):
        strategy, sources = rule["strategy"], rule.get("sources", [])
        place, bound = (*path, index, "sources"), (*path, index, "strategy")
        if strategy == "priority" and not sources:
            yield Violation(place, bound, sources, "empty while the strategy is priority", "1 to 100 nodes")
        elif strategy != "priority" and "." not in strategy and sources:
            message, remedy = f"given while the strategy is {strategy}", "none, or set strategy: priority"
            yield Violation(place, bound, sources, message, remedy)
        plugin, dot, _ = strategy.partition(".")
        if dot and plugin not in plugins:
            message, remedy = f"of the plugin {plugin}, which is not in plugins", f"add {plugin} to plugins"
            yield Violation(bound, ("plugins",), strategy, message, remedy)


def _judge_plugins(plugins: Sequence[Mapping[str, Any]]) -> Iterator[Violation]:
    first: dict[str, int] = {}
    for index, plugin in enumerate(plugins):
        name = plugin["name"]
        if first.setdefault(name, index) != index:
            place, bound = ("plugins", index, "name"), ("plugins", first[name], "name")
            yield Violation(place, bound, name, "the name of another plugin", "a name of its own")
        if plugin.get("source") and plugin.get("image"):
            place, bound = ("plugins", index, "image"), ("plugins", index, "source")
            yield Violation(place, bound, plugin["image"], "given beside source", "none, or remove source")


def _judge_ingress(ingress: Mapping[str, Any], security: Mapping[str, Any]) -> Iterator[Violation]:
    if not ingress["enabled"]:
        return
    if not ingress["hosts"]:
        hosts, bound = ("ingress", "hosts"), ("ingress", "enabled")
        yield Violation(hosts, bound, [], "empty while ingress.enabled is true", "a host, or set enabled: false")
    existing, issuer = ingress["tls"]["existing_secret"], ingress["tls"]["cluster_issuer"]
    secret = ("ingress", "tls", "existing_secret")
    if existing and issuer:
        place = ("ingress", "tls", "cluster_issuer")
        yield Violation(place, secret, issuer, f"given beside {'.'.join(secret)}", "none, or remove existing_secret")
    if not (security["enable_tls"] or existing or issuer):
        message = "empty while security.enable_tls is false"
        remedy = "a Secret or a cluster_issuer, or set enable_tls: true"
        yield Violation(secret, ("security", "enable_tls"), existing, message, remedy)


def _judge_notifications(notifications: Mapping[str, Any], monitoring: Mapping[str, Any]) -> Iterator[Violation]:
    needed = {"slack": ("existing_secret",), "email": ("to", "from", "smarthost"), "pagerduty": ("existing_secret",)}
    for name, keys in needed.items():
        receiver, switch = notifications[name], ("notifications", name, "enabled")
        if not receiver["enabled"]:
            continue
        if monitoring["stack"] != "bundled":
            message, remedy = "true while monitoring.stack is existing", "false; the cluster's own Alertmanager sends"
            yield Violation(switch, ("monitoring", "stack"), True, message, remedy)
        for key in ("prometheus_enabled", "alerting_enabled"):
            if not monitoring[key]:
                message = f"true while monitoring.{key} is false, so that nothing is sent"
                yield Violation(switch, ("monitoring", key), True, message, f"false, or set {key}: true")
        for key in keys:
            if not receiver[key]:
                place = ("notifications", name, key)
                yield Violation(place, switch, receiver[key], f"empty while {name} is enabled", "not empty")
    email, path = notifications["email"], ("notifications", "email")
    for key, other in (("existing_secret", "username"), ("username", "existing_secret")):
        if email[other] and not email[key]:
            message, remedy = f"empty beside {other}", f"not empty, or remove {other}"
            yield Violation((*path, key), (*path, other), email[key], message, remedy)


def _judge_secrets(security: Mapping[str, Any]) -> Iterator[Violation]:
    path = ("security", "secrets")
    source, store = security["secrets"]["source"], security["secrets"]["external"]["store_name"]
    if (source == "external") != bool(store):
        message = f"{'given' if store else 'empty'} while security.secrets.source is {source}"
        remedy = "none, or set source: external" if store else "the name of a store"
        yield Violation((*path, "external", "store_name"), (*path, "source"), store, message, remedy)
    first: dict[str, Path] = {
        f"{_RELEASE}-authority": ("security", "certificates", "source"),
        f"{_RELEASE}-ingress-tls": ("ingress", "tls"),
    }
    for of in ("secrets", "certificates"):
        for name, given in security[of]["names"].items():
            place = ("security", of, "names", name)
            secret = given or f"{_RELEASE}-{name.replace('_', '-')}{'-tls' if of == 'certificates' else ''}"
            if first.setdefault(secret, place) != place:
                # Only a name that is given is at fault.
                at, other = (place, first[secret]) if given else (first[secret], place)
                yield Violation(at, other, secret, f"the Secret of {'.'.join(map(str, other))}", "a Secret of its own")


def _judge_certificates(certificates: Mapping[str, Any]) -> Iterator[Violation]:
    path = ("security", "certificates")
    source, manager = certificates["source"], certificates["cert_manager"]
    if source != "cert_manager" and manager["issuer_name"]:
        message, remedy = f"given while {'.'.join(path)}.source is {source}", "none, or set source: cert_manager"
        place = (*path, "cert_manager", "issuer_name")
        yield Violation(place, (*path, "source"), manager["issuer_name"], message, remedy)
    before, duration = manager["renew_before_hours"], manager["duration_hours"]
    if before >= duration:
        place, bound = (*path, "cert_manager", "renew_before_hours"), (*path, "cert_manager", "duration_hours")
        yield Violation(place, bound, before, f"not below duration_hours ({duration})", f"at most {duration - 1}")
    for name, given in certificates["names"].items():
        if given and source == "self_signed":
            message = "given while the source is self_signed, which would write over that Secret"
            remedy = "none, or set source: existing or cert_manager"
            yield Violation((*path, "names", name), (*path, "source"), given, message, remedy)


def _judge_monitoring(monitoring: Mapping[str, Any]) -> Iterator[Violation]:
    if monitoring["stack"] == "bundled" and monitoring["grafana_enabled"] and not monitoring["prometheus_enabled"]:
        place, bound = ("monitoring", "grafana_enabled"), ("monitoring", "prometheus_enabled")
        message = "on while monitoring.prometheus_enabled is off: it would have nothing to show"
        yield Violation(place, bound, True, message, "turn both on or off, or set monitoring.stack: existing")


def _judge_backup(backup: Mapping[str, Any]) -> Iterator[Violation]:
    if not backup["enabled"] or backup["destination"] != "s3":
        return
    for key in ("endpoint", "bucket", "existing_secret"):
        if not backup["s3"][key]:
            place, bound = ("backup", "s3", key), ("backup", "destination")
            remedy = "not empty, or set destination: volume"
            yield Violation(place, bound, "", "empty while backup.destination is s3", remedy)


def _pairs(values: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yield the keys that must not be above another, and that other."""
    scaling = ("deployment", "auto_scaling")
    yield (*scaling, "min_replicas"), (*scaling, "max_replicas")
    yield ("crdt", "replication_factor"), ("infrastructure", "node_count")
    for resource in values["deployment"]["resource_limits"]:
        yield ("deployment", "resource_requests", resource), ("deployment", "resource_limits", resource)
    presets = [("instance_presets", size) for size in values["instance_presets"]]
    bundled = [("monitoring", name, "resources") for name in ("prometheus", "alertmanager", "grafana")]
    for path in (*bundled, *presets):
        for resource in _read(values, path)["limits"]:
            yield (*path, "requests", resource), (*path, "limits", resource)


def _read(values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = values
    for name in path:
        value = value[name]
    return value
