"""A set of strings where an add wins over a concurrent remove, without tombstones (ORSWOT, arXiv:1210.3368)."""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.dotted import Change, Dotted, Path, View
from crdt_service.datatypes.operation import TEXT_BYTES_MAX, fits_text, lists, read_operation, refuse
from crdt_service.kernel.dot import Dot
from crdt_service.kernel.error import MalformedError

_EXAMPLE = '{"add": "x"} or {"remove": "x"}'
Element = Annotated[str, Meta(max_length=TEXT_BYTES_MAX)]


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    add: Element | UnsetType = UNSET
    remove: Element | UnsetType = UNSET


_operation = msgspec.json.Decoder(_Operation)


class AwSet(Dotted):
    """Operations ``{"add": s}`` and ``{"remove": s}``, s at most 256 bytes of UTF-8; value: a sorted list.

    An element is a path of one part; its dots are those of its adds.
    """

    name = "aw_set"
    tag = 3
    version = 3
    operation = _Operation
    keeps_presence = True

    def plan(self, view: View, op: bytes, origin: Origin) -> Change:
        """Cover the seen dots of the element; an add puts a new one in their place."""
        operation = read_operation(_operation, op, self.name, _EXAMPLE)
        added, removed = operation.add, operation.remove
        if (added is UNSET) == (removed is UNSET):
            raise refuse(self.name, "exactly one of add and remove is needed", _EXAMPLE)
        element = added if isinstance(added, str) else str(removed)
        if not fits_text(element):
            raise refuse(self.name, "an element is at most 256 bytes of UTF-8", _EXAMPLE)
        return Change(view.at(element), None if added is UNSET else ((element,), b""))

    def is_blind(self, op: bytes) -> bool:
        """Tell whether it adds; a removal takes what it has seen."""
        return not lists(_operation, op, "remove")

    def show(self, entries: Iterable[tuple[Dot, Path, bytes]]) -> object:
        """Return the elements in order."""
        return sorted({part for _, path, _ in entries for part in path})

    def check(self, path: Path, content: bytes) -> None:
        """Refuse anything but one element."""
        if len(path) != 1 or content or not fits_text(path[0]):
            raise MalformedError(f"{self.name}: an entry is no element")
