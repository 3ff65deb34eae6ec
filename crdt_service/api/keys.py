"""``/v1/keys/{key}``: reading, writing and deleting one key."""

from typing import Any

import msgspec

from crdt_service.api.call import Call, Response, show
from crdt_service.api.many import Allowance
from crdt_service.api.parameter import ANY_ETAG, choice, etag, etags, flag, header, marker, name, show_etag, text
from crdt_service.api.passing import pass_answer
from crdt_service.api.route import Access, Route
from crdt_service.api.router import Router
from crdt_service.datatypes.registry import DATATYPES
from crdt_service.kernel.error import OperationError, ServiceError
from crdt_service.kernel.ident import check_key
from crdt_service.plugins.caller import describe_caller
from crdt_service.plugins.host import DELETION, Plugins
from crdt_service.resolution.explanation import ConflictSummary
from crdt_service.wire.message import Concern, ValueReply

PATH = "/v1/keys/{key}"
# Longer than any type's name, and enough of a wrong one to say which it was.
TYPE_LENGTH_MAX = 128
_CONCERNS = {concern.name.lower(): concern for concern in Concern}
CONCERN = choice("concern", _CONCERNS, "one", "how many of the key's owners must have it, or are asked")
NODE = text("node", 63, "ask this node alone")
TYPE = name(
    "type",
    (datatype.name for datatype in DATATYPES),
    "of a key that holds several types the one to read, write or delete; without, it is the one that `type` shows,"
    " and a deletion is of all",
)
IF_MATCH = etag("if-match", "do it only if the key holds what this ETag stands for")
MUST_BE_MISSING = marker("if-none-match", "*", b"", "with `*`, do it only if the key is missing")
IF_NONE_MATCH = etags("if-none-match", "answer 304 without a value if the key holds what one of these stands for")
IDEMPOTENCY_KEY = header(
    "idempotency-key", 128, "names this write of this key: sent again under the same, it has no second effect"
)


class Write(msgspec.Struct, forbid_unknown_fields=True):
    """An operation on a key.

    Attributes:
        type: The key's type, as of its first write.
        op: One of the type's operations.
    """

    type: str
    op: msgspec.Raw


class KeyView(msgspec.Struct, omit_defaults=True):
    """A key as one node has it.

    Attributes:
        key: Its name.
        type: Its type, or the one of its types that was asked for.
        node: The node that answered.
        value: What it holds; left out of a deletion, and of a write that asked for no value.
        conflict: How concurrent writes were decided, where there were any, and which other types the key holds.
    """

    key: str
    type: str
    node: str
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    conflict: ConflictSummary | msgspec.UnsetType = msgspec.UNSET


_write = msgspec.json.Decoder(Write)


