"""Types that keep no dots by themselves, as fields of a map: with dots, so that removing a field forgets them.

Each takes the operations of its namesake and shows values alike.
"""

from abc import abstractmethod
from collections.abc import Iterable

import msgspec

from crdt_service.datatypes import aw_set, g_counter, g_set, lww_register, mv_register, pn_counter
from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.dotted import Change, Dotted, Path, View
from crdt_service.datatypes.operation import read_packed
from crdt_service.datatypes.pn_counter import TOTAL_MAX, Count
from crdt_service.kernel.dot import Dot
from crdt_service.kernel.error import MalformedError, OperationError

_totals = msgspec.msgpack.Decoder(tuple[Count, Count])
_encoder = msgspec.msgpack.Encoder()


class _Counter(Dotted):
    """Per replica one dot with its totals of both directions; a replica's new dot covers its old one."""

    @abstractmethod
    def read(self, op: bytes) -> tuple[int, int]:
        """Return the amounts up and down of an operation."""

    def plan(self, view: View, op: bytes, origin: Origin) -> Change:
        """Replace this replica's totals."""
        up, down = self.read(op)
        own = {dot for dot in view.at() if dot[0] == origin.replica and view.content(dot)}
        for old in map(_totals.decode, map(view.content, own)):
            up, down = up + old[0], down + old[1]
        if max(up, down) > TOTAL_MAX:
            raise OperationError("the counter would pass 2**63 - 1", "use another field", "limit_exceeded")
        return Change(own, ((), _encoder.encode((up, down))))

    def is_blind(self, op: bytes) -> bool:
        """Return that it is: each replica has a dot of its own."""
        return True

    def show(self, entries: Iterable[tuple[Dot, Path, bytes]]) -> object:
        """Return increments less decrements."""
        totals = [_totals.decode(content) for _, _, content in entries if content]
        return sum(up - down for up, down in totals)

    def check(self, path: Path, content: bytes) -> None:
        """Refuse anything but a pair of totals."""
        totals = read_packed(_totals, content, self.name)
        if path or totals == (0, 0) or _encoder.encode(totals) != content:
            raise MalformedError(f"{self.name}: an entry is no pair of totals")


class PnCounterField(_Counter):
    """A counter that goes up and down."""

    name = pn_counter.PnCounter.name
    tag = pn_counter.PnCounter.tag
    version = 1

    def read(self, op: bytes) -> tuple[int, int]:
        """Return the amounts up and down of an operation."""
        return pn_counter.read_amounts(op)


class GCounterField(_Counter):
    """A counter that only goes up."""

    name = g_counter.GCounter.name
    tag = g_counter.GCounter.tag
    version = 1

    def read(self, op: bytes) -> tuple[int, int]:
        """Return the amount up of an operation."""
        return g_counter.read_amount(op), 0

    def check(self, path: Path, content: bytes) -> None:
        """Refuse anything but a total that went up only."""
        super().check(path, content)
        if _totals.decode(content)[1]:
            raise MalformedError(f"{self.name}: a total went down")


class GSetField(aw_set.AwSet):
    """A set that only grows."""

    name = g_set.GSet.name
    tag = g_set.GSet.tag
    version = 1

    def is_blind(self, op: bytes) -> bool:
        """Return that it is: elements only come."""
        return True

    def plan(self, view: View, op: bytes, origin: Origin) -> Change:
        """Put a new dot in the place of those seen of the element, so that it wins over a concurrent removal."""
        element = g_set.read_element(op)
        return Change(view.at(element), ((element,), b""))


class LwwRegisterField(mv_register.MvRegister):
    """A register whose latest write wins; at most 256 KiB."""

    name = lww_register.LwwRegister.name
    tag = lww_register.LwwRegister.tag
    version = 1

    def is_blind(self, op: bytes) -> bool:
        """Return that it is: the latest stamp wins."""
        return True

    def show(self, entries: Iterable[tuple[Dot, Path, bytes]]) -> object:
        """Return the latest assignment, raw."""
        siblings = mv_register.read_siblings(entries)
        return msgspec.Raw(siblings[-1].text if siblings else b"null")
