"""Each request of the API, built without sending it, and how its answer is read."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import msgspec

from crdt_service.client.encoding import check_header, check_text, encode_json
from crdt_service.client.error import UNEXPECTED_ANSWER, ApiError, read_error
from crdt_service.client.view import Batch, Cluster, ConflictPage, Health, Key, KeyPage, Owners

Concern = Literal["one", "majority", "all"]
T = TypeVar("T")
_DOTS = re.compile(r"\.{1,2}")


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One request, independent of how it is sent.

    Attributes:
        method: HTTP method.
        path: Percent-encoded.
        read: Reads the headers and body of an answer as hoped for.
        query: Query parameters.
        headers: Beside those of every request.
        body: JSON, None for no body.
        is_safe: It may be sent any number of times.
        statuses: Of an answer as hoped for.
    """

    method: str
    path: str
    read: Callable[[Mapping[str, str], bytes], T]
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    is_safe: bool = True
    statuses: tuple[int, ...] = (200,)

    def decode(self, status: int, headers: Mapping[str, str], body: bytes, request_id: str) -> T:
        """Return what an answer shows.

        Raises:
            ApiError: It is an error, or no answer to this request.
        """
        try:
            if status in self.statuses:
                return self.read(headers, body)
        # An integer of more than 4300 digits is a ValueError, as a DecodeError and text that is no UTF-8 are.
        except (ValueError, RecursionError) as error:
            if status == self.statuses[0]:
                raise ApiError(
                    UNEXPECTED_ANSWER,
                    f"the answer is not understood: {error}",
                    "check what is between here and the service",
                    status=status,
                    request_id=request_id,
                ) from error
        raise read_error(status, headers, body, request_id)


@dataclass(frozen=True, slots=True)
class Write:
    """One write of a batch.

    Attributes:
        key: The key.
        type_name: Its type.
        op: One of the type's operations.
        if_match: Write only if the key's ETag is this; only if the key is missing if it is empty.
    """

    key: str
    type_name: str
    op: Mapping[str, Any]
    if_match: str | None = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """One deletion of a batch; `if_match` is as in `Write`."""

    key: str
    if_match: str | None = None


def read_key(
    key: str, *, concern: Concern, node: str | None, type_name: str | None, explain: bool = False
) -> Request[Key]:
    """Return the request for a key's value."""
    query = {"concern": concern, "node": node, "type": type_name, "explain": "true" if explain else None}
    return Request("GET", path_of("keys", key), _read_key, _given(query))


def write_key(
    key: str,
    type_name: str,
    op: Mapping[str, Any],
    *,
    concern: Concern,
    node: str | None,
    value: bool,
    if_match: str | None,
    idempotency_key: str | None,
    is_named: bool = False,
) -> Request[Key]:
    """Return the request to apply an operation to a key."""
    named = type_name if is_named else None
    query = {"concern": concern, "node": node, "type": named, "value": None if value else "false"}
    body = encode_json({"type": type_name, "op": op})
    return Request(
        "POST",
        path_of("keys", key),
        _read_key,
        _given(query),
        _conditions(if_match, idempotency_key),
        body,
        is_safe=idempotency_key is not None,
    )


def delete_key(
    key: str,
    *,
    concern: Concern,
    node: str | None,
    type_name: str | None,
    if_match: str | None,
    idempotency_key: str | None,
) -> Request[Key]:
    """Return the request to empty a key; made again after its answer was lost it might empty what came after."""
    return Request(
        "DELETE",
        path_of("keys", key),
        _read_key,
        _given({"concern": concern, "node": node, "type": type_name}),
        _conditions(if_match, idempotency_key),
        is_safe=idempotency_key is not None,
    )


