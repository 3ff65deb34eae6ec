"""A collaborative document: texts, lists and one JSON tree.

Editing is that of the library yrs, Yjs in Rust (YATA: Nicolaescu et al., GROUP 2016, doi:10.1145/2957276.2957310).
The state is a set of the library's updates under dots, so states join, split and compare like any other, whatever the
library does inside. A replica merges its own small updates into larger ones from time to time, which covers their
dots: the number of entries stays small, and content that was deleted by then is gone.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from crdt_service.datatypes import dotted
from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.document_version import VERSION_BYTES_MAX, read_version, write_version
from crdt_service.datatypes.dotted import Change, Dotted, Entry, Path, View
from crdt_service.datatypes.json_value import pack_json
from crdt_service.datatypes.live_document import DAMAGED, LiveDocument, client_of, rewind
from crdt_service.datatypes.operation import TEXT_BYTES_MAX, fits_text, read_operation, refuse
from crdt_service.datatypes.yjs_update import (
    CLOCK_MAX,
    LEAF_BYTES_MAX,
    PATH_PARTS_MAX,
    Update,
    read_update,
    write_path,
)
from crdt_service.kernel.dot import CausalContext, Dot
from crdt_service.kernel.error import MalformedError, OperationError

TEXT_INSERT_BYTES_MAX = 64 << 10
LEAVES_MAX = 1000
# So many own updates smaller than a chunk are merged into one. More make deltas smaller on the average and states
# larger; larger chunks forget more of what was deleted, and each merge sends up to one chunk again.
MERGED_UPDATES = 32
CHUNK_BYTES = 4 << 10
# Documents kept open in the library; another is made anew from its state, which costs its size.
LIVE_MAX = 256
# Names the client of documents that are only read.
READER = ""
_EXAMPLE = (
    '{"append": {"text": "title", "value": "Hi"}}, '
    '{"insert": {"text": "title", "at": 0, "value": "Hi"}}, {"delete": {"text": "title", "at": 0, "count": 1}}, '
    '{"insert": {"list": "todo", "at": 0, "value": <JSON>}}, {"set": {"path": ["a", "b"], "value": <JSON>}}, '
    '{"remove": {"path": ["a"]}} or {"clear": true}'
)
Name = Annotated[str, Meta(max_length=TEXT_BYTES_MAX)]
Index = Annotated[int, Meta(ge=0, le=CLOCK_MAX)]
Base = Annotated[str, Meta(max_length=VERSION_BYTES_MAX)]
Names = Annotated[list[Name], Meta(min_length=1, max_length=PATH_PARTS_MAX)]


class State(dotted.State):
    """Entries, and the document that they make in the library; no more than a cache, which a state may lack.

    Attributes:
        live: The document, or None.
        ahead: What it has that no disk has yet, and so the entries have not.
        behind: Dots of entries that it has not.
        tail: Own updates that the next merge takes, oldest first.
    """

    __slots__ = ("ahead", "behind", "live", "tail")

    def __init__(self, seen: Iterable[Dot] = ()) -> None:
        super().__init__(seen)
        self.drop()

    def drop(self) -> None:
        """Forget the document in the library."""
        self.live: LiveDocument | None = None
        self.ahead: dict[Dot, Entry] = {}
        self.behind: list[Dot] = []
        self.tail: list[tuple[Dot, Update]] = []

    def follow(self, dot: Dot, entry: Entry, update: Update, covered: CausalContext) -> None:
        """Add an own entry to the tail, in the place of those that it covers."""
        if len(entry[1]) >= CHUNK_BYTES or (self.tail and self.tail[-1][0] in covered):  # A merge takes the whole tail.
            self.tail.clear()
        if len(entry[1]) < CHUNK_BYTES:
            self.tail.append((dot, update))

    def forget_installed(self) -> None:
        """Drop from `ahead` what an installed delta has covered meanwhile."""
        for dot in [dot for dot in self.ahead if dot in self.context]:
            del self.ahead[dot]

    def catch_up(self, pending: dotted.State) -> bool:
        """Bring the document up to the state and what is pending; false if it holds what neither does."""
        assert self.live is not None  # noqa: S101
        self.forget_installed()
        if any(
            dot not in pending.context or pending.owner.get(dot, entry) != entry for dot, entry in self.ahead.items()
        ):
            return False
        for dot in self.behind:
            if dot in self.owner:
                self.live.feed(self.owner[dot][1])
        self.behind.clear()
        for dot, entry in pending.owner.items():
            if dot not in self.ahead and dot not in self.context:
                self.live.feed(entry[1])
                self.ahead[dot] = entry
        return True

    def insert(self, dot: Dot, entry: Entry) -> None:
        """Make `dot` present, and the document of it if it is not."""
        super().insert(dot, entry)
        if self.live is None:
            return
        known = self.ahead.pop(dot, None)
        if known is None:
            self.behind.append(dot)
        elif known != entry:
            self.drop()

    def replace(self, dot: Dot, entry: Entry) -> None:
        """Give a present dot another entry, which the library cannot."""
        self.drop()
        super().replace(dot, entry)


class _Append(msgspec.Struct, forbid_unknown_fields=True):
    value: object
    text: Name | UnsetType = UNSET
    list: Name | UnsetType = UNSET


class _Insert(msgspec.Struct, forbid_unknown_fields=True):
    at: Index
    value: object
    text: Name | UnsetType = UNSET
    list: Name | UnsetType = UNSET
    base: Base | UnsetType = UNSET


class _Delete(msgspec.Struct, forbid_unknown_fields=True):
    at: Index
    text: Name | UnsetType = UNSET
    list: Name | UnsetType = UNSET
    count: Annotated[int, Meta(ge=1, le=CLOCK_MAX)] = 1
    base: Base | UnsetType = UNSET


class _Set(msgspec.Struct, forbid_unknown_fields=True):
    path: Names
    value: object


class _Remove(msgspec.Struct, forbid_unknown_fields=True):
    path: Names


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    append: _Append | UnsetType = UNSET
    insert: _Insert | UnsetType = UNSET
    delete: _Delete | UnsetType = UNSET
    set: _Set | UnsetType = UNSET
    remove: _Remove | UnsetType = UNSET
    clear: bool | UnsetType = UNSET


_operation = msgspec.json.Decoder(_Operation)


class Document(Dotted):
    """Operations append, insert, delete, set, remove, clear; value: ``{"texts": {...}, "lists": {...}, "map": {...}}``.

    ``{"insert": {"text": name, "at": i, "value": s}}`` and ``{"delete": {"text": name, "at": i, "count": n}}`` edit a
    named text, at most 64 KiB at once; indexes count Unicode code points. ``{"append": {"text": name, "value": s}}``
    adds to its end and needs none. With ``"list"`` for ``"text"`` they edit a named list, where the value is one JSON
    value. Texts and lists need no creation and show while they hold anything.
    The value's ``"version"`` stands for what it shows, None if too much was deleted piece by piece. With it as the
    ``"base"`` of an insertion or deletion, the index counts in what was read, and the place is carried over: what
    is inserted comes between the same neighbours, and only what was read is deleted. Without, it counts in what the
    node holds. The value's ``"edits"`` counts edits: an edit that raised it by more than one met others than were read.
    ``{"set": {"path": [...], "value": v}}`` writes one JSON value in the tree: an object is written leaf by leaf, so
    that replicas may write different fields of it concurrently; all else is one leaf, whose latest write wins.
    ``{"remove": {"path": [...]}}`` removes what is at and below the path. ``{"clear": true}`` deletes everything seen.
    Names and the parts of paths are at most 256 bytes of UTF-8, paths have at most 32 parts, a leaf is at most 64 KiB,
    an object 1000 leaves, a document 4 MiB of updates. Text that was deleted after its chunk was full still counts.
    """

    name = "document"
    tag = 12
    version = 1
    operation = _Operation
    state_class = State
    # Covering all updates would cut the ground from under concurrent ones, and the library's clocks would run again.
    can_clear = False

    def __init__(self) -> None:
        self._shelf: OrderedDict[int, State] = OrderedDict()

    def apply(self, state: dotted.State, pending: dotted.State, op: bytes, origin: Origin) -> dotted.State:
        """Return the edit as one update, or merged with earlier ones of this replica in their place."""
        assert isinstance(state, State)  # noqa: S101
        try:
            delta = super().apply(state, pending, op, origin)
        except OperationError as error:
            if state.live is not None and (state.live.is_edited or error.code == DAMAGED):
                state.drop()
            raise
        except MalformedError as error:  # The library wrote what no peer would take.
            state.drop()
            raise OperationError(error.message, "use another key", DAMAGED) from error
        live = state.live
        assert live is not None  # noqa: S101
        live.is_edited = False
        for dot, entry in delta.owner.items():
            state.ahead[dot] = entry
            state.follow(dot, entry, live.latest, delta.context)
        return delta

    def plan(self, view: View, op: bytes, origin: Origin) -> Change:
        """Make the edit in the library and take its update."""
        operation = read_operation(_operation, op, self.name, _EXAMPLE)
        edits = [getattr(operation, name) for name in operation.__struct_fields__]
        edits = [edit for edit in edits if edit is not UNSET]
        if len(edits) != 1 or edits[0] is False:
            raise refuse(self.name, "exactly one operation is needed", _EXAMPLE)
        state = view.state
        assert isinstance(state, State)  # noqa: S101
        live = self._open(state, view.pending, origin.replica)
        base = edits[0].base if isinstance(edits[0], _Insert | _Delete) else UNSET
        if base is UNSET or read_version(base) == live.version():
            _edit(live, edits[0])
            data = live.take()
        else:
            entries = _merge_entries(state, view.pending)
            past = rewind(live.client, [content for _, (_, content) in entries], read_version(base))
            _edit(past, edits[0])
            data = past.take()
            live.feed_edit(data)
        if not data:
            return Change()
        if len(state.tail) + 1 < MERGED_UPDATES:
            return Change(entry=((), data))
        updates = [*(update for _, update in state.tail), live.latest]
        return Change({dot for dot, _ in state.tail}, ((), live.merge(updates)))

    def value(self, state: dotted.State) -> object:
        """Return texts, lists and the tree of all updates whose causes are there."""
        assert isinstance(state, State)  # noqa: S101
        state.forget_installed()
        if state.ahead:
            return _show(state, _build(state, self.empty(), READER)[0])
        try:
            return _show(state, self._open(state, self.empty(), None))
        except OperationError:
            state.drop()
            raise

    def show(self, entries: Iterable[tuple[Dot, Path, bytes]]) -> object:
        """Return texts, lists and the tree."""
        live = LiveDocument(client_of(READER))
        for _, _, data in sorted(entries):
            live.feed(data)
        return live.read()

    def check(self, path: Path, content: bytes) -> None:
        """Refuse anything but an update that an edit makes."""
        read_update(content)
        if path:
            raise MalformedError(f"{self.name}: an entry has a path")

    def decode(self, data: bytes) -> dotted.State:
        """Return the entries and the context; refuse an update under another replica's dot."""
        state = super().decode(data)
        for dot, (_, content) in state.owner.items():
            if read_update(content).client not in (0, client_of(dot[0])):
                raise MalformedError(f"{self.name}: an update is another replica's")
        return state

    def _open(self, state: State, pending: dotted.State, writer: str | None) -> LiveDocument:
        """Return the document of both, for this writer or for reading only."""
        live = state.live
        if live is None or not (writer is None or live.client == client_of(writer)) or not state.catch_up(pending):
            if writer is not None:
                _check_client(writer, state, pending)
            state.drop()
            state.live, state.ahead, state.tail = _build(state, pending, writer or READER)
        live = state.live
        assert live is not None  # noqa: S101
        self._shelf.pop(id(state), None)
        self._shelf[id(state)] = state
        while len(self._shelf) > LIVE_MAX:
            self._shelf.popitem(last=False)[1].drop()
        return live


