"""Mutual challenge and response over the cluster secret, before anything else on a connection.

This file is the seam for mutual TLS: what it returns, the other end's identity, is all that the rest relies on. The
listener proves itself first; HMAC-SHA256 covers both nonces, both ids and the role under a label per direction, so no
proof can be replayed or reflected.
"""

import asyncio
import hmac
import secrets
from dataclasses import dataclass

from crdt_service.kernel.error import AuthenticationError, MalformedError
from crdt_service.wire.frame import HANDSHAKE_BYTES_MAX, encode_frame, read_frame
from crdt_service.wire.message import (
    NONCE_BYTES,
    PROTOCOL,
    Challenge,
    Handshake,
    Hello,
    Proof,
    decode_handshake,
    encode_message,
)

NODE = "node"
BACKEND = "backend"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an end of a connection is; `replica` is empty for a backend."""

    role: str
    node_id: str
    replica: str


async def dial(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: bytes, identity: Identity
) -> Identity:
    """Authenticate as the dialling end; return the listening node.

    Raises:
        AuthenticationError: It does not hold the secret.
        MalformedError: It speaks something else.
    """
    hello = Hello(PROTOCOL, identity.role, identity.node_id, identity.replica, secrets.token_bytes(NONCE_BYTES))
    _send(writer, hello)
    challenge = await _receive(reader)
    if not isinstance(challenge, Challenge):
        raise MalformedError("handshake: no challenge")
    if not hmac.compare_digest(challenge.proof, _prove(secret, b"listener", hello, challenge)):
        raise AuthenticationError(f"node {challenge.node_id}")
    _send(writer, Proof(_prove(secret, b"dialler", hello, challenge)))
    return Identity(NODE, challenge.node_id, challenge.replica)


async def accept(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: bytes, identity: Identity
) -> Identity:
    """Authenticate as the listening node; return the dialling end.

    Raises:
        AuthenticationError: It does not hold the secret.
        MalformedError: It speaks something else.
    """
    hello = await _receive(reader)
    if not isinstance(hello, Hello) or hello.protocol != PROTOCOL or hello.role not in (NODE, BACKEND):
        raise MalformedError("handshake: no hello of this protocol")
    nonce = secrets.token_bytes(NONCE_BYTES)
    unproved = Challenge(identity.node_id, identity.replica, nonce, bytes(NONCE_BYTES))
    challenge = Challenge(identity.node_id, identity.replica, nonce, _prove(secret, b"listener", hello, unproved))
    _send(writer, challenge)
    proof = await _receive(reader)
    if not isinstance(proof, Proof) or not hmac.compare_digest(
        proof.proof, _prove(secret, b"dialler", hello, challenge)
    ):
        raise AuthenticationError(f"{hello.role} {hello.node_id}")
    return Identity(hello.role, hello.node_id, hello.replica)


def _prove(secret: bytes, label: bytes, hello: Hello, challenge: Challenge) -> bytes:
    listener = encode_message(Challenge(challenge.node_id, challenge.replica, challenge.nonce, bytes(NONCE_BYTES)))
    return hmac.digest(secret, label + b"\0" + encode_message(hello) + listener, "sha256")


def _send(writer: asyncio.StreamWriter, message: Handshake) -> None:
    writer.write(encode_frame(encode_message(message)))


async def _receive(reader: asyncio.StreamReader) -> Handshake:
    return decode_handshake(await read_frame(reader, HANDSHAKE_BYTES_MAX))