def write_batch(
    writes: Iterable[Write | Deletion],
    *,
    concern: Concern,
    node: str | None,
    type_name: str | None,
    value: bool,
    idempotency_key: str | None,
) -> Request[Batch]:
    """Return the request to apply many writes."""
    query = {"concern": concern, "node": node, "type": type_name, "value": "true" if value else None}
    return Request(
        "POST",
        "/v1/batch/write",
        _plain(Batch),
        _given(query),
        _conditions(None, idempotency_key),
        encode_json({"writes": [_describe(write) for write in writes]}),
        is_safe=idempotency_key is not None,
    )


def read_batch(keys: Iterable[str], *, concern: Concern, node: str | None, type_name: str | None) -> Request[Batch]:
    """Return the request for many keys' values."""
    query = {"concern": concern, "node": node, "type": type_name}
    body = encode_json({"keys": list(keys)})
    return Request("POST", "/v1/batch/read", _plain(Batch), _given(query), body=body)


def list_keys(prefix: str, limit: int, cursor: str | None) -> Request[KeyPage]:
    """Return the request for a page of keys."""
    query = {"prefix": prefix or None, "limit": str(limit), "cursor": cursor}
    return Request("GET", "/v1/keys", _plain(KeyPage), _given(query))


def follow_changes(prefix: str, cursor: str | None) -> Request[None]:
    """Return the request for a change feed, whose answer is read while it arrives."""
    headers = {"accept": "text/event-stream"}
    return Request("GET", "/v1/changes", _nothing, _given({"prefix": prefix or None, "cursor": cursor}), headers)


def show_placement(key: str) -> Request[Owners]:
    """Return the request for a key's owners."""
    return Request("GET", path_of("placement", key), _plain(Owners))


def list_conflicts(prefix: str, limit: int, cursor: str | None) -> Request[ConflictPage]:
    """Return the request for a page of conflicts."""
    query = {"prefix": prefix or None, "limit": str(limit), "cursor": cursor}
    return Request("GET", "/v1/conflicts", _plain(ConflictPage), _given(query))


def show_cluster() -> Request[Cluster]:
    """Return the request for members, links and placement."""
    return Request("GET", "/v1/cluster", _plain(Cluster))


def show_health() -> Request[Health]:
    """Return the request for the health, which is also told with 503."""
    return Request("GET", "/health", _plain(Health), statuses=(200, 503))


def path_of(page: str, key: str) -> str:
    """Return the path of a key's page; a key of dots alone would be taken for a place in the path."""
    text = check_text(key, "the key")
    name = text.replace(".", "%2E") if _DOTS.fullmatch(text) else quote(text, safe="")
    return f"/v1/{page}/{name}"


def _describe(write: Write | Deletion) -> dict[str, object]:
    members: dict[str, object] = {"key": write.key}
    if isinstance(write, Write):
        members |= {"type": write.type_name, "op": write.op}
    return members if write.if_match is None else {**members, "if_match": write.if_match}


def _given(query: Mapping[str, str | None]) -> dict[str, str]:
    return {name: check_text(value, name) for name, value in query.items() if value is not None}


def _conditions(if_match: str | None, idempotency_key: str | None) -> dict[str, str]:
    headers = {}
    if if_match:
        headers["if-match"] = f'"{check_header(if_match, "if_match")}"'
    elif if_match is not None:
        headers["if-none-match"] = "*"
    if idempotency_key is not None:
        headers["idempotency-key"] = check_header(idempotency_key, "idempotency_key")
    return headers


_key = msgspec.json.Decoder(Key)


def _read_key(headers: Mapping[str, str], body: bytes) -> Key:
    etag, replayed = headers.get("etag", "").strip('"'), "idempotency-replayed" in headers
    return msgspec.structs.replace(_key.decode(body), etag=etag, replayed=replayed)


@cache
def _plain(kind: type[T]) -> Callable[[Mapping[str, str], bytes], T]:
    """Return what reads an answer that is its body."""
    decoder = msgspec.json.Decoder(kind)
    return lambda headers, body: decoder.decode(body)


def _nothing(headers: Mapping[str, str], body: bytes) -> None:
    return None
