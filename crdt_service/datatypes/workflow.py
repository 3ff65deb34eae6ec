"""A state machine that replicas advance without agreeing first; transitions that missed each other are a conflict.

The current state is a multi-value register (arXiv:1011.5808): a transition covers those that its writer has seen, so
several present ones are concurrent. Readers see all of them, and one, the latest by stamp, as the state to go on from.
"""

from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.dotted import Change, Dotted, Path, View
from crdt_service.datatypes.operation import read_operation, read_packed, refuse
from crdt_service.kernel.clock import STAMP_MAX
from crdt_service.kernel.dot import COUNTER_MAX, Dot, check_dot
from crdt_service.kernel.error import MalformedError, OperationError

# Raising these makes every transition and read decode a larger definition.
STATES_MAX = 64
TRANSITIONS_MAX = 512
STATE_NAME_LENGTH_MAX = 64
_EXAMPLE = (
    '{"create": {"states": ["open", "done"], "initial": "open", "transitions": [["open", "done"]]}} '
    'or {"transition": {"to": "done"}}'
)
_DEFINITION = "definition"
_TRANSITION = "transition"
Name = Annotated[str, Meta(min_length=1, max_length=STATE_NAME_LENGTH_MAX)]
Stamp = Annotated[int, Meta(ge=1, le=STAMP_MAX)]


class _Create(msgspec.Struct, forbid_unknown_fields=True):
    states: Annotated[list[Name], Meta(min_length=1, max_length=STATES_MAX)]
    initial: Name
    transitions: Annotated[list[tuple[Name, Name]], Meta(max_length=TRANSITIONS_MAX)]


class _Target(msgspec.Struct, forbid_unknown_fields=True):
    to: Name


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    create: _Create | UnsetType = UNSET
    transition: _Target | UnsetType = UNSET


