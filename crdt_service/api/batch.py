"""``POST /v1/batch/write`` and ``POST /v1/batch/read``: many keys in one request."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from crdt_service.access.principal import Principal
from crdt_service.api.call import Call, Response, show
from crdt_service.api.errors import status_of, view_error
from crdt_service.api.keys import CONCERN, IDEMPOTENCY_KEY, NODE, TYPE, TYPE_LENGTH_MAX, check_named, view
from crdt_service.api.many import Outcome
from crdt_service.api.parameter import flag
from crdt_service.api.passing import pass_outcomes
from crdt_service.api.route import Access, Route
from crdt_service.api.router import Router
from crdt_service.kernel.error import OperationError, ServiceError
from crdt_service.plugins.caller import Caller, describe_caller
from crdt_service.plugins.host import DELETION, Plugins
from crdt_service.plugins.message import Write as PluginWrite
from crdt_service.resolution.explanation import ConflictSummary
from crdt_service.wire.message import ITEMS_MAX, WriteItem

_BODY_BYTES_MAX = 4 << 20
_ETAG = r"^[0-9a-f]{16}$|^$"


class BatchWrite(msgspec.Struct, forbid_unknown_fields=True):
    """One write of a batch.

    Attributes:
        key: The key.
        type: Its type; left out to delete the key.
        op: One of the type's operations; left out to delete the key.
        if_match: Write only if the key's ETag is this, without its quotes; only if the key is missing if it is empty.
    """

    key: str
    type: str | UnsetType = UNSET
    op: msgspec.Raw | UnsetType = UNSET
    if_match: Annotated[str, Meta(pattern=_ETAG)] | UnsetType = UNSET


class WriteBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Writes that do not depend on each other; those of one key are applied in their order."""

    writes: Annotated[list[BatchWrite], Meta(min_length=1, max_length=ITEMS_MAX)]


class ReadBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Keys to be read."""

    keys: Annotated[list[str], Meta(min_length=1, max_length=ITEMS_MAX)]


class ErrorView(msgspec.Struct):
    """Why an item was refused."""

    code: str
    message: str
    remedy: str


class ItemView(msgspec.Struct):
    """What became of an item: what it alone would have been answered.

    Attributes:
        status: The HTTP status.
        key: Its key.
        type: The key's type.
        node: The node that answered.
        value: What the key holds, where it was asked for.
        conflict: How concurrent writes were decided, where there were any.
        etag: Of what the key holds, where that was read.
        replayed: Whether a write had been applied before, and was not again.
        error: Why it was refused.
    """

    status: int
    key: str
    type: str | UnsetType = UNSET
    node: str | UnsetType = UNSET
    value: msgspec.Raw | UnsetType = UNSET
    conflict: ConflictSummary | UnsetType = UNSET
    etag: str | UnsetType = UNSET
    replayed: bool | UnsetType = UNSET
    error: ErrorView | UnsetType = UNSET


class BatchView(msgspec.Struct):
    """What became of each item, in their order."""

    results: list[ItemView]


_writes = msgspec.json.Decoder(WriteBatch)
_reads = msgspec.json.Decoder(ReadBatch)


class Batches:
    """The operations on many keys."""

    def __init__(self, router: Router, plugins: Plugins) -> None:
        self._router = router
        self._plugins = plugins

    def routes(self) -> list[Route]:
        """Return what is served."""
        refused = ("invalid_body", "invalid_key", "invalid_operation", "body_too_large", "unsupported_encoding")
        value = flag("value", False, "whether to answer with the values after the writes")
        return [
            Route(
                "POST",
                "/v1/batch/write",
                "write_batch",
                Access.WRITE,
                "Apply operations to many keys; each succeeds or fails by itself.",
                self.write,
                (CONCERN, NODE, TYPE, value, IDEMPOTENCY_KEY),
                body=WriteBatch,
                body_bytes_max=_BODY_BYTES_MAX,
                result=BatchView,
                errors=("plugin_unavailable", *refused),
            ),
            Route(
                "POST",
                "/v1/batch/read",
                "read_batch",
                Access.READ,
                "Read many keys.",
                self.read,
                (CONCERN, NODE, TYPE),
                body=ReadBatch,
                result=BatchView,
                errors=("plugin_unavailable", *refused),
            ),
        ]

    async def write(self, call: Call) -> Response:
        """Answer with what became of each write once it is as durable as asked.

        Raises:
            ServiceError: The batch itself is malformed, or a plugin is needed and not there; nothing was done.
        """
        batch: WriteBatch = call.decode_body(
            _writes, '{"writes": [{"key": "visits", "type": "pn_counter", "op": {"increment": 3}}]}'
        )
        values = call.values
        items = [_read_write(call.principal, place, write, values["type"]) for place, write in enumerate(batch.writes)]
        call.charge(len(items) - 1)
        refused = await self._pass_writes(items, describe_caller(call.principal)) if self._plugins.passes_writes else {}
        admitted = [item for place, item in enumerate(items) if place not in refused]
        done = iter(
            await self._router.write_many(
                admitted,
                values["node"],
                concern=values["concern"],
                is_read=values["value"],
                idempotency_key=call.idempotency_key,
                type_name=values["type"],
                hold=call.hold,
            )
        )
        keys = [write.key for write in batch.writes]
        outcomes = [refused[place] if place in refused else next(done) for place in range(len(items))]
        return _show(keys, await pass_outcomes(self._plugins, keys, outcomes, is_done=True))

    async def read(self, call: Call) -> Response:
        """Answer with each key's value.

        Raises:
            ServiceError: The batch itself is malformed.
        """
        batch: ReadBatch = call.decode_body(_reads, '{"keys": ["visits"]}')
        for key in batch.keys:
            call.principal.check(key)
        call.charge(len(batch.keys) - 1)
        values = call.values
        outcomes = await self._router.read_many(
            batch.keys, values["node"], values["concern"], values["type"], hold=call.hold
        )
        return _show(batch.keys, await pass_outcomes(self._plugins, batch.keys, outcomes))

    async def _pass_writes(self, items: list[WriteItem], caller: Caller) -> dict[int, ServiceError]:
        """Put what plugins make of the writes in their places; return those that they refuse."""
        writes = [PluginWrite(item.key, item.type_name, DELETION if item.is_delete else item.op) for item in items]
        refused: dict[int, ServiceError] = {}
        for place, passed in enumerate(await self._plugins.pass_writes(writes, caller)):
            if isinstance(passed, ServiceError):
                refused[place] = passed
            elif not items[place].is_delete:
                items[place] = replace(items[place], op=passed.op)
        return refused


def _read_write(principal: Principal, place: int, write: BatchWrite, named: str) -> WriteItem:
    key = principal.check(write.key)
    if_match = None if write.if_match is UNSET else bytes.fromhex(write.if_match)
    if write.type is UNSET and write.op is UNSET:
        return WriteItem(key, named, b"", if_match, is_delete=True)
    if write.type is UNSET or write.op is UNSET:
        raise OperationError(f"writes[{place}]: a type and an op go together", "give both, or none of them to delete")
    type_name = write.type[:TYPE_LENGTH_MAX]
    check_named(type_name, named)
    return WriteItem(key, type_name, bytes(write.op), if_match)


def _show(keys: list[str], outcomes: list[Outcome]) -> Response:
    return show({"results": [_show_item(key, outcome) for key, outcome in zip(keys, outcomes, strict=True)]})


def _show_item(key: str, outcome: Outcome) -> dict[str, Any]:
    if not isinstance(outcome, ServiceError):
        node_id, reply = outcome
        if reply.type_name:
            answer = {"status": 200, **view(key, node_id, reply)}
            if reply.digest:
                answer["etag"] = reply.digest.hex()
            if reply.is_replay:
                answer["replayed"] = True
            return answer
        outcome = ServiceError("not_found", f"no key {key!r}", "write it first")
    return {"status": status_of(outcome), "key": key, "error": view_error(outcome)}
