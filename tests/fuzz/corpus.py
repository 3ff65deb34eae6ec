"""Inputs to start from: what the law suite encodes, and one of each message."""

import base64
from datetime import datetime, timedelta, timezone

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from msgspec import inspect

from crdt_service.access.buckets import Usage
from crdt_service.access.key import KeyFile, encode_keys, new_key
from crdt_service.access.limit import Limit
from crdt_service.access.sharing import Field
from crdt_service.api.feed.cursor import Place, write_cursor
from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.document_version import read_version
from crdt_service.datatypes.receipts import encode_receipt
from crdt_service.datatypes.registry import DATATYPES, RECEIPTS
from crdt_service.datatypes.yjs_update import write_snapshot
from crdt_service.disk.mark import Copy, Mark, encode_copy
from crdt_service.wire import message
from crdt_service.wire.message import Delta, Step, encode_message, encode_step
from crdt_service.wire.record import encode_record
from tests.fuzz.target import DOCUMENT, TARGETS
from tests.unit.service.test_law import histories

EXAMPLES = 25


def make_corpus() -> list[bytes]:
    """Return the inputs, the same each time."""
    by_target: dict[str, set[bytes]] = {name: set() for name, _ in TARGETS}
    for datatype in DATATYPES:
        by_target[datatype.name] = _encodings(datatype)
    receipts = {}
    for number in range(3):
        op = encode_receipt(bytes([number]) * 16, bytes(8), number + 1)
        RECEIPTS.join(receipts, RECEIPTS.apply({}, {}, op, Origin("a~1", lambda number=number: number + 1)))
        by_target[RECEIPTS.name].add(RECEIPTS.encode(receipts))
    for encoding in by_target["document"]:
        entries = sorted(DOCUMENT.decode(encoding).owner.items())
        by_target["updates"].add(b"".join(len(data).to_bytes(2, "big") + data for _, (_, data) in entries))
        version = read_version(DOCUMENT.value(DOCUMENT.decode(encoding))["version"])
        by_target["version"].add(version.digest + write_snapshot(version.snapshot))
    deltas = [Delta("k", kind.tag, kind.version, max(by_target[kind.name])) for kind in DATATYPES]
    step = encode_step(Step(3, deltas, deltas, {"a~1": 7}, [5], "b~2"))
    by_target["step"].add(step)
    first = encode_record(step, 0)
    by_target["record"].add(first + encode_record(b"x", len(first)))
    cursor = write_cursor({name: Place(2**50, number) for number, name in enumerate(("node-0", "node-1"))})
    by_target["cursor"].add(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    for kinds, target in ((message.Received, "request"), (message.Reply, "reply"), (message.Handshake, "handshake")):
        by_target[target] = {encode_message(example(kind, deltas)) for kind in kinds.__args__}
    key, token = new_key(
        "name",
        "write",
        bytes,
        prefixes=("p/",),
        not_before=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        expires_at=datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=12))),
        rate_limit=Limit(1, 2),
    )
    by_target["api keys"] = {encode_keys(KeyFile((key,)))}
    by_target["token"] = {token.encode()}
    by_target["reports"] = {
        msgspec.json.encode({"a": Field(1, {"b": Usage(2, 1.5)}), "c": Field(1, {"b": Usage(2, 1.5)})})
    }
    by_target["mark"] = {encode_copy(Copy(3, Mark(1, 2**40, text))) for text in ("", "log-00000001 is damaged")}
    numbers = {name: bytes([number]) for number, (name, _) in enumerate(TARGETS)}
    return [numbers[name] + data for name, inputs in by_target.items() for data in sorted(inputs)]


def _encodings(datatype) -> set[bytes]:
    found: set[bytes] = set()

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(history=histories(datatype))
    def collect(history) -> None:
        states, deltas = history
        found.update(states, deltas)

    collect()
    return found


def example(kind: type[msgspec.Struct], deltas: list[Delta]) -> msgspec.Struct:
    """Return a message with something in each of its fields."""
    makers = {
        inspect.UnionType: lambda info: fill(
            next(each for each in info.types if not isinstance(each, inspect.NoneType))
        ),
        inspect.ListType: lambda info: [fill(info.item_type)],
        inspect.VarTupleType: lambda info: (fill(info.item_type),),
        inspect.TupleType: lambda info: tuple(map(fill, info.item_types)),
        inspect.StructType: lambda info: deltas[0] if info.cls is Delta else example(info.cls, deltas),
        inspect.BytesType: lambda info: bytes(info.min_length or 1),
        inspect.StrType: lambda _: "x",
        inspect.BoolType: lambda _: True,
        inspect.FloatType: lambda _: 1.5,
    }

    def fill(info: inspect.Type) -> object:
        return makers.get(type(info), lambda _: 1)(info)

    info = inspect.type_info(kind)
    return kind(*(fill(field.type) for field in info.fields))
