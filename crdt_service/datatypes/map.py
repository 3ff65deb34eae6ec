"""A map of fields to other data types, where updating a field wins over removing it concurrently.

All fields share the map's causal context (Almeida et al., arXiv:1603.01529, section 6; the map of Riak DT): removing a
field covers every dot seen below it, so what was removed stays removed when the field is written again, and what a
concurrent update added stays. A path part is the field behind one character whose code is its type's tag.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.dotted import Change, Dotted, Path, View
from crdt_service.datatypes.operation import TEXT_BYTES_MAX, fits_text, is_clear, read_operation, refuse
from crdt_service.kernel.dot import Dot
from crdt_service.kernel.error import MalformedError, OperationError

# Maps within maps, the outermost included. Raising it needs longer paths, and each level indexes every entry once more.
DEPTH_MAX = 8
# What keeps a field present when an operation on it leaves nothing else: an emptied set is still a set.
_PRESENCE = b""
_EXAMPLE = '{"update": {"field": {"type": "pn_counter", "op": {"increment": 1}}}} or {"remove": "field"}'
Field = Annotated[str, Meta(max_length=TEXT_BYTES_MAX)]


class _Update(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    op: msgspec.Raw


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    update: Annotated[dict[Field, _Update], Meta(min_length=1, max_length=1)] | UnsetType = UNSET
    remove: Field | UnsetType = UNSET


_operation = msgspec.json.Decoder(_Operation)


class Map(Dotted):
    """Operations ``{"update": {field: {"type": t, "op": o}}}``, one field each, and ``{"remove": field}``.

    Fields are at most 256 bytes of UTF-8. Value: an object of the fields' values. A field has the type of its first
    update; of two types written concurrently readers see the one with the lower tag until the field is removed.
    A removal takes what it has seen. A counter's total is one entry per replica, so a removal that is concurrent with
    an increment leaves the whole total of the replica that incremented.

    Three types are no fields. A graph finds edges by both ends, and the index here only by the beginning of a path; a
    time series forgets by time, and not by what a removal has seen; a document is open in its library as a whole.

    Args:
        fields: The types that a field may have, maps excepted, in the order of their tags.
    """

    name = "map"
    tag = 8
    version = 2
    operation = _Operation
    keeps_presence = True

    def __init__(self, fields: Iterable[Dotted]) -> None:
        self._fields: Mapping[int, Dotted] = {kind.tag: kind for kind in (*fields, self)}
        self._by_name = {kind.name: kind for kind in self._fields.values()}

    @property
    def field_types(self) -> list[str]:
        """Names of the types that a field may have."""
        return list(self._by_name)

    def plan(self, view: View, op: bytes, origin: Origin) -> Change:
        """Do what the field's type does, below the field's path; a removal covers all that is there."""
        operation = read_operation(_operation, op, self.name, _EXAMPLE)
        if (operation.update is UNSET) == (operation.remove is UNSET):
            raise refuse(self.name, "exactly one of update and remove is needed", _EXAMPLE)
        if isinstance(operation.update, UnsetType):
            field = str(operation.remove)
            return Change({dot for tag in self._fields for dot in view.under(_part(tag, field))})
        ((field, update),) = operation.update.items()
        if not fits_text(field):
            raise refuse(self.name, "a field is at most 256 bytes of UTF-8", _EXAMPLE)
        kind = self._find(update.type)
        if kind is self and len(view.prefix) + 1 >= DEPTH_MAX:
            raise OperationError(f"maps nest deeper than {DEPTH_MAX}", "store a flatter value", "limit_exceeded")
        part = _part(kind.tag, field)
        self._check_type(view, field, kind)
        below = view.within(part)
        change = kind.plan(below, bytes(update.op), origin)
        present = {dot for dot in below.at() if below.content(dot) == _PRESENCE}
        path, content = change.entry or ((), _PRESENCE)
        return Change(change.covered | present, ((part, *path), content))

    def is_blind(self, op: bytes) -> bool:
        """Tell whether it updates a field by an operation that is blind there; a removal takes what it has seen."""
        for _ in range(DEPTH_MAX):
            if is_clear(op):
                return False
            try:
                update = read_operation(_operation, op, self.name, _EXAMPLE).update
            except OperationError:
                return True
            if isinstance(update, UnsetType):
                return False
            ((_, nested),) = update.items()
            op, kind = bytes(nested.op), self._by_name.get(nested.type)
            if kind is not self:
                return kind is None or kind.is_blind(op)
        return True

    def show(self, entries: Iterable[tuple[Dot, Path, bytes]]) -> object:
        """Return the fields' values, in the fields' order."""
        fields: dict[str, dict[int, list[tuple[Dot, Path, bytes]]]] = {}
        for dot, path, content in entries:
            if path:  # An entry of the map itself only says that it is present.
                tag, field = _split(path[0])
                fields.setdefault(field, {}).setdefault(tag, []).append((dot, path[1:], content))
        shown = {field: min(kinds.items()) for field, kinds in sorted(fields.items())}
        return {field: self._fields[tag].show(below) for field, (tag, below) in shown.items()}

    def check(self, path: Path, content: bytes) -> None:
        """Refuse what no field's type writes, unknown types and deep maps."""
        kind: Dotted = self
        depth = 0
        while kind is self and path:
            depth += 1
            tag, field = _split(path[0])
            if tag not in self._fields or not fits_text(field):
                raise MalformedError(f"{self.name}: a field has no known type or is too long")
            kind, path = self._fields[tag], path[1:]
        if depth == 0 or depth + (kind is self) > DEPTH_MAX:
            raise MalformedError(f"{self.name}: an entry lies at no depth that maps have")
        if path or content != _PRESENCE:
            if kind is self:
                raise MalformedError(f"{self.name}: a map has a content of its own")
            kind.check(path, content)

    def stamp(self, path: Path, content: bytes) -> int:
        """Return the stamp that the field's type keeps."""
        if not path or (len(path) == 1 and content == _PRESENCE):
            return 0
        return self._fields[_split(path[0])[0]].stamp(path[1:], content)

    def replace(self, kind: Dotted) -> "Map":
        """Return a map whose fields of the type of `kind` read as `kind` does."""
        return Map(kind if tag == kind.tag else known for tag, known in self._fields.items() if known is not self)

    def _find(self, name: str) -> Dotted:
        if name not in self._by_name:
            raise refuse(self.name, f"a field cannot be a {name[:64]!r}, only {', '.join(self._by_name)}", _EXAMPLE)
        return self._by_name[name]

    def _check_type(self, view: View, field: str, kind: Dotted) -> None:
        if view.has(_part(kind.tag, field)):
            return
        for tag, other in self._fields.items():
            if view.has(_part(tag, field)):
                raise OperationError(
                    f"map: the field is a {other.name}, not a {kind.name}",
                    "use its type or another field",
                    "type_conflict",
                )


def _part(tag: int, field: str) -> str:
    return chr(tag) + field


def _split(part: str) -> tuple[int, str]:
    return (ord(part[0]), part[1:]) if part else (0, "")


def find_innermost(path: Path) -> tuple[int, int]:
    """Return how many parts of an entry's path lead to the innermost type, and its tag; none lead to the map itself."""
    tag = Map.tag
    for length, part in enumerate(path, 1):
        tag, _ = _split(part)
        if tag != Map.tag:
            return length, tag
    return len(path), tag
