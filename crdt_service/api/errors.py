"""Every error code of the API, with its HTTP status and when it is given; the one JSON shape of all errors."""

from typing import NamedTuple

from crdt_service.api.asgi import encode_json
from crdt_service.kernel.error import ServiceError


class Code(NamedTuple):
    """What a stable error code means."""

    status: int
    when: str


CODES = {
    "invalid_base": Code(400, "an operation's base is no version of a document, or not all of one"),
    "invalid_body": Code(400, "the body is not what the request takes, or ended early"),
    "invalid_cursor": Code(400, "the cursor is none that this API gave"),
    "invalid_header": Code(400, "a header is malformed, too long, or given twice"),
    "invalid_key": Code(400, "it is empty, too long, reserved, or no percent-encoded UTF-8"),
    "invalid_operation": Code(400, "the type has no such operation"),
    "invalid_query": Code(400, "the query has an unknown, repeated or malformed parameter"),
    "malformed_request": Code(400, "it is no HTTP/1.1 request, or has trailers"),
    "tls_required": Code(400, "plain HTTP was sent to a port that speaks HTTPS"),
    "unknown_type": Code(400, "there is no such type"),
    "unauthenticated": Code(401, "there is no API key, or it is unknown or not good yet"),
    "key_expired": Code(401, "the API key has expired"),
    "forbidden": Code(403, "the API key's scope or prefixes do not allow it"),
    "not_found": Code(404, "no owner that answers has the key, or there is no such page"),
    "method_not_allowed": Code(405, "the page has other methods; `Allow` names them"),
    "request_timeout": Code(408, "the head or the body did not arrive in time"),
    "type_conflict": Code(409, "the key has another type, or shows another and the write does not name its own"),
    "illegal_transition": Code(
        409, "no transition of the workflow leads there from its state, which the message names: another may have won"
    ),
    "already_created": Code(409, "the workflow was created before; the message names its state"),
    "unknown_base": Code(409, "the node lacks edits that the base has, or it is of another document; read it again"),
    "base_too_old": Code(409, "what the base shows was deleted since and is forgotten; read the document again"),
    "not_deletable": Code(409, "keys of this type cannot be deleted"),
    "limit_exceeded": Code(409, "the value or the key would be too large, too deep or too many"),
    "too_many_origins": Code(409, "the key was written under so many origins that no node with another may write it"),
    "precondition_failed": Code(412, "the key does not hold what it should for this write; nothing was done"),
    "body_too_large": Code(413, "the body is larger than the request takes"),
    "unsupported_encoding": Code(415, "the body is compressed, or in a coding that is not read"),
    "idempotency_mismatch": Code(422, "another write of the key was applied under this idempotency key"),
    "value_too_large": Code(422, "the value is too large for an answer with several; read the key alone"),
    "plugin_refused": Code(422, "a plugin refuses the request; its message says why"),
    "rate_limited": Code(429, "the caller's limit is used up; `Retry-After` says how long"),
    "head_too_large": Code(431, "the request line and the headers are larger than 32 KiB"),
    "plugin_unavailable": Code(503, "a plugin that the request needs does not work, or is too busy; nothing was done"),
    "id_collision": Code(503, "two replicas of a document drew one client id; write through another node"),
    "no_node": Code(503, "no node is reachable"),
    "node_unreachable": Code(503, "the node, or every owner, cannot be asked; nothing was done"),
    "syncing": Code(503, "the node has no seat in the placement yet, or has just gained the key and still copies it"),
    "fenced": Code(503, "the node's volume is not what other nodes know it for; it gets a new seat"),
    "behind": Code(503, "the node has yet to hear which deleted keys the others forgot"),
    "stopping": Code(503, "the node is stopping"),
    "overloaded": Code(
        503, "more requests come than are answered, too many feeds are open, or too many writes wait for the disk"
    ),
    "storage_full": Code(503, "the disk is full; reads still work"),
    "too_few_owners": Code(503, "too few of the key's owners are reachable, or answered in time; nothing was done"),
    "concern_not_met": Code(
        503, "the write is durable on its node and goes on to others, though fewer have it yet than asked"
    ),
    "outcome_unknown": Code(
        503,
        "the answer was lost, or too few owners confirmed a named write: it may be there. "
        "Read before writing again, or send a named one again under its name",
    ),
    "malformed": Code(503, "a node and the backend do not understand each other: check their versions"),
    "unsupported_version": Code(505, "it is of another version than HTTP/1.1 and HTTP/1.0"),
    "internal": Code(500, "the backend has a fault; its log says more under the request's id"),
}

# A second later the same request may be answered, and so far it did nothing; told as `Retry-After`.
RETRIED = frozenset(
    {"no_node", "node_unreachable", "syncing", "fenced", "behind", "stopping", "overloaded", "too_few_owners"}
)


def status_of(error: ServiceError) -> int:
    """Return the HTTP status of an error; one that is not in the table speaks of the server, so it is 503."""
    code = CODES.get(error.code)
    return 503 if code is None else code.status


def view_error(error: ServiceError) -> dict[str, str]:
    """Return what clients see of an error."""
    return {"code": error.code, "message": error.message, "remedy": error.remedy}


def encode_error(error: ServiceError, request_id: str = "") -> bytes:
    """Return an error as JSON: code, message, remedy and, where a request has one, its id."""
    body = view_error(error)
    if request_id:
        body["request_id"] = request_id
    return encode_json({"error": body})


def describe_error(error: ServiceError) -> tuple[int, bytes]:
    """Return the HTTP status of an error and its JSON, for what is refused before it is a request."""
    return status_of(error), encode_error(error)
