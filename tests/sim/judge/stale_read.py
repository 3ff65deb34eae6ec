"""A read by a majority shows every write that a majority had acknowledged before the read was sent.

Always: majorities before, amid and after a change of owners meet, and those of lost disks count no more.
"""

from crdt_service.datatypes.aw_set import AwSet
from crdt_service.datatypes.pn_counter import PnCounter
from crdt_service.wire.message import Concern
from tests.sim.history import Outcome


def find(history):
    for read in history.quorum_reads:
        before = [
            write
            for write in history.writes
            if write.key == read.key
            and write.concern is not Concern.ONE
            and write.outcome is Outcome.ACKNOWLEDGED
            and write.answered < read.sent
        ]
        missing = _MISSING[read.tag](read, before, history) if read.tag in _MISSING else None
        if missing:
            return f"{read.node} read {read.key} at {read.sent:.3f} without {missing}"
    return None


def _missing_count(read, before, _):
    state = PnCounter().decode(read.state)
    for index, verb in enumerate(("increment", "decrement")):
        acknowledged = sum(write.argument for write in before if write.verb == verb)
        found = sum(total[index] for total in state.values())
        if found < acknowledged:
            return f"{acknowledged - found} of {acknowledged} in {verb}s"
    return None


def _missing_element(read, before, history):
    present = set(AwSet().value(AwSet().decode(read.state)))
    removed = {write.argument for write in history.writes if write.verb == "remove" and write.is_possible}
    cleared = min((write.sent for write in history.writes if _is_clear(write, read.key)), default=float("inf"))
    missing = (
        {write.argument for write in before if write.verb == "add" and read.answered < cleared} - removed - present
    )
    return sorted(missing) or None


def _is_clear(write, key):
    return write.key == key and write.verb == "clear" and write.is_possible


_MISSING = {PnCounter.tag: _missing_count, AwSet.tag: _missing_element}
