"""How far a feed is, as clients keep it: by node, up to which of its changes everything was told."""

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from crdt_service.api.cursor import decode_cursor, encode_cursor
from crdt_service.kernel.ident import check_node_id
from crdt_service.wire.message import Number

# More than a cluster has, with those that left it.
NODES_MAX = 64
# More than so many places with the longest names take.
CURSOR_LENGTH_MAX = 8192
_VERSION = 1


class Place(NamedTuple):
    """A position in the changes of one node.

    Attributes:
        epoch: Which run of the node's process the number belongs to.
        number: Of the last change that was told.
    """

    epoch: int
    number: int


Places = Mapping[str, Place]
_Cursor = tuple[Literal[1], Annotated[list[tuple[str, Number, Number]], Meta(max_length=NODES_MAX)]]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Cursor)


def write_cursor(places: Places) -> str:
    """Return places as a text of URL-safe characters; equal places give the same text."""
    content = _encoder.encode((_VERSION, [(node_id, *places[node_id]) for node_id in sorted(places)]))
    return encode_cursor(content)


def read_cursor(text: str) -> dict[str, Place]:
    """Return what `write_cursor` made a text of.

    Raises:
        OperationError: It is no such text.
    """

    def decode(content: bytes) -> dict[str, Place]:
        _, entries = _decoder.decode(content)
        places = {check_node_id(node_id): Place(epoch, number) for node_id, epoch, number in entries}
        if write_cursor(places) != text:
            raise ValueError("not as it was written")
        return places

    return decode_cursor(text, decode, "give the id of the feed's last event, unchanged")
