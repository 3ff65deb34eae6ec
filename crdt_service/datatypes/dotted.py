"""What all causal types share: entries that live under dots, and a context of every dot seen.

A state maps each present dot to an entry (path, content). A write covers the dots that it has seen and replaces, and
may add one dot of its own; a dot that the context has seen and no entry keeps is gone for ever, so nothing needs a
tombstone and nothing resurrects (Bieniusa et al., arXiv:1210.3368; dot stores and deltas: Almeida et al.,
arXiv:1603.01529). A type only says what a write covers and adds, and how the entries read. Paths let one type hold
others under one context: what a map's field holds is whatever lies below its path.
"""

from abc import abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import lt
from typing import Annotated

import msgspec
from msgspec import Meta

from crdt_service.datatypes.contract import Datatype, Origin
from crdt_service.datatypes.operation import is_clear, read_packed
from crdt_service.datatypes.origins import check_origin
from crdt_service.datatypes.part import PART_ITEMS_MAX
from crdt_service.kernel.dot import COUNTER_MAX, CausalContext, Dot
from crdt_service.kernel.error import MalformedError, OperationError
from crdt_service.kernel.ident import is_replica

# One writer stops here; raising it lengthens reads, digests and repairs of a full key, which cost its size.
ENTRIES_MAX = 10_000
# The same for paths and contents together: replicas that filled a key concurrently may join to more, and about four
# full ones still fit one frame. Raising it lets fewer of them.
STATE_BYTES_MAX = 4 << 20
# Eight maps and the two parts that the innermost type may add.
PATH_PARTS_MAX = 10
# What an entry or a span adds to an encoding beside the texts and contents, at most about; `split` counts it for each.
_OVERHEAD_BYTES = 20

Path = tuple[str, ...]
Entry = tuple[Path, bytes]
# Of a type that can be empty without being deleted: says that the key is there.
PRESENCE: Entry = ((), b"")
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
        """Return the keys of `below` that find an entry at a `path` of several parts."""
        return [path[:length] for length in range(1, len(path))]

    def insert(self, dot: Dot, entry: Entry) -> None:
        """Make `dot` present with `entry`."""
        path = entry[0]
        self.owner[dot] = entry
        dots = self.exact.get(path)
        if dots is None:
            self.exact[path] = {dot}
        else:
            dots.add(dot)
        for key in self.index(path) if len(path) > 1 else ():
            self.below.setdefault(key, set()).add(dot)
        self.size_bytes += measure(entry)

    def discard(self, dot: Dot) -> None:
        """Make `dot` no longer present; the context still remembers it."""
        entry = self.owner.pop(dot, None)
        if entry is None:
            return
        path = entry[0]
        _drop(self.exact, path, dot)
        for key in self.index(path) if len(path) > 1 else ():
            _drop(self.below, key, dot)
        self.size_bytes -= measure(entry)

    def join(self, delta: "State") -> None:
        """Drop what `delta` has seen go, add what this state has not seen; costs the size of `delta`."""
        for dot in delta.context.pick(self.owner) if self.owner else ():
            if dot not in delta.owner:
                self.discard(dot)
        for dot, entry in delta.owner.items():
            if dot not in self.context:
                self.insert(dot, entry)
            elif dot in self.owner and self.owner[dot] < entry:  # Only a faulty replica gives one dot two entries.
                self.replace(dot, entry)
        self.context.merge(delta.context)

    def replace(self, dot: Dot, entry: Entry) -> None:
        """Give a present dot another entry."""
        self.discard(dot)
        self.insert(dot, entry)


