"""A register that keeps every concurrent assignment until a writer that has seen them assigns anew.

A dotted version vector per assignment (Preguiça et al., arXiv:1011.5808): assigning covers what the writer has seen.
"""

from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.dotted import Change, Dotted, Path, State, View
from crdt_service.datatypes.json_value import check_json, pack_json
from crdt_service.datatypes.operation import read_operation, read_packed
from crdt_service.kernel.clock import STAMP_MAX
from crdt_service.kernel.dot import Dot
from crdt_service.kernel.error import MalformedError

# Each replica may add a sibling of this size before it sees the others: 60 such still fit one frame. Raising it lets
# fewer of them write at once.
VALUE_BYTES_MAX = 256 << 10
_EXAMPLE = '{"assign": <JSON value>}'


class Sibling(NamedTuple):
    """One assignment that no other has seen; siblings compare in canonical order.

    Attributes:
        stamp: Hybrid logical stamp of the assignment.
        replica: Who assigned.
        text: Canonical JSON.
    """

    stamp: int
    replica: str
    text: bytes


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    assign: object


class _Content(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    stamp: Annotated[int, Meta(ge=1, le=STAMP_MAX)]
    text: bytes


_operation = msgspec.json.Decoder(_Operation)
_content = msgspec.msgpack.Decoder(_Content)
_encoder = msgspec.msgpack.Encoder()


class MvRegister(Dotted):
    """Operation ``{"assign": <any JSON>}``, at most 256 KiB; value: the list of concurrent assignments.

    The list is empty before the first assignment, has one item without conflict, and is ordered by hybrid logical
    stamp, replica and bytes, so that every replica with the same siblings shows the same.
    """

    name = "mv_register"
    tag = 7
    version = 2
    operation = _Operation

    def plan(self, view: View, op: bytes, origin: Origin) -> Change:
        """Cover every sibling seen with one stamped assignment."""
        text = pack_json(read_operation(_operation, op, self.name, _EXAMPLE).assign, VALUE_BYTES_MAX)
        return Change(view.at(), ((), _encoder.encode(_Content(origin.tick(), text))))

    def show(self, entries: Iterable[tuple[Dot, Path, bytes]]) -> object:
        """Return the JSON values of the siblings, raw."""
        return [msgspec.Raw(sibling.text) for sibling in read_siblings(entries)]

    def siblings(self, state: State) -> list[Sibling]:
        """Return the concurrent assignments with stamp and origin, in canonical order; rules choose among them."""
        return read_siblings((dot, *entry) for dot, entry in state.owner.items())

    def check(self, path: Path, content: bytes) -> None:
        """Refuse anything but a stamped canonical JSON value."""
        plain = read_packed(_content, content, self.name)
        check_json(plain.text, VALUE_BYTES_MAX)
        if path or _encoder.encode(plain) != content:
            raise MalformedError(f"{self.name}: an entry is no assignment")

    def stamp(self, path: Path, content: bytes) -> int:
        """Return the stamp of the assignment."""
        return _content.decode(content).stamp


def read_siblings(entries: Iterable[tuple[Dot, Path, bytes]]) -> list[Sibling]:
    """Return the siblings among `entries`; a map's own entries are empty."""
    plain = [(dot[0], _content.decode(content)) for dot, _, content in entries if content]
    return sorted(Sibling(content.stamp, replica, content.text) for replica, content in plain)
