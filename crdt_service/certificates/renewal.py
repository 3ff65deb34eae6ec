"""Brings the cluster's Secrets with certificates up to date; begun again, it does only what is left to do."""

import contextlib
import datetime
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from crdt_service.certificates.issue import Pair, Wanted
from crdt_service.certificates.rotation import Authority, step_authority, step_certificate
from crdt_service.kernel.error import ConfigError
from crdt_service.net.kubernetes import CONFIG_MAP, SECRET, Kubernetes, Stored

CERTIFICATE, KEY, BUNDLE = "tls.crt", "tls.key", "ca.crt"
_FOLLOWING_CERTIFICATE, _FOLLOWING_KEY = "next.crt", "next.key"
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


@dataclass(frozen=True)
class Plan:
    """What there should be.

    Attributes:
        authority: Secret of the authority and its private key; no pod mounts it.
        bundle: ConfigMap with the certificates of the authorities that are trusted.
        certificates: Secrets by name.
    """

    authority: str
    bundle: str
    certificates: Mapping[str, Wanted]


def renew(kubernetes: Kubernetes, plan: Plan, now: datetime.datetime, report: Callable[[str], None]) -> None:
    """Create what is missing and renew what is due; what is fine is not touched.

    The authority comes first and the certificates last: what signs is stored before anything is signed by it.

    Raises:
        ServiceError: The API refuses, or somebody else changes the same objects; begin again then.
    """
    found = kubernetes.read(SECRET, plan.authority)
    authority = step_authority(_read_authority(found), now)
    _store(kubernetes, SECRET, plan.authority, found, _write_authority(authority), report=report)
    bundle = {BUNDLE: authority.bundle}
    _store(kubernetes, CONFIG_MAP, plan.bundle, kubernetes.read(CONFIG_MAP, plan.bundle), bundle, report=report)
    for name, wanted in plan.certificates.items():
        found = kubernetes.read(SECRET, name)
        pair = step_certificate(_read_pair(found, CERTIFICATE, KEY), authority, wanted, now)
        data = {CERTIFICATE: pair.certificate, KEY: pair.key, BUNDLE: authority.bundle}
        _store(kubernetes, SECRET, name, found, data, report=report)


def read_wanted(text: str, *, is_peer: bool) -> tuple[str, Wanted]:
    """Return the Secret's name and what its certificate is to say, of ``SECRET=NAME,NAME``.

    Raises:
        ConfigError: It is no such text.
    """
    secret, _, names = text.partition("=")
    wanted = tuple(names.split(","))
    if not _NAME.fullmatch(secret) or not all(_is_name(name) for name in wanted):
        raise ConfigError(f"{text}: no SECRET=NAME,NAME", "give DNS names or IP addresses without spaces")
    return secret, Wanted(wanted, is_peer)


def _is_name(name: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return _NAME.fullmatch(name) is not None


def _store(
    kubernetes: Kubernetes,
    kind: str,
    name: str,
    found: Stored | None,
    data: Mapping[str, bytes],
    *,
    report: Callable[[str], None],
) -> None:
    if found is not None and found.data == data:
        report(f"{kind}/{name} is up to date")
    elif found is None:
        kubernetes.create(kind, name, data)
        report(f"{kind}/{name} created")
    else:
        kubernetes.replace(kind, name, data, found.version)
        report(f"{kind}/{name} renewed")


def _read_pair(found: Stored | None, certificate: str, key: str) -> Pair | None:
    if found is None or certificate not in found.data or key not in found.data:
        return None
    return Pair(found.data[certificate], found.data[key])


def _read_authority(found: Stored | None) -> Authority | None:
    current = _read_pair(found, CERTIFICATE, KEY)
    if found is None or current is None:
        return None
    following = _read_pair(found, _FOLLOWING_CERTIFICATE, _FOLLOWING_KEY)
    return Authority(current, following, found.data.get(BUNDLE, b""))


def _write_authority(authority: Authority) -> dict[str, bytes]:
    data = {CERTIFICATE: authority.current.certificate, KEY: authority.current.key, BUNDLE: authority.bundle}
    if authority.following is not None:
        data |= {_FOLLOWING_CERTIFICATE: authority.following.certificate, _FOLLOWING_KEY: authority.following.key}
    return data
