"""What readers see where siblings stand: the decided value. The stored state stays as it is."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from crdt_service.datatypes.contract import Datatype
from crdt_service.datatypes.dotted import Path
from crdt_service.datatypes.map import Map
from crdt_service.datatypes.mv_register import MvRegister, Sibling, read_siblings
from crdt_service.kernel.dot import Dot
from crdt_service.resolution.policy import Policy, Rule
from crdt_service.resolution.sibling import Place


class _DecidedField(MvRegister):
    """A multi-value register of a map that shows what was decided."""

    def __init__(self, show: Callable[[Sequence[Sibling]], object]) -> None:
        self._show = show

    def show(self, entries: Iterable[tuple[Dot, Path, bytes]]) -> object:
        """Return the decided value."""
        return self._show(read_siblings(entries))


def read_value(policy: Policy, key: str, datatype: Datatype[Any], state: Any) -> object:
    """Return what readers of `key` see, as something that JSON can hold.

    Where the first rule that holds is `keep`, a multi-value register is the array of its siblings, as the type itself
    shows it. Elsewhere it is one value, null before the first assignment; the array only where a later `keep` decided.
    """
    if not isinstance(datatype, MvRegister | Map):
        return datatype.value(state)
    # Which field it is does not matter: rules know keys.
    rules = policy.match(Place(key, ("",) if isinstance(datatype, Map) else (), MvRegister.tag))
    if policy.is_kept(rules):
        return datatype.value(state)

    def show(siblings: Sequence[Sibling]) -> object:
        return _show(policy, rules, siblings)

    if isinstance(datatype, Map):
        return datatype.replace(_DecidedField(show)).value(state)
    return show(datatype.siblings(state))


def _show(policy: Policy, rules: Sequence[Rule], siblings: Sequence[Sibling]) -> object:
    if len(siblings) > 1:
        return msgspec.Raw(policy.decide(rules, siblings).verdict.text)
    return msgspec.Raw(siblings[0].text if siblings else b"null")
