"""What all causal types share: entries that live under dots, and a context of every dot seen.

A state maps each present dot to an entry (path, content). A write covers the dots that it has seen and replaces, and
may add one dot of its own; a dot that the context has seen and no entry keeps is gone for ever, so nothing needs a
tombstone and nothing resurrects (Bieniusa et al., arXiv:1210.3368; dot stores and deltas: Almeida et al.,
arXiv:1603.01529). A type only says what a write covers and adds, and how the entries read. Paths let one type hold
others under one context: what a map's field holds is whatever lies below its path.
"""

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
from msgspec import Meta

from crdt_service.datatypes.contract import Datatype, Origin
from crdt_service.datatypes.operation import read_packed
from crdt_service.kernel.dot import COUNTER_MAX, CausalContext, Dot, check_dot
from crdt_service.kernel.error import MalformedError, OperationError

# One writer stops here; raising it lengthens reads, digests and repairs of a full key, which cost its size.
ENTRIES_MAX = 10_000
# The same for paths and contents together: replicas that filled a key concurrently may join to more, and about four
# full ones still fit one frame. Raising it lets fewer of them.
STATE_BYTES_MAX = 4 << 20
# Eight maps and the two parts that the innermost type may add.
PATH_PARTS_MAX = 10

Path = tuple[str, ...]
Entry = tuple[Path, bytes]
_NONE: frozenset[Dot] = frozenset()


class State:
    """Present dots, indexed by path, and every dot seen.

    Each dot climbs unseen < present < gone, so joins are joins per dot.

    Attributes:
        owner: Present dot to its entry.
        exact: Path to its present dots, never empty.
        below: Proper prefix of a path to the present dots under it, never empty; the root is `owner` itself.
        context: All dots seen, those gone included.
        size_bytes: Bytes of all entries' paths and contents.
    """

    __slots__ = ("below", "context", "exact", "owner", "size_bytes")

    def __init__(self, seen: Iterable[Dot] = ()) -> None:
        self.owner: dict[Dot, Entry] = {}
        self.exact: dict[Path, set[Dot]] = {}
        self.below: dict[Path, set[Dot]] = {}
        self.context = CausalContext(seen)
        self.size_bytes = 0

    def index(self, path: Path) -> Iterable[Path]:
        """Return the keys of `below` that find an entry at `path`."""
        return [path[:length] for length in range(1, len(path))] if len(path) > 1 else ()

    def insert(self, dot: Dot, entry: Entry) -> None:
        """Make `dot` present with `entry`."""
        path = entry[0]
        self.owner[dot] = entry
        dots = self.exact.get(path)
        if dots is None:
            self.exact[path] = {dot}
        else:
            dots.add(dot)
        for key in self.index(path):
            self.below.setdefault(key, set()).add(dot)
        self.size_bytes += measure(entry)

    def discard(self, dot: Dot) -> None:
        """Make `dot` no longer present; the context still remembers it."""
        entry = self.owner.pop(dot, None)
        if entry is None:
            return
        path = entry[0]
        _drop(self.exact, path, dot)
        for key in self.index(path):
            _drop(self.below, key, dot)
        self.size_bytes -= measure(entry)

    def join(self, delta: "State") -> None:
        """Drop what `delta` has seen go, add what this state has not seen; costs the size of `delta`."""
        for dot in self._covered(delta.context):
            if dot not in delta.owner:
                self.discard(dot)
        for dot, entry in delta.owner.items():
            if dot not in self.context:
                self.insert(dot, entry)
            elif dot in self.owner and self.owner[dot] < entry:  # Only a faulty replica gives one dot two entries.
                self.discard(dot)
                self.insert(dot, entry)
        self.context.merge(delta.context)

    def _covered(self, context: CausalContext) -> list[Dot]:
        """Return the present dots that `context` has seen, at the cost of the smaller of both."""
        if sum(context.vector.values()) > len(self.owner):
            return [dot for dot in self.owner if dot in context]
        dots = [(replica, counter) for replica, last in context.vector.items() for counter in range(1, last + 1)]
        return [dot for dot in (*dots, *context.cloud) if dot in self.owner]


class View:
    """The part below `prefix` of the join of a state and what is pending, without making that join."""

    __slots__ = ("_pending", "_state", "prefix")

    def __init__(self, state: State, pending: State, prefix: Path = ()) -> None:
        self._state = state
        self._pending = pending
        self.prefix = prefix

    def within(self, part: str) -> "View":
        """Return the view below one more part."""
        return View(self._state, self._pending, (*self.prefix, part))

    def at(self, *path: str) -> set[Dot]:
        """Return the present dots exactly at `path`."""
        key = self.prefix + path
        ours, theirs = self._state.exact.get(key, _NONE), self._pending.exact.get(key, _NONE)
        return set(self._seen(ours, theirs)) if ours or theirs else set()

    def under(self, *path: str) -> set[Dot]:
        """Return the present dots at and below `path`; costs their number."""
        key = self.prefix + path
        below = self._seen(self._state.below.get(key, _NONE), self._pending.below.get(key, _NONE))
        return self.at(*path).union(below)

    def has(self, *path: str) -> bool:
        """Tell whether anything is present at or below `path`."""
        key = self.prefix + path
        ours, theirs = self._state, self._pending
        return any(
            True
            for index in ("exact", "below")
            for _ in self._seen(getattr(ours, index).get(key, _NONE), getattr(theirs, index).get(key, _NONE))
        )

    def content(self, dot: Dot) -> bytes:
        """Return the content of a present dot."""
        return (self._state.owner.get(dot) or self._pending.owner[dot])[1]

    def _seen(self, ours: Collection[Dot], theirs: Collection[Dot]) -> Iterator[Dot]:
        for dot in ours:
            if dot in theirs or dot not in self._pending.context:
                yield dot
        for dot in theirs:
            if dot not in ours and dot not in self._state.context:
                yield dot


