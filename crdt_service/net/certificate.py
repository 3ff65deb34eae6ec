"""What is made of files, above all certificates: made again when they change, while old connections live on."""

import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from cryptography import x509

from crdt_service.kernel.error import ConfigError
from crdt_service.kernel.file_version import FileVersion, read_version

# Forward secrecy and authenticated encryption only; TLS 1.3 has nothing else.
TLS_1_2_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# What OpenSSL says of first bytes that are no TLS record.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Reloaded(Generic[_T]):
    """Something made of files.

    The files are looked at whenever it is asked for. Files that do not go together are logged once and change nothing:
    a rotation may be half done.

    Args:
        files: What it is made of.
        load: Makes it; raises ConfigError.
        what: What log lines call it, in the plural.

    Raises:
        ConfigError: The files cannot be used.
    """

    def __init__(self, files: tuple[Path, ...], load: Callable[[], _T], what: str = "certificates") -> None:
        self._files = files
        self._what = what
        self._load = load
        self._versions = self._read_versions()
        self._made = load()

    def get(self) -> _T:
        """Return what the newest usable files make."""
        versions = self._read_versions()
        if versions != self._versions:
            self._versions = versions
            try:
                self._made = self._load()
            except ConfigError as error:
                _log.error("new %s are not used, the old ones stay: %s", self._what, error)
            else:
                _log.info("new %s are in use", self._what)
        return self._made

    def _read_versions(self) -> list[FileVersion]:
        return [read_version(file) for file in self._files]


class ServerCertificate:
    """The certificate of an HTTPS server and its key, each a PEM file; clients need none.

    Args:
        certificate: The certificate, and after it those between it and its authority, if any.
        key: Its private key.
        now_seconds: The time since 1970, in seconds.

    Raises:
        ConfigError: The files cannot be used, or the certificate is not valid now.
    """

    def __init__(self, certificate: Path, key: Path, now_seconds: Callable[[], float] = time.time) -> None:
        self._certificate = certificate
        self._key = key
        self._now_seconds = now_seconds
        self._made = Reloaded((certificate, key), self._load)

    def listener(self) -> ssl.SSLContext:
        """Return the context for a connection that comes in."""
        return self._made.get()[0]

    def expiries(self) -> Mapping[str, float]:
        """Return until when the certificate in use is valid, in seconds since 1970."""
        return {"api": self._made.get()[1]}

    def _load(self) -> tuple[ssl.SSLContext, float]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(TLS_1_2_CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        files = f"--https-cert {self._certificate}, --https-key {self._key}"
        with blaming(files):
            context.load_cert_chain(self._certificate, self._key, password="")  # Rather than ask the terminal.
        [first, *_] = read_certificates(self._certificate, files)
        begin, end = first.not_valid_before_utc.timestamp(), first.not_valid_after_utc.timestamp()
        if not begin <= self._now_seconds() < end:
            raise ConfigError(
                f"{files}: valid from {first.not_valid_before_utc} to {first.not_valid_after_utc} only",
                "give a certificate that is valid now, or set the clock",
            )
        return context, end


def read_server_certificate(certificate: Path | None, key: Path | None) -> ServerCertificate | None:
    """Return the certificate in two files, or None if neither is given.

    Raises:
        ConfigError: One is given and the other is not, or they cannot be used.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("HTTPS needs both of --https-cert and --https-key", "give both, or neither for plain HTTP")
    return ServerCertificate(certificate, key)


def read_certificates(file: Path, blamed: str) -> list[x509.Certificate]:
    """Return the certificates in a PEM file, at least one.

    Raises:
        ConfigError: There is none; `blamed` names the file.
    """
    with blaming(blamed):
        data = file.read_bytes()
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise ConfigError(f"{blamed}: {error}", "give PEM files that belong together and are valid") from error


def explain(error: OSError) -> str:
    """Return what is wrong with certificates or a TLS handshake, without OpenSSL's source lines."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
        return "the other end speaks no TLS"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return error.strerror or "the other end closed the connection"


@contextlib.contextmanager
def blaming(files: str) -> Iterator[None]:
    """Tell which files are at fault.

    Raises:
        ConfigError: They cannot be read or used.
    """
    try:
        yield
    except OSError as error:  # An SSLError is one too.
        raise ConfigError(f"{files}: {explain(error)}", "give PEM files that belong together and are valid") from error
