"""A set of strings where an add wins over a concurrent remove, without tombstones.

ORSWOT: each present element keeps the dots of its adds; a dot that the context has seen and no element keeps is a
removed one (Bieniusa et al., arXiv:1210.3368; deltas as in Almeida et al., arXiv:1603.01529).
"""

from collections.abc import Set as AbstractSet
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from crdt_service.datatypes.contract import Datatype, Origin
from crdt_service.kernel.dot import COUNTER_MAX, CausalContext, Dot, check_dot
from crdt_service.kernel.error import MalformedError, OperationError

ELEMENT_BYTES_MAX = 256
# One writer stops here; replicas that filled the set concurrently may join to more, which still fits one frame.
ELEMENTS_MAX = 10_000
Element = Annotated[str, Meta(max_length=ELEMENT_BYTES_MAX)]


class State:
    """Present dots, indexed both ways, and every dot seen.

    Each dot climbs unseen < present < removed, so joins are joins per dot.

    Attributes:
        owner: Present dot to its element.
        dots: Element to its present dots, never empty.
        context: All dots seen, removed ones included.
    """

    __slots__ = ("context", "dots", "owner")

    def __init__(self) -> None:
        self.owner: dict[Dot, str] = {}
        self.dots: dict[str, set[Dot]] = {}
        self.context = CausalContext()

    def insert(self, dot: Dot, element: str) -> None:
        """Make `dot` present as one of `element`."""
        self.owner[dot] = element
        self.dots.setdefault(element, set()).add(dot)

    def discard(self, dot: Dot) -> None:
        """Make `dot` no longer present; the context still remembers it."""
        element = self.owner.pop(dot, None)
        if element is not None:
            self.dots[element].discard(dot)
            if not self.dots[element]:
                del self.dots[element]


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    add: Element | UnsetType = UNSET
    remove: Element | UnsetType = UNSET


class _Plain(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    entries: list[tuple[Element, list[Dot]]]
    vector: list[Dot]
    cloud: list[Dot]


_operation = msgspec.json.Decoder(_Operation)
_state = msgspec.msgpack.Decoder(_Plain)
_encoder = msgspec.msgpack.Encoder()


class AwSet(Datatype[State]):
    """Operations ``{"add": s}`` and ``{"remove": s}``, s at most 256 bytes of UTF-8; value: a sorted list."""

    name = "aw_set"
    tag = 3
    version = 1

    def empty(self) -> State:
        """Return the empty set."""
        return State()

    def apply(self, state: State, pending: State, op: bytes, origin: Origin) -> State:
        """Return a new dot for an add, and the seen dots of the element in the delta's context."""
        try:
            operation = _operation.decode(op)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _refuse(str(error)) from error
        added, removed = operation.add, operation.remove
        if (added is UNSET) == (removed is UNSET):
            raise _refuse("exactly one of add and remove is needed")
        element = added if isinstance(added, str) else str(removed)
        if len(element.encode()) > ELEMENT_BYTES_MAX:
            raise _refuse("an element is at most 256 bytes of UTF-8")
        seen = _seen(state, pending, element)
        delta = State()
        delta.context = CausalContext(seen)
        if added is UNSET:
            return delta
        if not seen and len(state.dots) + len(pending.dots) >= ELEMENTS_MAX:
            raise OperationError(f"the set holds {ELEMENTS_MAX} elements", "use another key", "limit_exceeded")
        counter = max(state.context.newest(origin.replica), pending.context.newest(origin.replica)) + 1
        if counter > COUNTER_MAX:
            raise OperationError("this replica's dots of the set are used up", "use another key", "limit_exceeded")
        dot = (origin.replica, counter)
        delta.context.add(dot)
        delta.insert(dot, element)
        return delta

    def join(self, state: State, delta: State) -> State:
        """Drop what the delta has seen removed, add what this state has not seen."""
        for dot in _covered(state, delta.context):
            if dot not in delta.owner:
                state.discard(dot)
        for dot, element in delta.owner.items():
            if dot not in state.context:
                state.insert(dot, element)
            elif state.owner.get(dot, element) < element:  # Only a faulty replica gives one dot to two elements.
                state.discard(dot)
                state.insert(dot, element)
        state.context.merge(delta.context)
        return state

    def value(self, state: State) -> object:
        """Return the elements in order."""
        return sorted(state.dots)

    def encode(self, state: State) -> bytes:
        """Return entries, vector and cloud, all sorted."""
        entries = [(element, sorted(dots)) for element, dots in sorted(state.dots.items())]
        return _encoder.encode((entries, *state.context.to_plain()))

    def decode(self, data: bytes) -> State:
        """Return the set."""
        try:
            plain = _state.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedError(f"aw_set: {error}") from error
        state = State()
        state.context = CausalContext.from_plain(plain.vector, plain.cloud)
        for element, dots in plain.entries:
            if len(element.encode()) > ELEMENT_BYTES_MAX:
                raise MalformedError("aw_set: an element is too long")
            for dot in dots:
                check_dot(dot)
                if dot not in state.context or dot in state.owner:
                    raise MalformedError("aw_set: a dot is unseen or has two elements")
                state.insert(dot, element)
        if self.encode(state) != data:
            raise MalformedError("aw_set: not canonical")
        return state


def _seen(state: State, pending: State, element: str) -> set[Dot]:
    """Return the dots of `element` in the join of both states."""
    ours: AbstractSet[Dot] = state.dots.get(element, frozenset())
    theirs: AbstractSet[Dot] = pending.dots.get(element, frozenset())
    return {dot for dot in ours if dot in theirs or dot not in pending.context} | {
        dot for dot in theirs if dot in ours or dot not in state.context
    }


def _covered(state: State, context: CausalContext) -> list[Dot]:
    """Return the present dots that `context` has seen, at the cost of the smaller of both."""
    if sum(context.vector.values()) > len(state.owner):
        return [dot for dot in state.owner if dot in context]
    dots = [(replica, counter) for replica, last in context.vector.items() for counter in range(1, last + 1)]
    return [dot for dot in (*dots, *context.cloud) if dot in state.owner]


def _refuse(message: str) -> OperationError:
    return OperationError(f"aw_set: {message}", 'send {"add": "x"} or {"remove": "x"}')