def _build(
    state: State, pending: dotted.State, writer: str
) -> tuple[LiveDocument, dict[Dot, Entry], list[tuple[Dot, Update]]]:
    """Return the document of both in the library, what is only pending, and the writer's tail."""
    live = LiveDocument(client_of(writer))
    ahead = {dot: entry for dot, entry in pending.owner.items() if dot not in state.context}
    tail: list[tuple[Dot, Update]] = []
    for dot, entry in _merge_entries(state, pending):
        update = live.feed(entry[1])
        if dot[0] == writer:
            tail = [*tail, (dot, update)] if len(entry[1]) < CHUNK_BYTES else []
    return live, ahead, tail


def _merge_entries(state: dotted.State, pending: dotted.State) -> list[tuple[Dot, Entry]]:
    """Return the entries of both together, in the order of their dots."""
    ahead = {dot: entry for dot, entry in pending.owner.items() if dot not in state.context}
    kept = {dot: entry for dot, entry in state.owner.items() if dot in pending.owner or dot not in pending.context}
    return sorted({**kept, **ahead}.items())


def _show(state: State, live: LiveDocument) -> dict[str, object]:
    """Return what readers see of a state and its document."""
    edits = sum(last - first + 1 for _, first, last in state.context.spans())
    return {**live.read(), "version": write_version(live.version()), "edits": edits}