class _Definition(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    stamp: Stamp
    states: Annotated[list[Name], Meta(min_length=1, max_length=STATES_MAX)]
    initial: Name
    transitions: Annotated[list[tuple[Name, Name]], Meta(max_length=TRANSITIONS_MAX)]


class _Transition(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    stamp: Stamp
    replica: str
    counter: Annotated[int, Meta(ge=1, le=COUNTER_MAX)]
    start: Name
    to: Name


class _Reading(NamedTuple):
    """The definition in force, its dot, and its present transitions, the latest last."""

    dot: Dot
    definition: _Definition
    steps: list[_Transition]

    @property
    def current(self) -> str:
        """The state to go on from."""
        return self.steps[-1].to if self.steps else self.definition.initial


_operation = msgspec.json.Decoder(_Operation)
_definition = msgspec.msgpack.Decoder(_Definition)
_transition = msgspec.msgpack.Decoder(_Transition)
_encoder = msgspec.msgpack.Encoder()


class Workflow(Dotted):
    """Operations create and transition; value: ``{"state": s, "conflict": [...]}``.

    ``{"create": {"states": [...], "initial": s, "transitions": [[from, to], ...]}}`` declares at most 64 states, named
    by 1 to 64 characters, and 512 transitions; ``{"transition": {"to": s}}`` must be one of them from the visible
    state. Of two definitions created concurrently the earlier is in force, and transitions of the other do not count.
    The state is null before creation. Conflict lists the states that concurrent transitions reached, sorted, and is
    empty if they agree; the state is then the target of the latest, by stamp and replica, and the next transition
    settles the conflict.
    """

    name = "workflow"
    tag = 11
    version = 2
    operation = _Operation

    def plan(self, view: View, op: bytes, origin: Origin) -> Change:
        """Add a definition where none is seen, or cover the transitions seen with a legal one."""
        operation = read_operation(_operation, op, self.name, _EXAMPLE)
        if (operation.create is UNSET) == (operation.transition is UNSET):
            raise refuse(self.name, "exactly one of create and transition is needed", _EXAMPLE)
        steps = view.at(_TRANSITION)
        seen = [(dot, (_DEFINITION,), view.content(dot)) for dot in view.at(_DEFINITION)]
        reading = _read([*seen, *((dot, (_TRANSITION,), view.content(dot)) for dot in steps)])
        if isinstance(operation.create, _Create):
            if reading is not None:
                raise OperationError(
                    f"workflow: it was created already and is {reading.current!r}", "use another key", "already_created"
                )
            return Change(set(), ((_DEFINITION,), _encoder.encode(_define(operation.create, origin))))
        if reading is None:
            raise OperationError("workflow: it was not created yet", f"send {_EXAMPLE}", "illegal_transition")
        assert isinstance(operation.transition, _Target)  # noqa: S101
        start, to = reading.current, operation.transition.to
        legal = sorted(target for source, target in reading.definition.transitions if source == start)
        if to not in legal:
            ways = f"go to one of {', '.join(legal)}" if legal else "it is a final state"
            raise OperationError(f"workflow: no transition leads from {start!r} to {to!r}", ways, "illegal_transition")
        step = _Transition(origin.tick(), *reading.dot, start, to)
        return Change(steps, ((_TRANSITION,), _encoder.encode(step)))

    def show(self, entries: Iterable[tuple[Dot, Path, bytes]]) -> object:
        """Return the state and what conflicts with it."""
        reading = _read(entries)
        if reading is None:
            return {"state": None, "conflict": []}
        reached = sorted({step.to for step in reading.steps})
        return {"state": reading.current, "conflict": reached if len(reached) > 1 else []}

    def check(self, path: Path, content: bytes) -> None:
        """Refuse anything but a definition in canonical form or a transition."""
        if path == (_DEFINITION,):
            plain = read_packed(_definition, content, self.name)
            known = _find_fault(plain) is None and plain == _sort(plain)
            canonical = known and _encoder.encode(plain) == content
        elif path == (_TRANSITION,):
            step = read_packed(_transition, content, self.name)
            check_dot((step.replica, step.counter))
            canonical = _encoder.encode(step) == content
        else:
            canonical = False
        if not canonical:
            raise MalformedError(f"{self.name}: an entry is no definition and no transition")

    def stamp(self, path: Path, content: bytes) -> int:
        """Return the stamp of the definition or transition."""
        return (_definition if path == (_DEFINITION,) else _transition).decode(content).stamp


def read_steps(entries: Iterable[tuple[Dot, Path, bytes]]) -> list[tuple[Dot, int, str]]:
    """Return dot, stamp and target of each present transition that counts."""
    held = list(entries)
    reading = _read(held)
    steps = reading.steps if reading is not None else []
    taken = [(dot, _transition.decode(content)) for dot, path, content in held if path == (_TRANSITION,)]
    return [(dot, step.stamp, step.to) for dot, step in taken if step in steps]


def _read(entries: Iterable[tuple[Dot, Path, bytes]]) -> _Reading | None:
    """Return what is in force, or None before any definition; every replica with these entries returns the same."""
    definitions: list[tuple[int, Dot, _Definition]] = []
    steps: list[tuple[int, Dot, _Transition]] = []
    for dot, path, content in entries:
        if path == (_DEFINITION,):
            definition = _definition.decode(content)
            definitions.append((definition.stamp, dot, definition))
        elif path:  # A map's own entries have none.
            step = _transition.decode(content)
            steps.append((step.stamp, dot, step))
    if not definitions:
        return None
    _, chosen, definition = min(definitions, key=lambda item: item[:2])
    states = set(definition.states)
    ours = [item for item in steps if (item[2].replica, item[2].counter) == chosen and item[2].to in states]
    return _Reading(chosen, definition, [step for *_, step in sorted(ours, key=lambda item: item[:2])])


def _define(create: _Create, origin: Origin) -> _Definition:
    definition = _Definition(1, create.states, create.initial, create.transitions)
    fault = _find_fault(definition)
    if fault is not None:
        raise refuse(Workflow.name, fault, _EXAMPLE)
    definition.stamp = origin.tick()
    return _sort(definition)


def _sort(definition: _Definition) -> _Definition:
    """Return the definition in canonical order."""
    return _Definition(definition.stamp, sorted(definition.states), definition.initial, sorted(definition.transitions))


def _find_fault(definition: _Definition) -> str | None:
    """Return what is wrong with a definition, if anything."""
    states = set(definition.states)
    if len(states) < len(definition.states) or len(set(definition.transitions)) < len(definition.transitions):
        return "a state or transition is listed twice"
    if definition.initial not in states or not states.issuperset(
        name for transition in definition.transitions for name in transition
    ):
        return "the initial state and the ends of transitions must be among the states"
    return None
