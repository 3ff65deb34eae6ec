"""A directed graph where an edge shows only while both its ends do.

Vertices and edges are add-wins sets under one causal context (arXiv:1603.01529). Checking ends on read keeps an edge
from dangling when it was added while another replica removed its end (Shapiro et al., INRIA RR-7506, 2011, 3.4).
"""

from collections.abc import Iterable

import msgspec
from msgspec import UNSET, UnsetType

from crdt_service.datatypes.aw_set import Element
from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.dotted import Change, Dotted, Path, State, View
from crdt_service.datatypes.operation import fits_text, lists, read_operation, refuse
from crdt_service.kernel.dot import Dot
from crdt_service.kernel.error import MalformedError, OperationError

_EXAMPLE = '{"add_vertex": "a"}, {"remove_vertex": "a"}, {"add_edge": ["a", "b"]} or {"remove_edge": ["a", "b"]}'
Ends = tuple[Element, Element]


class _State(State):
    """A state that finds the edges at both ends: a vertex is a path of one part, an edge one of two."""

    __slots__ = ()

    def index(self, path: Path) -> Iterable[Path]:
        return {(end,) for end in path}


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    add_vertex: Element | UnsetType = UNSET
    remove_vertex: Element | UnsetType = UNSET
    add_edge: Ends | UnsetType = UNSET
    remove_edge: Ends | UnsetType = UNSET


_operation = msgspec.json.Decoder(_Operation)


class Graph(Dotted):
    """Operations add_vertex and remove_vertex with a name, add_edge and remove_edge with ``[from, to]``.

    Names are at most 256 bytes of UTF-8; an edge may lead to its own start. Value: ``{"vertices": [...], "edges":
    [[from, to], ...]}``, both sorted. Adding wins over removing concurrently. Removing a vertex removes the edges at
    it that the writer has seen, so its delta costs their number; an edge added meanwhile is hidden, and shows again if
    its end is added again.
    """

    name = "graph"
    tag = 10
    version = 2
    operation = _Operation
    keeps_presence = True
    state_class = _State

    def plan(self, view: View, op: bytes, origin: Origin) -> Change:
        """Cover the seen dots of the vertex or edge; adding puts a new one in their place."""
        operation = read_operation(_operation, op, self.name, _EXAMPLE)
        chosen = [name for name in operation.__struct_fields__ if getattr(operation, name) is not UNSET]
        if len(chosen) != 1:
            raise refuse(self.name, "exactly one operation is needed", _EXAMPLE)
        argument = getattr(operation, chosen[0])
        path: Path = (argument,) if isinstance(argument, str) else argument
        if not all(map(fits_text, path)):
            raise refuse(self.name, "a name is at most 256 bytes of UTF-8", _EXAMPLE)
        if chosen[0] == "remove_vertex":
            return Change(view.under(*path))
        if chosen[0] == "add_edge" and not all(view.at(end) for end in path):
            raise OperationError("graph: an end of the edge is no vertex here", "add both vertices first")
        return Change(view.at(*path), (path, b"") if chosen[0].startswith("add") else None)

    def is_blind(self, op: bytes) -> bool:
        """Tell whether it adds a vertex; an edge needs both ends, and a removal takes what it has seen."""
        return not lists(_operation, op, "remove_vertex", "add_edge", "remove_edge")

    def show(self, entries: Iterable[tuple[Dot, Path, bytes]]) -> object:
        """Return the vertices, and the edges whose ends are among them."""
        paths = sorted({path for _, path, _ in entries})
        vertices = {path[0] for path in paths if len(path) == 1}
        edges = [list(path) for path in paths if len(path) == 2 and vertices.issuperset(path)]
        return {"vertices": sorted(vertices), "edges": edges}

    def check(self, path: Path, content: bytes) -> None:
        """Refuse anything but a vertex or an edge."""
        if len(path) not in {1, 2} or content or not all(map(fits_text, path)):
            raise MalformedError(f"{self.name}: an entry is no vertex and no edge")
