"""Makes keys and X.509 certificates (RFC 5280): P-256, SHA-256, DNS names and addresses as alternative names."""

import datetime
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFETIME = datetime.timedelta(days=730)
LIFETIME = datetime.timedelta(days=90)
# Clocks of other machines may be behind.
_BACKDATED = datetime.timedelta(minutes=10)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def parse(self) -> x509.Certificate:
        """Return the certificate.

        Raises:
            ValueError: It is none.
        """
        return x509.load_pem_x509_certificate(self.certificate)


@dataclass(frozen=True)
class Wanted:
    """What a certificate is to say.

    Attributes:
        names: DNS names and IP addresses.
        is_peer: Whether it serves both ends of mutual TLS; otherwise it serves servers only, and no node takes it from
            a client.
    """

    names: tuple[str, ...]
    is_peer: bool


def make_authority(now: datetime.datetime) -> Pair:
    """Return a new authority, which signs itself and certificates of ends, none of other authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"jarvis authority {now:%Y-%m-%d}")])
    certificate = (
        _begin(name, name, key.public_key(), key.public_key(), now=now, lifetime=AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), _encode_key(key))


def issue(authority: Pair, wanted: Wanted, now: datetime.datetime) -> Pair:
    """Return a certificate of an authority, and its key."""
    signer = serialization.load_pem_private_key(authority.key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)  # noqa: S101 - we make no other.
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted.names[0][:64])])
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if wanted.is_peer else [])]
    issuer = authority.parse().subject
    certificate = (
        _begin(subject, issuer, key.public_key(), signer.public_key(), now=now, lifetime=LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in wanted.names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), _encode_key(key))


def is_whole(pair: Pair) -> bool:
    """Return whether both halves can be read and belong together."""
    try:
        return serialization.load_pem_private_key(pair.key, None).public_key() == pair.parse().public_key()
    except (ValueError, TypeError):
        return False


def serves(pair: Pair, authority: Pair, wanted: Wanted) -> bool:
    """Return whether a pair is whole, of this authority, and says what is wanted; its dates do not matter."""
    if not is_whole(pair):
        return False
    certificate = pair.parse()
    try:
        certificate.verify_directly_issued_by(authority.parse())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    is_peer = ExtendedKeyUsageOID.CLIENT_AUTH in purposes
    return [*names] == [_name(name) for name in wanted.names] and is_peer == wanted.is_peer


def is_due(certificate: x509.Certificate, now: datetime.datetime) -> bool:
    """Return whether less than a third of a certificate's lifetime is left."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return end - now < (end - begin) / 3


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    *,
    now: datetime.datetime,
    lifetime: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _encode_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