class Keys:
    """The operations on one key."""

    def __init__(self, router: Router, plugins: Plugins) -> None:
        self._router = router
        self._plugins = plugins

    def routes(self) -> list[Route]:
        """Return what is served."""
        refused = ("too_few_owners", "syncing", "behind", "node_unreachable", "no_node", "malformed")
        changed = ("concern_not_met", "stopping", "overloaded", "storage_full", *refused)
        explain = flag("explain", False, "with `concern=one`, also say how each conflict was decided")
        value = flag(
            "value", True, "whether to answer with the value after the write; without is cheaper for large ones"
        )
        return [
            Route(
                "GET",
                PATH,
                "read_key",
                Access.READ,
                "Read a key.",
                self.read,
                (CONCERN, NODE, TYPE, explain, IF_NONE_MATCH),
                result=KeyView,
                errors=("invalid_key", "not_found", "plugin_unavailable", *refused),
            ),
            Route(
                "POST",
                PATH,
                "write_key",
                Access.WRITE,
                "Apply an operation to a key, and make the key if there is none.",
                self.write,
                (CONCERN, NODE, TYPE, value, IF_MATCH, MUST_BE_MISSING, IDEMPOTENCY_KEY),
                body=Write,
                result=KeyView,
                errors=(
                    "invalid_body",
                    "invalid_key",
                    "invalid_operation",
                    "plugin_refused",
                    "plugin_unavailable",
                    "unknown_type",
                    "type_conflict",
                    "illegal_transition",
                    "already_created",
                    "limit_exceeded",
                    "too_many_origins",
                    "precondition_failed",
                    "idempotency_mismatch",
                    "body_too_large",
                    "unsupported_encoding",
                    "id_collision",
                    "invalid_base",
                    "unknown_base",
                    "base_too_old",
                    "outcome_unknown",
                    *changed,
                ),
            ),
            Route(
                "DELETE",
                PATH,
                "delete_key",
                Access.WRITE,
                "Empty a key, which then reads as missing.",
                self.delete,
                (CONCERN, NODE, TYPE, IF_MATCH, IDEMPOTENCY_KEY),
                result=KeyView,
                errors=(
                    "invalid_key",
                    "not_found",
                    "not_deletable",
                    "plugin_refused",
                    "plugin_unavailable",
                    "precondition_failed",
                    "idempotency_mismatch",
                    "outcome_unknown",
                    *changed,
                ),
            ),
        ]

    async def read(self, call: Call) -> Response:
        """Answer with the value.

        Raises:
            ServiceError: The key is missing, or cannot be read now.
        """
        key, values = check_key(call.rest), call.values
        if values["explain"]:
            if values["concern"] is not Concern.ONE:
                raise OperationError(
                    "only a read of one node can be explained", "read the key with ?explain=true alone", "invalid_query"
                )
            answer = await self._router.explain(key, values["node"], values["type"])
        else:
            answer = await self._router.read(key, values["node"], values["concern"], values["type"])
        reply = answer[1]
        call.hold(len(reply.value) + len(reply.conflict))
        if not reply.type_name:
            raise ServiceError("not_found", f"no key {key!r}", "write it first")
        if reply.digest and not values["if-none-match"].isdisjoint((reply.digest, ANY_ETAG)):
            return Response(304, headers=[(b"etag", show_etag(reply.digest))])
        return _show(key, *await pass_answer(self._plugins, key, answer))

    async def write(self, call: Call) -> Response:
        """Answer once the operation is as durable as asked.

        Raises:
            ServiceError: It was refused, or its outcome is not known.
        """
        key, values = check_key(call.rest), call.values
        write: Write = call.decode_body(_write, '{"type": "pn_counter", "op": {"increment": 3}}')
        type_name, op = write.type[:TYPE_LENGTH_MAX], bytes(write.op)
        check_named(type_name, values["type"])
        if self._plugins.passes_writes:
            op = await self._plugins.pass_write(key, type_name, op, describe_caller(call.principal))
        answer = await self._router.write(
            key,
            type_name,
            op,
            values["node"],
            concern=values["concern"],
            is_read=values["value"],
            if_match=_condition(values),
            idempotency_key=call.idempotency_key,
            is_named=bool(values["type"]),
        )
        answer = answer[0], Allowance(call.hold).strip(answer[1])
        return _show(key, *await pass_answer(self._plugins, key, answer, is_done=True))

    async def delete(self, call: Call) -> Response:
        """Answer once the key is emptied as durably as asked.

        Raises:
            ServiceError: It was refused, or there is no such key.
        """
        key, values = check_key(call.rest), call.values
        if self._plugins.passes_writes:
            await self._plugins.pass_write(key, "", DELETION, describe_caller(call.principal))
        answer = await self._router.delete(
            key,
            values["node"],
            values["concern"],
            if_match=values["if-match"],
            idempotency_key=call.idempotency_key,
            type_name=values["type"],
        )
        if not answer[1].type_name:
            raise ServiceError("not_found", f"no key {key!r}", "it is deleted already, or was never written")
        return _show(key, *answer)


def check_named(type_name: str, named: str) -> None:
    """Refuse a write to another type than the one that the query names; it names none if it is empty.

    Raises:
        OperationError: It is to another.
    """
    if named not in ("", type_name):
        raise OperationError(
            f"the write is to a {type_name}, and ?type= names {named}",
            "name the same, or leave ?type= out",
            "invalid_query",
        )


def view(key: str, node_id: str, reply: ValueReply) -> dict[str, Any]:
    """Return a `KeyView` of a reply."""
    answer: dict[str, Any] = {"key": key, "type": reply.type_name, "node": node_id}
    if reply.value:
        answer["value"] = msgspec.Raw(reply.value)
    if reply.conflict:
        answer["conflict"] = msgspec.Raw(reply.conflict)
    return answer


def _show(key: str, node_id: str, reply: ValueReply) -> Response:
    response = show(view(key, node_id, reply))
    if reply.digest:
        response.headers.append((b"etag", show_etag(reply.digest)))
    if reply.is_replay:
        response.headers.append((b"idempotency-replayed", b"true"))
    return response


def _condition(values: dict[str, Any]) -> bytes | None:
    """Return what a write needs the key to hold: nothing if that is empty, anything if it is None.

    Raises:
        OperationError: Two conditions are given.
    """
    if values["if-match"] is not None and values["if-none-match"] is not None:
        raise OperationError("if-match and if-none-match exclude each other", "give one of them", "invalid_header")
    condition: bytes | None = values["if-match"] if values["if-match"] is not None else values["if-none-match"]
    return condition
