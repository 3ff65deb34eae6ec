"""Certificates for mutual TLS: read from files, read again when these change, and matched with who an end claims to be.

A node's certificate carries its node id as a DNS name, the backend's `BACKEND_NAME`; either alone or as the first
label of a longer name. Wildcards name nobody.
"""

import contextlib
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from crdt_service.kernel.error import CertificateError, ConfigError
from crdt_service.kernel.trust import trust_any
from crdt_service.net.certificate import TLS_1_2_CIPHERS, Reloaded, blaming, explain, read_certificates

BACKEND_NAME = "jarvis-backend"
OPERATOR_NAME = "operator"
# TLS 1.2 takes three turns of each end, TLS 1.3 two.
_TURNS_MAX = 4


class Credentials:
    """A certificate, its key and the authorities that all ends trust, each a PEM file, read again when they change.

    Args:
        certificate: The certificate of this end.
        key: Its private key.
        authority: One authority or more; during a rotation the old and the new one.
        name: What the certificate must carry.

    Raises:
        ConfigError: The files cannot be used.
    """

    def __init__(self, certificate: Path, key: Path, authority: Path, name: str) -> None:
        self._files = (certificate, key, authority)
        self._name = name
        self._made = Reloaded(self._files, self._load)

    def listener(self) -> ssl.SSLContext:
        """Return the context for a connection that comes in."""
        return self._made.get().listener

    def dialler(self) -> ssl.SSLContext:
        """Return the context for a connection that goes out."""
        return self._made.get().dialler

    def expiries(self) -> Mapping[str, float]:
        """Return until when what is in use is valid, in seconds since 1970; of several authorities the last."""
        return self._made.get().expiries

    def _load(self) -> "_Made":
        """Return contexts that have shaken hands with each other.

        Raises:
            ConfigError: The files cannot be used.
        """
        certificate, key, authority = self._files
        contexts = []
        for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
            context = ssl.SSLContext(protocol)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(TLS_1_2_CIPHERS)
            context.check_hostname = False  # Addresses say nothing; `is_named` is asked about the claimed id instead.
            context.verify_mode = ssl.CERT_REQUIRED
            with blaming(f"--tls-ca {authority}"):
                context.load_verify_locations(authority)
            trust_any(context)
            with blaming(f"--tls-cert {certificate}, --tls-key {key}"):
                context.load_cert_chain(certificate, key, password="")  # Rather than ask the terminal.
            contexts.append(context)
        listener, dialler = contexts
        listener.num_tickets = 0  # Nobody resumes.
        with blaming(f"--tls-cert {certificate}, --tls-ca {authority}"):
            names = _shake(listener, dialler)
        if not is_named(names, self._name):
            raise ConfigError(
                f"--tls-cert {certificate}: none of its DNS names {sorted(names)} is {self._name}",
                f"give a certificate with {self._name}, alone or as first label, among its subject alternative names",
            )
        [own, *_] = read_certificates(certificate, f"--tls-cert {certificate}")
        trusted = read_certificates(authority, f"--tls-ca {authority}")
        expiries = {
            "peer": own.not_valid_after_utc.timestamp(),
            "authority": max(each.not_valid_after_utc.timestamp() for each in trusted),
        }
        return _Made(listener, dialler, expiries)


class _Made(NamedTuple):
    listener: ssl.SSLContext
    dialler: ssl.SSLContext
    expiries: Mapping[str, float]


def read_credentials(
    certificate: Path | None, key: Path | None, authority: Path | None, name: str
) -> Credentials | None:
    """Return the credentials in three files, or None if none is given; `name` is what the certificate must carry.

    Raises:
        ConfigError: Some are given and some not, or they cannot be used.
    """
    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None or authority is None:
        raise ConfigError("TLS needs all of --tls-cert, --tls-key and --tls-ca", "give all three, or none for no TLS")
    return Credentials(certificate, key, authority, name)


def is_named(names: frozenset[str], name: str) -> bool:
    """Tell whether a certificate with these DNS names lets its holder be `name`."""
    return any(each == name or (each.startswith(f"{name}.") and "*" not in each) for each in names)


def dns_names(certificate: object) -> frozenset[str]:
    """Return the DNS names in what `getpeercert` returned."""
    fields = certificate.get("subjectAltName", ()) if isinstance(certificate, dict) else ()
    return frozenset(value for kind, value in fields if kind == "DNS")


@contextlib.contextmanager
def shaking_hands() -> Iterator[None]:
    """Tell why a TLS handshake failed.

    Raises:
        CertificateError: The other end refused, is not to be trusted, or speaks no TLS.
    """
    try:
        yield
    except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError) as error:
        raise CertificateError(f"TLS handshake: {explain(error)}") from error


def _shake(listener: ssl.SSLContext, dialler: ssl.SSLContext) -> frozenset[str]:
    """Let both ends of one process meet in memory, as two processes with these files would; return the names.

    Raises:
        ssl.SSLError: They would refuse each other.
    """
    to_listener, to_dialler = ssl.MemoryBIO(), ssl.MemoryBIO()
    first = dialler.wrap_bio(to_dialler, to_listener)
    second = listener.wrap_bio(to_listener, to_dialler, server_side=True)
    for _ in range(_TURNS_MAX):
        for end in (first, second):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return dns_names(second.getpeercert())