def _check_client(writer: str, *states: dotted.State) -> None:
    """Refuse to write where another replica has the writer's client id, a chance of one in 2**53 for each."""
    others = {replica for state in states for replica in state.context.replicas()} - {writer}
    if client_of(writer) in map(client_of, others):
        raise OperationError("document: two replicas have one client id", "write through another node", "id_collision")


def _edit(live: LiveDocument, edit: _Append | _Insert | _Delete | _Set | _Remove | bool) -> None:
    """Make one edit of an operation.

    Raises:
        OperationError: It is malformed, exceeds a limit or does not fit the document.
    """
    if isinstance(edit, bool):
        live.clear()
    elif isinstance(edit, _Set):
        key = _read_names(edit.path)
        leaves: dict[str, str] = {}
        pack_json(edit.value, dotted.STATE_BYTES_MAX)
        _explode(edit.path, edit.value, leaves)
        # Leaves at the beginnings of the path would be hidden.
        above = {write_path(edit.path[:length]) for length in range(1, len(edit.path))}
        live.edit_map([known for known in live.list_keys() if known in above or _is_within(known, key)], leaves)
    elif isinstance(edit, _Remove):
        key = _read_names(edit.path)
        live.edit_map([known for known in live.list_keys() if _is_within(known, key)], {})
    else:
        if (edit.text is UNSET) == (edit.list is UNSET):
            raise refuse(Document.name, "either text or list is needed", _EXAMPLE)
        name = str(edit.list if edit.text is UNSET else edit.text)
        _read_names([name])
        at = None if isinstance(edit, _Append) else edit.at
        count = edit.count if isinstance(edit, _Delete) else 0
        if edit.text is UNSET:
            leaf = None if isinstance(edit, _Delete) else pack_json(edit.value, LEAF_BYTES_MAX).decode()
            live.edit_list(name, at, count, leaf)
        else:
            live.edit_text(name, at, count, "" if isinstance(edit, _Delete) else _read_text(edit.value))