class View:
    """The part below `prefix` of the join of a state and what is pending, without making that join."""

    __slots__ = ("pending", "prefix", "state")

    def __init__(self, state: State, pending: State, prefix: Path = ()) -> None:
        self.state = state
        self.pending = pending
        self.prefix = prefix

    def within(self, part: str) -> "View":
        """Return the view below one more part."""
        return View(self.state, self.pending, (*self.prefix, part))

    def at(self, *path: str) -> set[Dot]:
        """Return the present dots exactly at `path`."""
        key = self.prefix + path
        ours, theirs = self.state.exact.get(key, _NONE), self.pending.exact.get(key, _NONE)
        if not theirs and not self.pending.context:
            return set(ours)
        return set(self._seen(ours, theirs)) if ours or theirs else set()

    def everything(self) -> set[Dot]:
        """Return all present dots; costs their number."""
        return set(self._seen(self.state.owner, self.pending.owner))

    def under(self, *path: str) -> set[Dot]:
        """Return the present dots at and below `path`; costs their number."""
        key = self.prefix + path
        below = self._seen(self.state.below.get(key, _NONE), self.pending.below.get(key, _NONE))
        return self.at(*path).union(below)

    def has(self, *path: str) -> bool:
        """Tell whether anything is present at or below `path`."""
        key = self.prefix + path
        ours, theirs = self.state, self.pending
        return any(
            True
            for index in ("exact", "below")
            for _ in self._seen(getattr(ours, index).get(key, _NONE), getattr(theirs, index).get(key, _NONE))
        )

    def content(self, dot: Dot) -> bytes:
        """Return the content of a present dot."""
        return (self.state.owner.get(dot) or self.pending.owner[dot])[1]

    def _seen(self, ours: Collection[Dot], theirs: Collection[Dot]) -> Iterator[Dot]:
        for dot in ours:
            if dot in theirs or dot not in self.pending.context:
                yield dot
        for dot in theirs:
            if dot not in ours and dot not in self.state.context:
                yield dot


@dataclass(slots=True)  # Frozen ones take twice as long to make.
class Change:
    """What one operation does.

    Attributes:
        covered: Seen dots that it makes go.
        entry: What its own new dot holds, with a path relative to the view; None if it adds none.
    """

    covered: set[Dot] = field(default_factory=set)
    entry: Entry | None = None


Counter = Annotated[int, Meta(ge=1, le=COUNTER_MAX)]
Place = Annotated[int, Meta(ge=0)]


