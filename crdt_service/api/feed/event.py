"""What a feed sends: server-sent events, https://html.spec.whatwg.org/multipage/server-sent-events.html."""

import msgspec

from crdt_service.api.asgi import encode_json
from crdt_service.api.feed.merge import Changed, Reset

CONTENT_TYPE = b"text/event-stream"


class ChangeView(msgspec.Struct, omit_defaults=True):
    """A key that changed, in the data of an event `change`.

    Attributes:
        key: Its name.
        type: Its type; empty if it was deleted.
        etag: Names what it holds on the node; empty if it was deleted.
        node: The node that said so.
        deleted: Whether it reads as missing now.
    """

    key: str
    type: str
    etag: str
    node: str
    deleted: bool = False


class ResetView(msgspec.Struct):
    """Why changes may be missing, in the data of an event `reset`.

    Attributes:
        reason: node_joined, node_restarted, changes_lost, node_unreachable or fell_behind.
        node: The node whose changes may be missing, null if those of any.
    """

    reason: str
    node: str | None


def encode_event(event: Changed | Reset, cursor: str) -> bytes:
    """Return an event after which a feed goes on from `cursor`."""
    if isinstance(event, Reset):
        return _encode("reset", ResetView(event.reason, event.node_id or None), cursor)
    node_id, change = event
    view = ChangeView(change.key, change.type_name, change.digest.hex(), node_id, not change.digest)
    return _encode("change", view, cursor)


def encode_opening(cursor: str, retry_ms: int) -> bytes:
    """Return what a feed begins with: where it is, and how long to wait before a lost one is opened again."""
    return b"retry: %d\n%b" % (retry_ms, encode_pulse(cursor))


def encode_pulse(cursor: str) -> bytes:
    """Return what shows that a feed is alive and how far it is; clients see no event."""
    return b": live\nid: %b\n\n" % cursor.encode()


def encode_end(retry_ms: int) -> bytes:
    """Return the last event of a backend that stops; the feed goes on at another."""
    return b'retry: %d\nevent: end\ndata: {"reason":"stopping"}\n\n' % retry_ms


def _encode(name: str, view: msgspec.Struct, cursor: str) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (cursor.encode(), name.encode(), encode_json(view))