def _read_names(names: list[str]) -> str:
    """Return the key of a path."""
    if not all(map(fits_text, names)):
        raise refuse(Document.name, "a name is at most 256 bytes of UTF-8", _EXAMPLE)
    return write_path(names)


def _read_text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise refuse(Document.name, "what is inserted into a text is a text", _EXAMPLE)
    if len(value) > TEXT_INSERT_BYTES_MAX or len(value.encode()) > TEXT_INSERT_BYTES_MAX:
        raise OperationError("document: more than 64 KiB of text at once", "insert it in parts", "limit_exceeded")
    return value


def _is_within(key: str, above: str) -> bool:
    """Tell whether a key's path is `above` or leads on from it; keys are JSON arrays."""
    return key == above or key.startswith(above[:-1] + ",")


def _explode(path: list[str], value: object, leaves: dict[str, str]) -> None:
    """Add the leaves of `value` at `path`."""
    if isinstance(value, dict) and value:
        if len(path) >= PATH_PARTS_MAX:
            raise OperationError(
                f"document: paths have at most {PATH_PARTS_MAX} parts", "store a flatter value", "limit_exceeded"
            )
        for name, below in value.items():
            _read_names([name])
            _explode([*path, name], below, leaves)
        return
    leaves[write_path(path)] = pack_json(value, LEAF_BYTES_MAX).decode()
    if len(leaves) > LEAVES_MAX:
        raise OperationError(f"document: more than {LEAVES_MAX} leaves at once", "set it in parts", "limit_exceeded")
