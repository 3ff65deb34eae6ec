"""Every message between processes, with its tag, in one place.

A request carries an id and gets the reply of the same id, in any order. Strings and byte strings are bounded by the
frame; what they mean is checked by the rooms that use them.
"""

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from crdt_service.kernel.error import MalformedError

BUCKETS = 256
DIGEST_BYTES = 8
NONCE_BYTES = 32
PROTOCOL = 1

T = TypeVar("T")

Identifier = Annotated[str, Meta(max_length=128)]
Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Nonce = Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
RequestId = Annotated[int, Meta(ge=0, le=2**53)]


class Delta(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A state to join into one key; also the unit of the log."""

    key: str
    tag: int
    version: int
    state: bytes


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """First of a handshake, by the dialling end; `replica` is empty for a backend."""

    protocol: int
    role: Identifier
    node_id: Identifier
    replica: Identifier
    nonce: Nonce


class Challenge(msgspec.Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """Second, by the listening end, with its proof."""

    node_id: Identifier
    replica: Identifier
    nonce: Nonce
    proof: Nonce


class Proof(msgspec.Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """Third, by the dialling end."""

    proof: Nonce


class ReadRequest(msgspec.Struct, frozen=True, array_like=True, tag=10, forbid_unknown_fields=True):
    """Ask for a key's value."""

    id: RequestId
    key: str


class WriteRequest(msgspec.Struct, frozen=True, array_like=True, tag=11, forbid_unknown_fields=True):
    """Apply a JSON operation to a key."""

    id: RequestId
    key: str
    type_name: Identifier
    op: bytes


class ValueReply(msgspec.Struct, frozen=True, array_like=True, tag=12, forbid_unknown_fields=True):
    """A key's value as JSON; a missing key has an empty type."""

    id: RequestId
    type_name: Identifier
    value: bytes


class FailureReply(msgspec.Struct, frozen=True, array_like=True, tag=13, forbid_unknown_fields=True):
    """A refusal: the request surely changed nothing."""

    id: RequestId
    code: Identifier
    message: str
    remedy: str


class PushRequest(msgspec.Struct, frozen=True, array_like=True, tag=20, forbid_unknown_fields=True):
    """Durable deltas; `committed_at` is the origin's wall clock in seconds, 0 in repairs."""

    id: RequestId
    committed_at: float
    deltas: list[Delta]


class PushReply(msgspec.Struct, frozen=True, array_like=True, tag=21, forbid_unknown_fields=True):
    """The deltas are durable here too, less `refused` ones that break a rule."""

    id: RequestId
    refused: int


class RootRequest(msgspec.Struct, frozen=True, array_like=True, tag=30, forbid_unknown_fields=True):
    """First step of a repair: compare everything at once."""

    id: RequestId
    root: Digest


class RootReply(msgspec.Struct, frozen=True, array_like=True, tag=31, forbid_unknown_fields=True):
    """All bucket digests, or none if the roots are equal."""

    id: RequestId
    buckets: Annotated[list[Digest], Meta(max_length=BUCKETS)]


class BucketRequest(msgspec.Struct, frozen=True, array_like=True, tag=32, forbid_unknown_fields=True):
    """Second step: ask what the differing bucket holds."""

    id: RequestId
    bucket: Annotated[int, Meta(ge=0, lt=BUCKETS)]


class BucketReply(msgspec.Struct, frozen=True, array_like=True, tag=33, forbid_unknown_fields=True):
    """Name digest and state digest of each entry in the bucket."""

    id: RequestId
    entries: list[tuple[Digest, Digest]]


class FetchRequest(msgspec.Struct, frozen=True, array_like=True, tag=34, forbid_unknown_fields=True):
    """Third step: ask for the states behind name digests."""

    id: RequestId
    names: list[Digest]


class FetchReply(msgspec.Struct, frozen=True, array_like=True, tag=35, forbid_unknown_fields=True):
    """States of the first `served` names, as many as fit; the caller asks again for the rest."""

    id: RequestId
    served: int
    deltas: list[Delta]


Request = ReadRequest | WriteRequest | PushRequest | RootRequest | BucketRequest | FetchRequest
Reply = ValueReply | FailureReply | PushReply | RootReply | BucketReply | FetchReply
Handshake = Hello | Challenge | Proof

_encoder = msgspec.msgpack.Encoder()
_request: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_handshake: msgspec.msgpack.Decoder[Handshake] = msgspec.msgpack.Decoder(Handshake)
_batch: msgspec.msgpack.Decoder[list[Delta]] = msgspec.msgpack.Decoder(list[Delta])


def encode_message(message: Request | Reply | Handshake) -> bytes:
    """Return the bytes of a message."""
    return _encoder.encode(message)


def decode_request(data: bytes) -> Request:
    """Return the request in `data`.

    Raises:
        MalformedError: There is none.
    """
    return _decode(_request, data)


def decode_reply(data: bytes) -> Reply:
    """Return the reply in `data`.

    Raises:
        MalformedError: There is none.
    """
    return _decode(_reply, data)


def decode_handshake(data: bytes) -> Handshake:
    """Return the handshake message in `data`.

    Raises:
        MalformedError: There is none.
    """
    return _decode(_handshake, data)


def encode_batch(deltas: list[Delta]) -> bytes:
    """Return the log payload of one batch."""
    return _encoder.encode(deltas)


def decode_batch(data: bytes) -> list[Delta]:
    """Return the deltas of a log payload.

    Raises:
        MalformedError: It is none.
    """
    return _decode(_batch, data)


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"message: {error}") from error
