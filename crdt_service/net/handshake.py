"""Mutual challenge and response over the cluster secret, before anything else on a connection.

The listener proves itself first; HMAC-SHA256 covers the cluster's name, both nonces, both ids and the role under a
label per direction, so no proof can be replayed or reflected, and no process of another cluster passes. Over TLS the
certificate must also name who the other end says it is.

The protocol before has no name of the cluster. Two processes of this release never speak it with each other: who falls
back to it says so in its nonce, as a server of TLS 1.3 does (RFC 8446, 4.1.3), and is refused by who need not.
"""

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from crdt_service.kernel.config import Secrets
from crdt_service.kernel.error import AuthenticationError, CertificateError, MalformedError, StrangerError
from crdt_service.kernel.ident import is_replica_of
from crdt_service.net.cluster import ClusterIdentity
from crdt_service.net.connection import Connection
from crdt_service.net.credentials import BACKEND_NAME, OPERATOR_NAME, is_named
from crdt_service.wire.message import (
    NONCE_BYTES,
    PROTOCOL,
    PROTOCOL_BEFORE,
    Challenge,
    Hello,
    Proof,
    decode_handshake,
    encode_handshake,
)

NODE = "node"
BACKEND = "backend"
_PROTOCOLS = (PROTOCOL, PROTOCOL_BEFORE)
_FELL_BACK = b"fellback"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an end of a connection is, and what it speaks.

    Attributes:
        role: `NODE` or `BACKEND`; an operator has that of a node.
        node_id: The node's name.
        replica: Names its data directory; empty for who has none, a backend or an operator.
        protocol: The version of the protocol that both ends speak.
    """

    role: str
    node_id: str
    replica: str
    protocol: int = PROTOCOL

    @property
    def is_member(self) -> bool:
        """Whether it holds data."""
        return self.role == NODE and bool(self.replica)

    @property
    def is_operator(self) -> bool:
        """Whether it works on a cluster that it is not part of."""
        return self.role == NODE and not self.replica


# Tells whether a process of the release before may still connect, by who it is.
AcceptsBefore = Callable[[Identity], bool]


async def dial(connection: Connection, cluster: ClusterIdentity, identity: Identity) -> Identity:
    """Authenticate as the dialling end, in the identity's protocol; return the listening node.

    Raises:
        StrangerError: It is of another cluster.
        AuthenticationError: It does not hold the secret.
        CertificateError: Its certificate names another, or it refused ours.
        MalformedError: It speaks something else, or contradicts itself.
    """
    is_before = identity.protocol == PROTOCOL_BEFORE
    name = "" if is_before else cluster.read_name()
    nonce = secrets.token_bytes(NONCE_BYTES - len(_FELL_BACK)) + _FELL_BACK if is_before else _draw_nonce()
    hello = Hello(identity.protocol, identity.role, identity.node_id, identity.replica, nonce, name)
    connection.send(encode_handshake(hello))
    try:
        challenge = decode_handshake(await connection.read_frame())
    except EOFError as error:  # In TLS 1.3 the dialler is done before the listener has seen its certificate.
        if connection.names is not None:
            raise CertificateError("the listener closed the connection: it may not trust this certificate") from error
        raise MalformedError("the listener closed the connection: it may speak only TLS") from error
    if not isinstance(challenge, Challenge):
        raise MalformedError("handshake: no challenge")
    other = Identity(NODE, challenge.node_id, challenge.replica, identity.protocol)
    if challenge.cluster != name and not (identity.is_operator and not name):
        raise StrangerError(f"node {other.node_id}", challenge.cluster, name)
    _check_claim(connection.names, other)
    secret = _find(_accepted(cluster.read_secrets(), is_before), b"listener", hello, challenge, challenge.proof)
    if secret is None:
        raise AuthenticationError(f"node {other.node_id}")
    # With the secret that the listener has just shown to hold, whichever it is while they are rotated.
    connection.send(encode_handshake(Proof(_prove(secret, b"dialler", hello, challenge))))
    return other


async def accept(
    connection: Connection, cluster: ClusterIdentity, identity: Identity, accepts_before: AcceptsBefore
) -> Identity:
    """Authenticate as the listening node; return the dialling end.

    Raises:
        StrangerError: It is of another cluster.
        AuthenticationError: It does not hold the secret.
        CertificateError: Its certificate names another.
        MalformedError: It speaks something else, or contradicts itself.
        EOFError: It closed the connection.
    """
    hello = decode_handshake(await connection.read_frame())
    if not isinstance(hello, Hello) or hello.protocol not in _PROTOCOLS or hello.role not in (NODE, BACKEND):
        raise MalformedError("handshake: no hello of this protocol")
    other = Identity(hello.role, hello.node_id, hello.replica, hello.protocol)
    _check_claim(connection.names, other)
    is_before = hello.protocol == PROTOCOL_BEFORE
    if is_before and hello.nonce.endswith(_FELL_BACK):
        raise MalformedError(f"{other.role} {other.node_id} fell back to protocol {PROTOCOL_BEFORE} without need")
    if is_before and not accepts_before(other):
        raise MalformedError(f"{other.role} {other.node_id} speaks protocol {PROTOCOL_BEFORE}, which is over here")
    name = "" if is_before else cluster.read_name()
    accepted = _accepted(cluster.read_secrets(), is_before)
    unproved = Challenge(identity.node_id, identity.replica, _draw_nonce(), bytes(NONCE_BYTES), name)
    proof = _prove(accepted[0], b"listener", hello, unproved)
    challenge = Challenge(identity.node_id, identity.replica, unproved.nonce, proof, name)
    connection.send(encode_handshake(challenge))
    # The dialler learns by the challenge why it is refused, so that it does not fall back.
    if hello.cluster != name and not (other.is_operator and not hello.cluster):
        raise StrangerError(f"{other.role} {other.node_id}", hello.cluster, name)
    answer = decode_handshake(await connection.read_frame())
    if not isinstance(answer, Proof) or _find(accepted, b"dialler", hello, challenge, answer.proof) is None:
        raise AuthenticationError(f"{other.role} {other.node_id}")
    return other


def _check_claim(names: frozenset[str] | None, other: Identity) -> None:
    """Compare who an end says it is with its directory, and with the certificate behind it; without TLS there is none.

    Raises:
        MalformedError: Its directory is another node's.
        CertificateError: The certificate names another.
    """
    if other.replica and not (other.is_member and is_replica_of(other.replica, other.node_id)):
        raise MalformedError(f"{other.role} {other.node_id} claims the directory {other.replica[:80]!r}")
    if names is None:
        return
    name = BACKEND_NAME if other.role == BACKEND else other.node_id
    # Were a node called like the backend, the backend's certificate would be a node's; so for that of operators.
    is_reserved = other.role == NODE and (name == BACKEND_NAME or (name == OPERATOR_NAME and other.is_member))
    if is_reserved or "." in name or not is_named(names, name):
        raise CertificateError(f"{other.role} {other.node_id}: its certificate is for {sorted(names)}")


def _draw_nonce() -> bytes:
    return secrets.token_bytes(NONCE_BYTES)


def _accepted(held: Secrets, is_before: bool) -> tuple[bytes, ...]:
    return (held.file,) if is_before else held.accepted


def _find(accepted: tuple[bytes, ...], label: bytes, hello: Hello, challenge: Challenge, proof: bytes) -> bytes | None:
    """Return the secret that a proof was made with, None if that is none of these."""
    for secret in accepted:
        if hmac.compare_digest(proof, _prove(secret, label, hello, challenge)):
            return secret
    return None


def _prove(secret: bytes, label: bytes, hello: Hello, challenge: Challenge) -> bytes:
    unproved = Challenge(challenge.node_id, challenge.replica, challenge.nonce, bytes(NONCE_BYTES), challenge.cluster)
    return hmac.digest(secret, label + b"\0" + encode_handshake(hello) + encode_handshake(unproved), "sha256")