@dataclass(frozen=True, slots=True)
class Change:
    """What one operation does.

    Attributes:
        covered: Seen dots that it makes go.
        entry: What its own new dot holds, with a path relative to the view; None if it adds none.
    """

    covered: set[Dot] = field(default_factory=set)
    entry: Entry | None = None


class _Plain(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    replicas: list[str]
    entries: list[tuple[int, int, Annotated[tuple[str, ...], Meta(max_length=PATH_PARTS_MAX)], bytes]]
    vector: list[tuple[int, int]]
    cloud: list[tuple[int, int]]


_state = msgspec.msgpack.Decoder(_Plain)
_encoder = msgspec.msgpack.Encoder()


class Dotted(Datatype[State]):
    """A type whose state is entries under dots; a subclass says what operations change and how entries read."""

    state_class: type[State] = State

    @abstractmethod
    def plan(self, view: View, op: bytes, origin: Origin) -> Change:
        """Return what a JSON operation covers and adds.

        Raises:
            OperationError: The operation is malformed, exceeds a limit or does not fit what is there.
        """

    @abstractmethod
    def show(self, entries: Iterable[tuple[Dot, Path, bytes]]) -> object:
        """Return what readers see of entries given in any order, as something that JSON can hold."""

    @abstractmethod
    def check(self, path: Path, content: bytes) -> None:
        """Refuse an entry that `plan` never makes.

        Raises:
            MalformedError: It breaks the type's format or limits.
        """

    def stamp(self, path: Path, content: bytes) -> int:
        """Return the hybrid logical stamp in an entry, 0 if the type keeps none."""
        return 0

    def empty(self) -> State:
        """Return the state that has seen nothing."""
        return self.state_class()

    def apply(self, state: State, pending: State, op: bytes, origin: Origin) -> State:
        """Return the covered dots as the delta's context, and a new dot if the operation adds an entry."""
        change = self.plan(View(state, pending), op, origin)
        delta = self.state_class(change.covered)
        if change.entry is None:
            return delta
        grown = state.size_bytes + pending.size_bytes + measure(change.entry)
        if not change.covered and len(state.owner) + len(pending.owner) >= ENTRIES_MAX:
            raise OperationError(f"the key holds {ENTRIES_MAX} entries", "use another key", "limit_exceeded")
        if grown > STATE_BYTES_MAX and grown > STATE_BYTES_MAX + _measure_covered(change.covered, state, pending):
            raise OperationError("the key holds 4 MiB", "use another key", "limit_exceeded")
        counter = max(state.context.newest(origin.replica), pending.context.newest(origin.replica)) + 1
        if counter > COUNTER_MAX:
            raise OperationError("this replica's dots of the key are used up", "use another key", "limit_exceeded")
        dot = (origin.replica, counter)
        delta.context.add(dot)
        delta.insert(dot, change.entry)
        return delta

    def join(self, state: State, delta: State) -> State:
        """Return the join per dot."""
        state.join(delta)
        return state

    def value(self, state: State) -> object:
        """Return what the present entries say."""
        return self.show((dot, path, content) for dot, (path, content) in state.owner.items())

    def encode(self, state: State) -> bytes:
        """Return replica names once, then entries, vector and cloud by the names' positions, all sorted."""
        vector, cloud = state.context.to_plain()
        replicas = sorted({replica for replica, _ in (*vector, *cloud)})
        place = {replica: position for position, replica in enumerate(replicas)}
        owner = state.owner
        dots = sorted(owner) if len(owner) > 1 else owner
        return _encoder.encode(
            (
                replicas,
                [(place[dot[0]], dot[1], *owner[dot]) for dot in dots],
                [(place[replica], counter) for replica, counter in vector],
                [(place[replica], counter) for replica, counter in cloud],
            )
        )

    def decode(self, data: bytes) -> State:
        """Return the entries and the context."""
        plain = read_packed(_state, data, self.name)
        names = plain.replicas
        state = self.state_class()
        state.context = CausalContext.from_plain(_name(plain.vector, names), _name(plain.cloud, names))
        for place, counter, path, content in plain.entries:
            (dot,) = _name([(place, counter)], names)
            check_dot(dot)
            if dot not in state.context or dot in state.owner:
                raise MalformedError(f"{self.name}: a dot is unseen or has two entries")
            self.check(path, content)
            state.insert(dot, (path, content))
        if self.encode(state) != data:
            raise MalformedError(f"{self.name}: not canonical")
        return state

    def newest_stamp(self, state: State) -> int:
        """Return the newest stamp in any present entry."""
        return max((self.stamp(path, content) for path, content in state.owner.values()), default=0)


def measure(entry: Entry) -> int:
    """Return the bytes of an entry's path and content."""
    path, content = entry
    text = path[0] if len(path) == 1 else "".join(path)
    return (len(text) if text.isascii() else len(text.encode())) + len(content)


def _measure_covered(dots: set[Dot], *states: State) -> int:
    return sum(measure(state.owner[dot]) for dot in dots for state in states if dot in state.owner)


def _name(dots: list[tuple[int, int]], names: list[str]) -> list[Dot]:
    if not all(0 <= place < len(names) for place, _ in dots):
        raise MalformedError("a dot names no replica")
    return [(names[place], counter) for place, counter in dots]


def _drop(index: dict[Path, set[Dot]], key: Path, dot: Dot) -> None:
    index[key].discard(dot)
    if not index[key]:
        del index[key]
