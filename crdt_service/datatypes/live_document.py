"""A document inside the library: fed with updates, edited, read as JSON.

The library never sees a struct before all that it needs: yrs, as of pycrdt 0.14.13, loses some of what waits when many
updates arrive in reverse. Structs and deletions wait here instead, each by itself, so what shows depends on the set of
them and neither on their order nor on how they were merged into updates.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from heapq import heappop, heappush
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
from pycrdt import Array, Doc, Map, Text

from crdt_service.datatypes.document_version import DIGEST_BYTES, Version
from crdt_service.datatypes.yjs_update import (
    CLIENT_MAX,
    LIST_ROOT,
    MAP_ROOT,
    TEXT_ROOT,
    Deletions,
    Snapshot,
    Span,
    Update,
    read_path,
    read_snapshot,
    read_structs,
    read_update,
    write_deletions,
    write_numbers,
)
from crdt_service.kernel.error import MalformedError, OperationError

# The code of the error after which a document in the library is of no more use.
DAMAGED = "document_damaged"


@lru_cache(4096)
def client_of(replica: str) -> int:
    """Return the library's client id of a replica: 53 bits of its hash, never 0.

    A fresh data directory draws a fresh replica id, so no client id is used again for clocks that were lost.
    """
    return int.from_bytes(blake2b(replica.encode(), digest_size=8).digest(), "big") % CLIENT_MAX + 1


class _Structs(NamedTuple):
    """An update whose structs wait."""

    update: Update
    data: bytes


class LiveDocument:
    """One document in the library.

    Attributes:
        client: Whose edits it makes.
        latest: What the last update holds that `take` or `merge` returned.
        is_edited: Whether it holds an edit that nobody has claimed by setting this to false.
    """

    def __init__(self, client: int) -> None:
        self.client = client
        self.latest = Update()
        self.is_edited = False
        self._doc: Any = Doc(client_id=client)
        self._clocks: dict[int, int] = {}
        self._texts: dict[str, Any] = {}
        self._lists: dict[str, Any] = {}
        self._map: Any = self._doc.get(MAP_ROOT, type=Map)
        self._has_wide_text = False
        # Heaps of what waits, by the client of which too little is known, and the clock that it waits for.
        self._waiting: dict[int, list[tuple[int, int, _Structs | Span]]] = {}
        self._woken: list[int] = []
        self._order = 0
        self._emitted: list[bytes] = []

    def feed(self, data: bytes) -> Update:
        """Take an update in, each part as soon as all that it needs is here; return what it holds.

        Raises:
            OperationError: The library fails on it; the document is of no more use.
        """
        update = read_update(data)
        if self._is_ready(update):
            self._apply(data)
            self._note(update.client, update.end, update)
        else:
            self._take_structs(_Structs(update, data))
            for client, spans in update.deletions.items():
                for span in spans:
                    self._take_deletion(client, span)
        while self._woken:
            client = self._woken.pop()
            queue = self._waiting[client]
            while queue and queue[0][0] <= self._clocks[client]:
                item = heappop(queue)[2]
                if isinstance(item, _Structs):
                    self._take_structs(item)
                else:
                    self._take_deletion(client, item)
        return update

    def feed_edit(self, data: bytes) -> None:
        """Take in an edit of this client that another document of it made."""
        self.is_edited = True
        self.latest = self.feed(data)

    def edit_text(self, name: str, at: int | None, count: int, inserted: str) -> None:
        """Delete `count` code points at `at` of a text, None for its end, and insert others there.

        Raises:
            OperationError: The text has no such place.
        """
        with _guard():
            text = self._root(TEXT_ROOT + name)
            if self._has_wide_text:
                now = str(text)
                at = len(now) if at is None else at
                _check_range("text", name, at, count, len(now))
                # The library counts bytes of UTF-8.
                begin = len(now[:at].encode())
                end = begin + len(now[at : at + count].encode())
            else:
                at = len(text) if at is None else at
                _check_range("text", name, at, count, len(text))
                begin, end = at, at + count
            with self._editing():
                if count:
                    del text[begin:end]
                if inserted:
                    text.insert(begin, inserted)

    def edit_list(self, name: str, at: int | None, count: int, inserted: str | None) -> None:
        """Delete `count` items at `at` of a list, None for its end, and insert the JSON of another there.

        Raises:
            OperationError: The list has no such place.
        """
        with _guard():
            items = self._root(LIST_ROOT + name)
            at = len(items) if at is None else at
            _check_range("list", name, at, count, len(items))
            with self._editing():
                if count:
                    del items[at : at + count]
                if inserted is not None:
                    items.insert(at, inserted)

    def edit_map(self, removed: Iterable[str], assigned: dict[str, str]) -> None:
        """Remove keys of the map, then give others their JSON."""
        with _guard(), self._editing():
            for key in removed:
                del self._map[key]
            for key, leaf in assigned.items():
                self._map[key] = leaf

    def clear(self) -> None:
        """Delete all there is."""
        with _guard(), self._editing():
            for root in (*self._texts.values(), *self._lists.values()):
                if len(root):
                    del root[0 : len(root)]
            self._map.clear()

    def list_keys(self) -> list[str]:
        """Return the keys of the map."""
        with _guard():
            return list(self._map.keys())

    def take(self) -> bytes:
        """Return the update of the edit just made, empty if it changed nothing."""
        data = self._emitted.pop() if self._emitted else b""
        self._emitted.clear()
        if data:
            self.latest = read_update(data)
            self._note(self.client, self.latest.end, self.latest)
        return data

    def merge(self, updates: list[Update]) -> bytes:
        """Return one update in the place of consecutive own ones, the newest included; deleted content is left out."""
        deletions: Deletions = {}
        for update in updates:
            for client, spans in update.deletions.items():
                deletions.setdefault(client, []).extend(spans)
        first = min((update.first for update in updates if update.client), default=None)
        if first is None:
            self.latest = Update(deletions=deletions)
            return b"\x00" + write_deletions(deletions)
        known = {**self._clocks, self.client: first}
        with _guard():
            state = write_numbers(len(known), *(number for item in known.items() for number in item))
            data = self._doc.get_update(state)
        merged = read_structs(data)
        # Who knows the content from earlier updates must see it go as well.
        if merged.gone:
            deletions.setdefault(self.client, []).extend(merged.gone)
        merged.deletions = deletions
        self.latest = merged
        return bytes(data[: merged.structs_bytes]) + write_deletions(deletions)

    def version(self) -> Version:
        """Return what is known, which of it is deleted, and a digest of the texts and lists that show."""
        clocks = {client: clock for client, clock in self._clocks.items() if clock}
        known = write_numbers(len(clocks), *(number for item in clocks.items() for number in item))
        with _guard():
            # What is sent to who knows all structs: the deletions of all times.
            data = self._doc.get_update(known)
        return Version(Snapshot(clocks, read_snapshot(data).deletions), self.digest())

    def digest(self) -> bytes:
        """Return a digest of the texts and lists that show, `DIGEST_BYTES` long."""
        with _guard():
            texts = [(name, str(text)) for name, text in sorted(self._texts.items()) if len(text)]
            lists = [(name, items.to_py()) for name, items in sorted(self._lists.items()) if len(items)]
        return blake2b(msgspec.msgpack.encode((texts, lists)), digest_size=DIGEST_BYTES).digest()

    def read(self) -> dict[str, object]:
        """Return texts, lists and the map as JSON can hold them; empty texts and lists do not show."""
        with _guard():
            texts = {name: str(text) for name, text in sorted(self._texts.items())}
            lists = {name: _read_leaves(items.to_py()) for name, items in sorted(self._lists.items())}
            tree = _read_tree(self._map.to_py())
        return {
            "texts": {name: text for name, text in texts.items() if text},
            "lists": {name: items for name, items in lists.items() if items},
            "map": tree,
        }

    def show_only(self, snapshot: Snapshot) -> bool:
        """Delete all but what a snapshot shows; return false if something that it knows is not here."""
        if any(self._clocks.get(client, 0) < clock for client, clock in snapshot.clocks.items()):
            return False
        for client, spans in snapshot.deletions.items():
            for span in spans:
                self._take_deletion(client, span)
        for client, known in list(self._clocks.items()):
            shown = snapshot.clocks.get(client, 0)
            if shown < known:
                self._take_deletion(client, (shown, known - shown))
        return True

    @contextmanager
    def _editing(self) -> Iterator[None]:
        """Keep the update of what is done meanwhile, in one transaction."""
        self.is_edited = True
        emitted = self._emitted
        # Not for longer: what the library calls holds the document for ever, and the collector does not see it.
        subscription = self._doc.observe(lambda event: emitted.append(event.update))
        try:
            with self._doc.transaction():
                yield
        finally:
            self._doc.unobserve(subscription)

    def _is_ready(self, update: Update) -> bool:
        clocks = self._clocks
        known = max(update.end, clocks.get(update.client, 0))
        return (
            clocks.get(update.client, 0) >= update.first
            and all(clocks.get(client, 0) >= clock for _, client, clock in update.needs)
            and all(
                (known if client == update.client else clocks.get(client, 0)) >= sum(span)
                for client, spans in update.deletions.items()
                for span in spans
            )
        )

    def _take_structs(self, item: "_Structs") -> None:
        """Apply the structs up to the first that needs what is not here; the rest waits for that."""
        update, data = item
        clocks, client, structs = self._clocks, update.client, update.structs
        known = clocks.get(client, 0)
        if known >= update.end:
            return
        if known < update.first:
            self._wait(client, update.first, item)
            return
        begin = bisect_right(structs, known, key=itemgetter(1)) - 1
        missing = next((need for need in update.needs if need[0] >= begin and clocks.get(need[1], 0) < need[2]), None)
        end = len(structs) if missing is None else missing[0]
        if end > begin:
            behind, clock = (update.structs_bytes, update.end) if missing is None else structs[end]
            head = b"\x01" + write_numbers(end - begin, client, structs[begin][1])
            self._apply(head + data[structs[begin][0] : behind] + b"\x00")
            self._note(client, clock, update)
        if missing is not None:
            self._wait(missing[1], missing[2], item)

    def _take_deletion(self, client: int, span: Span) -> None:
        """Apply as much of a deletion as is here; the rest waits."""
        first, end = span[0], sum(span)
        known = min(self._clocks.get(client, 0), end)
        if known > first:
            self._apply(b"\x00" + write_deletions({client: [(first, known - first)]}))
            first = known
        if first < end:
            self._wait(client, first + 1, (first, end - first))

    def _wait(self, client: int, clock: int, item: "_Structs | Span") -> None:
        self._order += 1
        heappush(self._waiting.setdefault(client, []), (clock, self._order, item))

    def _apply(self, data: bytes) -> None:
        with _guard():
            self._doc.apply_update(data)

    def _note(self, client: int, clock: int, update: Update) -> None:
        """Remember that `client` is known up to `clock`, by an update of its."""
        self._clocks[client] = max(clock, self._clocks.get(client, 0))
        self._has_wide_text |= update.has_wide_text
        for root in update.roots:
            self._root(root)
        if client in self._waiting:
            self._woken.append(client)

    def _root(self, root: str) -> Any:
        kind, name = root[:1], root[1:]
        if kind == MAP_ROOT:
            return self._map
        known = self._texts if kind == TEXT_ROOT else self._lists
        if name not in known:
            known[name] = self._doc.get(root, type=Text if kind == TEXT_ROOT else Array)
        return known[name]


def rewind(client: int, updates: Iterable[bytes], version: Version) -> LiveDocument:
    """Return the document of all the updates' structs that shows what it showed at a version.

    Structs that came later are in their places, deleted. So an edit is made as if it were concurrent with whatever
    came later, and its update goes with the document as it is now.

    Raises:
        OperationError: The updates lack what the version knows, or the content of what it shows, or it is of another
            document.
    """
    past, snapshot = LiveDocument(client), version.snapshot
    is_forgotten = False
    for data in updates:
        update = read_structs(data)
        shown, hidden = snapshot.clocks.get(update.client, 0), snapshot.deletions.get(update.client, [])
        is_forgotten |= any(_shows(first, min(first + length, shown), hidden) for first, length in update.gone)
        if update.client:
            past.feed(data[: update.structs_bytes] + b"\x00")
    if past.show_only(snapshot) and past.digest() == version.digest:
        return past
    if is_forgotten:
        raise OperationError(
            "document: something that the base shows was deleted since, and its content is forgotten",
            "read the document again, and count in what it holds now",
            "base_too_old",
        )
    raise OperationError(
        "document: the base has edits that this node has not, or is of another document",
        "read the document again, or send the operation to the node that was read",
        "unknown_base",
    )


def _shows(first: int, end: int, hidden: list[Span]) -> bool:
    """Tell whether any clock from `first` to before `end` is in none of the sorted spans."""
    for begin, length in hidden:
        if begin > first:
            break
        first = max(first, begin + length)
    return first < end


@contextmanager
def _guard() -> Iterator[None]:
    """Turn a failure of the library, panics included, into an error of ours."""
    try:
        yield
    except (OperationError, MalformedError, KeyboardInterrupt):
        raise
    except BaseException as error:  # A panic is no Exception.
        raise OperationError(f"document: the library fails: {error}", "use another key", DAMAGED) from None


def _check_range(kind: str, name: str, at: int, count: int, length: int) -> None:
    if at + count > length:
        raise OperationError(
            f"document: the {kind} {name!r} ends at {length}, before {at + count}", f"send an index up to {length}"
        )


def _read_leaves(leaves: list[Any]) -> list[object]:
    """Return JSON values; what is none came from a faulty replica and does not show."""
    values = []
    for leaf in leaves:
        try:
            values.append(msgspec.json.decode(leaf))
        except (msgspec.DecodeError, TypeError, ValueError):
            continue
    return values


def _read_tree(leaves: dict[str, Any]) -> dict[str, object]:
    """Return the object of leaves by path; where a path leads on, a leaf at its beginning is hidden."""
    tree: dict[str, Any] = {}
    for path, leaf in sorted((read_path(key), leaf) for key, leaf in leaves.items() if isinstance(leaf, str)):
        node = tree
        for part in path[:-1]:
            below = node.get(part)
            if not isinstance(below, dict):
                below = node[part] = {}
            node = below
        node[path[-1]] = msgspec.json.decode(leaf)
    return tree