class _Plain(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    replicas: Annotated[list[str], Meta(max_length=PART_ITEMS_MAX)]
    entries: Annotated[
        list[tuple[Place, Counter, Annotated[tuple[str, ...], Meta(max_length=PATH_PARTS_MAX)], bytes]],
        Meta(max_length=PART_ITEMS_MAX),
    ]
    vector: list[tuple[Place, Counter]]
    # First counter, and how many more follow it.
    cloud: Annotated[list[tuple[Place, Counter, Annotated[int, Meta(ge=0)]]], Meta(max_length=PART_ITEMS_MAX)]


class _Own(msgspec.Struct, array_like=True):
    replicas: list[str]
    entries: list[tuple[int, int, tuple[str, ...], bytes]]
    vector: list[tuple[int, int]]
    cloud: list[tuple[int, int, int]]


_state = msgspec.msgpack.Decoder(_Plain)
_own = msgspec.msgpack.Decoder(_Own)
_encoder = msgspec.msgpack.Encoder()


class Dotted(Datatype[State]):
    """A type whose state is entries under dots; a subclass says what operations change and how entries read.

    Every one takes ``{"clear": true}``, which covers all that its writer has seen: what is added concurrently stays.

    Attributes:
        state_class: Of its states.
        keeps_presence: Whether a removal notes that the key is there, so that it reads as empty rather than missing
            once everything else is gone, by whoever's removals. Clearing covers that, too.
    """

    state_class: type[State] = State
    can_clear = True
    keeps_presence: bool = False

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
        view = View(state, pending)
        is_clearing = self.can_clear and is_clear(op)
        change = Change(view.everything()) if is_clearing else self.plan(view, op, origin)
        delta = self.state_class(change.covered)
        if change.entry is None and self.keeps_presence and change.covered and not is_clearing:
            change.entry = None if _is_present(view) else PRESENCE
        if change.entry is None or (change.entry == PRESENCE and not origin.may_note_presence):
            return delta
        try:
            self._add(delta, change, view, origin)
        except OperationError:
            if change.entry != PRESENCE:  # What is full, or was written under too many origins, can still be emptied.
                raise
        return delta

    def _add(self, delta: State, change: Change, view: View, origin: Origin) -> None:
        """Add the entry of a change to its delta, under a new dot.

        Raises:
            OperationError: There would be too much, or too many origins.
        """
        assert change.entry is not None, "there is one"  # noqa: S101
        state, pending = view.state, view.pending
        grown = state.size_bytes + pending.size_bytes + measure(change.entry)
        if not change.covered and len(state.owner) + len(pending.owner) >= ENTRIES_MAX:
            raise OperationError(f"the key holds {ENTRIES_MAX} entries", "use another key", "limit_exceeded")
        if grown > STATE_BYTES_MAX and grown > STATE_BYTES_MAX + _measure_covered(change.covered, state, pending):
            raise OperationError("the key holds 4 MiB", "use another key", "limit_exceeded")
        seen = (state.context, pending.context)
        check_origin(origin.replica, *(origins for context in seen for origins in (context.vector, context.cloud)))
        newest = max(context.newest(origin.replica) for context in seen)
        counter = max(newest, origin.floor) + 1
        if counter > COUNTER_MAX:
            raise OperationError("this replica's dots of the key are used up", "use another key", "limit_exceeded")
        dot = (origin.replica, counter)
        # Those in between were never given here, or to entries that were seen to go: no gap remains.
        delta.context.add_span(origin.replica, newest + 1, counter)
        delta.insert(dot, change.entry)

    def join(self, state: State, delta: State) -> State:
        """Return the join per dot."""
        state.join(delta)
        return state

    def is_vacant(self, state: State) -> bool:
        """Tell whether no entry is present."""
        return not state.owner

    def newest_dot(self, state: State, replica: str) -> int:
        """Return the highest counter seen of `replica`."""
        return state.context.newest(replica)

    def value(self, state: State) -> object:
        """Return what the present entries say."""
        return self.show((dot, path, content) for dot, (path, content) in state.owner.items())

    def encode(self, state: State) -> bytes:
        """Return replica names once, then entries, vector and cloud by the names' positions, all sorted."""
        context, owner = state.context, state.owner
        replicas = context.replicas()
        place = {replica: position for position, replica in enumerate(replicas)}
        dots = sorted(owner) if len(owner) > 1 else owner
        vector, cloud = context.vector, context.cloud
        return _encoder.encode(
            (
                replicas,
                [(place[dot[0]], dot[1], *owner[dot]) for dot in dots],
                [(place[replica], vector[replica]) for replica in replicas if replica in vector],
                [
                    (place[replica], first, last - first)
                    for replica in (replicas if cloud else ())
                    for first, last in cloud.get(replica, ())
                ],
            )
        )

    def decode(self, data: bytes) -> State:
        """Return the entries and the context."""
        plain = read_packed(_state, data, self.name)
        # Minimal msgpack and sorted without repetition: only then are these the bytes that `encode` returns.
        if _encoder.encode(plain) != data or not _is_sorted(plain.replicas) or not all(map(is_replica, plain.replicas)):
            raise MalformedError(f"{self.name}: not canonical")
        state = self.state_class()
        state.context = _read_context(plain, self.name)
        last = (-1, 0)
        for place, counter, path, content in plain.entries:
            if (place, counter) <= last or place >= len(plain.replicas):
                raise MalformedError(f"{self.name}: a dot has two entries or no place")
            last = (place, counter)
            dot = (plain.replicas[place], counter)
            if dot not in state.context:
                raise MalformedError(f"{self.name}: a dot is unseen")
            if not self.keeps_presence or (path, content) != PRESENCE:
                self.check(path, content)
            state.insert(dot, (path, content))
        return state

    def restore(self, data: bytes) -> State:
        """Return the entries and the context of bytes that this program wrote."""
        plain = read_packed(_own, data, self.name)
        state = self.state_class()
        names, context = plain.replicas, state.context
        context.vector = {names[place]: counter for place, counter in plain.vector}
        for place, first, more in plain.cloud:
            context.add_span(names[place], first, first + more)
        for place, counter, path, content in plain.entries:
            state.insert((names[place], counter), (path, content))
        return state

    def split(self, state: State, bytes_max: int) -> Iterator[State]:
        """Yield parts, each of one stretch of dots or more with all that is present in it.

        A part's context has seen no dot of another part, so joining it makes nothing go that another part holds.
        """
        bytes_max = min(bytes_max, PART_ITEMS_MAX * _OVERHEAD_BYTES)
        present: dict[str, list[int]] = {}
        for replica, counter in sorted(state.owner):
            present.setdefault(replica, []).append(counter)
        part, total = self.state_class(), 0
        for replica, begin, end in state.context.spans():
            counters = present.get(replica, [])
            inside = counters[bisect_left(counters, begin) : bisect_right(counters, end)]
            first = begin
            total += _OVERHEAD_BYTES + len(replica)
            for counter in inside:
                entry = state.owner[replica, counter]
                size = measure(entry) + _OVERHEAD_BYTES + 2 * len(entry[0])
                if total + size > bytes_max and part.owner:
                    if counter > first:
                        part.context.add_span(replica, first, counter - 1)
                    yield part
                    part, total, first = self.state_class(), _OVERHEAD_BYTES + len(replica), counter
                part.insert((replica, counter), entry)
                total += size
            part.context.add_span(replica, first, end)
            if total > bytes_max:
                yield part
                part, total = self.state_class(), 0
        if part.context or not state.context:
            yield part

    def newest_stamp(self, state: State) -> int:
        """Return the newest stamp in any present entry."""
        return max((self.stamp(path, content) for path, content in state.owner.values()), default=0)


def measure(entry: Entry) -> int:
    """Return the bytes of an entry's path and content."""
    path, content = entry
    text = path[0] if len(path) == 1 else "".join(path)
    return (len(text) if text.isascii() else len(text.encode())) + len(content)


def _is_present(view: View) -> bool:
    return any(not view.content(dot) for dot in view.at())


def _measure_covered(dots: set[Dot], *states: State) -> int:
    return sum(measure(state.owner[dot]) for dot in dots for state in states if dot in state.owner)


def _is_sorted(items: Sequence[str]) -> bool:
    """Tell whether each item is greater than the one before."""
    return all(map(lt, items, islice(items, 1, None)))


def _read_context(plain: _Plain, name: str) -> CausalContext:
    """Return the context of the vector and the cloud.

    Raises:
        MalformedError: They are not what `CausalContext` keeps, or leave a replica without a dot.
    """
    names, context = plain.replicas, CausalContext()
    refusal = MalformedError(f"{name}: the context is not canonical")
    last = -1
    for place, counter in plain.vector:
        if not last < place < len(names):
            raise refusal
        context.vector[names[place]] = counter
        last = place
    last, newest = -1, 0
    for place, first, more in plain.cloud:
        if not last <= place < len(names):
            raise refusal
        if place > last:
            last, newest = place, context.vector.get(names[place], 0)
            context.cloud[names[place]] = []
        if first <= newest + 1 or first + more > COUNTER_MAX:
            raise refusal
        newest = first + more
        context.cloud[names[place]].append((first, newest))
    if len(context.replicas()) != len(names):
        raise refusal
    return context


def _drop(index: dict[Path, set[Dot]], key: Path, dot: Dot) -> None:
    index[key].discard(dot)
    if not index[key]:
        del index[key]
