"""Mutual challenge and response over the cluster secret, before anything else on a connection.

The listener proves itself first; HMAC-SHA256 covers both nonces, both ids and the role under a label per direction, so
no proof can be replayed or reflected. Over TLS the certificate must also name who the other end says it is.
"""

import hmac
import secrets
from dataclasses import dataclass

from crdt_service.kernel.error import AuthenticationError, CertificateError, MalformedError
from crdt_service.net.connection import Connection
from crdt_service.net.credentials import BACKEND_NAME, is_named
from crdt_service.wire.message import (
    NONCE_BYTES,
    PROTOCOL,
    PROTOCOL_BEFORE,
    Challenge,
    Hello,
    Proof,
    decode_handshake,
    encode_message,
)

NODE = "node"
BACKEND = "backend"
_PROTOCOLS = (PROTOCOL, PROTOCOL_BEFORE)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an end of a connection is, and what it speaks.

    Attributes:
        role: `NODE` or `BACKEND`.
        node_id: The node's name.
        replica: Names its data directory; empty for a backend.
        protocol: The version of the protocol that both ends speak.
    """

    role: str
    node_id: str
    replica: str
    protocol: int = PROTOCOL


async def dial(connection: Connection, secret: bytes, identity: Identity) -> Identity:
    """Authenticate as the dialling end, in the identity's protocol; return the listening node.

    Raises:
        AuthenticationError: It does not hold the secret.
        CertificateError: Its certificate names another, or it refused ours.
        MalformedError: It speaks something else.
    """
    hello = Hello(
        identity.protocol, identity.role, identity.node_id, identity.replica, secrets.token_bytes(NONCE_BYTES)
    )
    connection.send(encode_message(hello))
    try:
        challenge = decode_handshake(await connection.read_frame())
    except EOFError as error:  # In TLS 1.3 the dialler is done before the listener has seen its certificate.
        if connection.names is not None:
            raise CertificateError("the listener closed the connection: it may not trust this certificate") from error
        raise MalformedError("the listener closed the connection: it may speak only TLS") from error
    if not isinstance(challenge, Challenge):
        raise MalformedError("handshake: no challenge")
    other = Identity(NODE, challenge.node_id, challenge.replica, identity.protocol)
    _check_names(connection.names, other)
    if not hmac.compare_digest(challenge.proof, _prove(secret, b"listener", hello, challenge)):
        raise AuthenticationError(f"node {challenge.node_id}")
    connection.send(encode_message(Proof(_prove(secret, b"dialler", hello, challenge))))
    return other


async def accept(connection: Connection, secret: bytes, identity: Identity) -> Identity:
    """Authenticate as the listening node; return the dialling end.

    Raises:
        AuthenticationError: It does not hold the secret.
        CertificateError: Its certificate names another.
        MalformedError: It speaks something else.
        EOFError: It closed the connection.
    """
    hello = decode_handshake(await connection.read_frame())
    if not isinstance(hello, Hello) or hello.protocol not in _PROTOCOLS or hello.role not in (NODE, BACKEND):
        raise MalformedError("handshake: no hello of this protocol")
    other = Identity(hello.role, hello.node_id, hello.replica, hello.protocol)
    _check_names(connection.names, other)
    nonce = secrets.token_bytes(NONCE_BYTES)
    unproved = Challenge(identity.node_id, identity.replica, nonce, bytes(NONCE_BYTES))
    challenge = Challenge(identity.node_id, identity.replica, nonce, _prove(secret, b"listener", hello, unproved))
    connection.send(encode_message(challenge))
    proof = decode_handshake(await connection.read_frame())
    if not isinstance(proof, Proof) or not hmac.compare_digest(
        proof.proof, _prove(secret, b"dialler", hello, challenge)
    ):
        raise AuthenticationError(f"{hello.role} {hello.node_id}")
    return other


def _check_names(names: frozenset[str] | None, other: Identity) -> None:
    """Compare a claim with the certificate behind it; without TLS there is none.

    Raises:
        CertificateError: It names somebody else.
    """
    if names is None:
        return
    name = BACKEND_NAME if other.role == BACKEND else other.node_id
    # Were a node called like the backend, the backend's certificate would be a node's.
    is_reserved = other.role == NODE and name == BACKEND_NAME
    if is_reserved or "." in name or not is_named(names, name):
        raise CertificateError(f"{other.role} {other.node_id}: its certificate is for {sorted(names)}")


def _prove(secret: bytes, label: bytes, hello: Hello, challenge: Challenge) -> bytes:
    listener = encode_message(Challenge(challenge.node_id, challenge.replica, challenge.nonce, bytes(NONCE_BYTES)))
    return hmac.digest(secret, label + b"\0" + encode_message(hello) + listener, "sha256")
