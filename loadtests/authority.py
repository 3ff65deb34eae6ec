"""A certificate authority for clusters on loopback and for tests: keys and certificates as PEM files in a directory."""

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from crdt_service.certificates.issue import LIFETIME, Pair, Wanted, issue, make_authority

ROOT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "company root")])
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Files:
    """What a process is given."""

    certificate: Path
    key: Path
    authority: Path

    def arguments(self) -> list[str]:
        return ["--tls-cert", str(self.certificate), "--tls-key", str(self.key), "--tls-ca", str(self.authority)]


class Authority:
    """Signs certificates for DNS names and addresses; each that it issues serves both ends of a connection.

    Args:
        directory: Where its files are.
        is_intermediate: A company's root has signed it, of which nothing is in any file.
    """

    def __init__(self, directory: Path, *, is_intermediate: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._pair = make_authority(datetime.datetime.now(datetime.UTC))
        if is_intermediate:
            self._pair = _sign(self._pair)
        self.file = directory / "ca.crt"
        self.file.write_bytes(self._pair.certificate)

    def issue(self, *names: str, lifetime: datetime.timedelta = DAY) -> Files:
        """Write ``<first name>.crt`` and ``.key``, over older ones; a negative lifetime has passed already."""
        begin = datetime.datetime.now(datetime.UTC) + lifetime - LIFETIME
        pair = issue(self._pair, Wanted(names, is_peer=True), begin)
        files = Files(self._directory / f"{names[0]}.crt", self._directory / f"{names[0]}.key", self.file)
        files.key.touch(mode=0o600)
        files.key.write_bytes(pair.key)
        files.certificate.write_bytes(pair.certificate)
        return files


def _sign(authority: Pair) -> Pair:
    """Return the authority as one that a root has signed, instead of itself."""
    root = ec.generate_private_key(ec.SECP256R1())
    own = authority.parse()
    builder = x509.CertificateBuilder(
        issuer_name=ROOT,
        subject_name=own.subject,
        public_key=own.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=own.not_valid_before_utc,
        not_valid_after=own.not_valid_after_utc,
    )
    for extension in own.extensions:
        value = extension.value
        if isinstance(value, x509.AuthorityKeyIdentifier):
            value = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())
        builder = builder.add_extension(value, extension.critical)
    certificate = builder.sign(root, hashes.SHA256())
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), authority.key)
