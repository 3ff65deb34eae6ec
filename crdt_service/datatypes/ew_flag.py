"""A flag where enabling wins over a concurrent disabling (Almeida et al., arXiv:1603.01529, section 5)."""

from collections.abc import Iterable

import msgspec
from msgspec import UNSET, UnsetType

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.dotted import PRESENCE, Change, Dotted, Path, View
from crdt_service.datatypes.operation import lists, read_operation, refuse
from crdt_service.kernel.dot import Dot
from crdt_service.kernel.error import MalformedError

_EXAMPLE = '{"enable": true} or {"disable": true}'
# Not empty: a map keeps empty contents for itself.
_ENABLED = b"\x01"


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    enable: bool | UnsetType = UNSET
    disable: bool | UnsetType = UNSET


_operation = msgspec.json.Decoder(_Operation)


class EwFlag(Dotted):
    """Operations ``{"enable": true}`` and ``{"disable": true}``; value: a boolean, at first false."""

    name = "ew_flag"
    tag = 6
    version = 2
    operation = _Operation
    keeps_presence = True

    def plan(self, view: View, op: bytes, origin: Origin) -> Change:
        """Cover all that is seen; enabling puts a new one in its place, and disabling that the flag is there."""
        operation = read_operation(_operation, op, self.name, _EXAMPLE)
        chosen = (operation.enable, operation.disable)
        if chosen not in {(True, UNSET), (UNSET, True)}:
            raise refuse(self.name, "exactly one of enable and disable is needed, and true", _EXAMPLE)
        return Change(view.at(), ((), _ENABLED) if operation.enable is True else PRESENCE)

    def is_blind(self, op: bytes) -> bool:
        """Tell whether it enables; disabling takes what it has seen."""
        return not lists(_operation, op, "disable")

    def show(self, entries: Iterable[tuple[Dot, Path, bytes]]) -> object:
        """Tell whether an enabling is left."""
        return any(content for _, _, content in entries)

    def check(self, path: Path, content: bytes) -> None:
        """Refuse anything but an enabling."""
        if path or content != _ENABLED:
            raise MalformedError(f"{self.name}: an entry is no enabling")
