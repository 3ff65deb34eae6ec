"""What is fuzzed: every decoder of bytes that others send or a disk keeps; each refuses or reads, and never fails.

An input is one byte that chooses the target, and the bytes for it.
"""

import base64
import zlib
from collections.abc import Callable
from hashlib import blake2b

import msgspec

from crdt_service.access.buckets import Buckets
from crdt_service.access.key import TOKEN_LENGTH, decode_keys, encode_keys, hash_token, is_token, read_id
from crdt_service.access.keyring import make_entry
from crdt_service.access.limit import Limit
from crdt_service.access.sharing import decode_fields
from crdt_service.api.feed.cursor import read_cursor, write_cursor
from crdt_service.datatypes.contract import Datatype, Origin
from crdt_service.datatypes.document import Document
from crdt_service.datatypes.live_document import client_of
from crdt_service.datatypes.registry import DATATYPES, RECEIPTS
from crdt_service.datatypes.yjs_update import read_update
from crdt_service.disk.mark import decode_copy, encode_copy
from crdt_service.kernel.error import ConfigError, MalformedError, OperationError
from crdt_service.wire.message import (
    decode_handshake,
    decode_received,
    decode_reply,
    decode_step,
    encode_message,
    encode_step,
)
from crdt_service.wire.record import RecordScan, encode_record

DOCUMENT = next(datatype for datatype in DATATYPES if isinstance(datatype, Document))
REPLICAS = ("a~1", "b~2", "c~3")
PART_BYTES = 64


def read_state(datatype: Datatype, data: bytes) -> None:
    try:
        state = datatype.decode(data)
    except MalformedError:
        return
    assert datatype.encode(state) == data
    assert datatype.encode(datatype.restore(data)) == data
    datatype.newest_stamp(state)
    whole = datatype.empty()
    for part in datatype.split(state, PART_BYTES):
        whole = datatype.join(whole, datatype.decode(datatype.encode(part)))
    assert datatype.encode(whole) == data
    show(datatype, state)
    assert datatype.encode(datatype.join(state, whole)) == data


def show(datatype: Datatype, state: object) -> None:
    try:
        datatype.value(state)
    except OperationError as error:
        assert error.code == "document_damaged"


_FIRST = b'{"append": {"text": "t", "value": "x"}}'


def edit_updates(data: bytes) -> None:
    """Read updates behind their lengths, as two bytes each, as entries of a document, and edit it."""
    state = DOCUMENT.empty()
    counters = dict.fromkeys(REPLICAS, 0)
    while len(data) > 2:
        size = int.from_bytes(data[:2], "big")
        update, data = data[2 : 2 + size], data[2 + size :]
        try:
            client = read_update(update).client
        except MalformedError:
            continue
        replica = next((name for name in REPLICAS if client_of(name) == client), REPLICAS[0])
        counters[replica] += 1
        dot = (replica, counters[replica])
        state.insert(dot, ((), update))
        state.context.add(dot)
        show(DOCUMENT, state)
    for op in (b'{"insert": {"text": "t", "at": 0, "value": "x"}}', b'{"clear": true}'):
        try:
            state = DOCUMENT.join(state, DOCUMENT.apply(state, DOCUMENT.empty(), op, Origin("d~4", lambda: 1)))
        except OperationError as error:
            assert error.code == "document_damaged"
    show(DOCUMENT, state)


def read_base(data: bytes) -> None:
    """Read a version without its checksum, and edit what it is a version of."""
    state = DOCUMENT.join(
        DOCUMENT.empty(), DOCUMENT.apply(DOCUMENT.empty(), DOCUMENT.empty(), _FIRST, Origin("a~1", int))
    )
    packed = blake2b(data, digest_size=4).digest() + zlib.compress(data)
    base = base64.urlsafe_b64encode(packed).rstrip(b"=").decode()
    op = msgspec.json.encode({"insert": {"text": "t", "at": 0, "value": "y", "base": base}})
    try:
        DOCUMENT.apply(state, DOCUMENT.empty(), op, Origin("d~4", int))
    except OperationError as error:
        assert error.code in {"invalid_base", "unknown_base", "invalid_operation"}


def read_message(decode: Callable, encode: Callable, data: bytes) -> None:
    try:
        message = decode(data)
    except MalformedError:
        return
    assert encode(decode(encode(message))) == encode(message)


def read_records(data: bytes) -> None:
    scan = RecordScan(lambda offset, size: data[offset : offset + size])
    offset = 0
    for kind, start, body in scan:
        record = encode_record(body, offset, kind)
        assert start == offset
        assert data[offset : offset + len(record)] == record
        offset += len(record)
    assert scan.offset_bytes == offset
    scan.is_torn()


def read_mark(data: bytes) -> None:
    for copy in (data, data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "big")):  # Few inputs pass the checksum.
        found = decode_copy(copy)
        assert found is None or encode_copy(found) == copy


def read_feed_cursor(data: bytes) -> None:
    text = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    try:
        places = read_cursor(text)
    except OperationError as error:
        assert error.code == "invalid_cursor"
        return
    assert write_cursor(places) == text


def read_keys(data: bytes) -> None:
    try:
        file = decode_keys(data, "file")
    except ConfigError:
        return
    assert decode_keys(encode_keys(file), "file") == file
    for key in file.keys:
        make_entry(key)


def read_token(data: bytes) -> None:
    assert is_token(data) <= (len(read_id(data)) == 16)
    assert hash_token(data) != hash_token(data + b"0") or len(data) > TOKEN_LENGTH


def read_reports(data: bytes) -> None:
    try:
        fields = decode_fields(data)
    except MalformedError:
        return
    buckets = Buckets()
    limit = Limit(1, 1)
    for _ in range(2):
        buckets.merge({name: field.callers for name, field in fields.items()}, 0.0)
        for field in fields.values():
            for caller in field.callers:
                buckets.take(caller, limit, 0.0)
    for field in fields.values():
        for caller in field.callers:
            assert buckets.take(caller, limit, 121.0).is_allowed
            break
        break


TARGETS: tuple[tuple[str, Callable[[bytes], None]], ...] = (
    *((kind.name, lambda data, kind=kind: read_state(kind, data)) for kind in (*DATATYPES, RECEIPTS)),
    ("updates", edit_updates),
    ("version", read_base),
    ("request", lambda data: read_message(decode_received, encode_message, data)),
    ("reply", lambda data: read_message(decode_reply, encode_message, data)),
    ("handshake", lambda data: read_message(decode_handshake, encode_message, data)),
    ("step", lambda data: read_message(decode_step, encode_step, data)),
    ("record", read_records),
    ("cursor", read_feed_cursor),
    ("api keys", read_keys),
    ("token", read_token),
    ("reports", read_reports),
    ("mark", read_mark),
)


def run(data: bytes) -> None:
    """Give an input to its target."""
    if data:
        TARGETS[data[0] % len(TARGETS)][1](data[1:])
