"""No acknowledged write is lost: counters hold them all, sets hold what nobody removed."""

from tests.sim.history import Outcome
from tests.sim.judge.total import totals


def find(history):
    for key, verb, acknowledged, _, final in totals(history):
        if final < acknowledged:
            return f"{key} holds {verb}s of {final}, acknowledged were {acknowledged}"
    for key, writes in history.by_key("aw_set").items():
        present = history.final_elements(key)
        removed = {write.argument for write in writes if write.verb == "remove" and write.is_possible}
        for write in writes:
            kept = write.verb == "add" and write.argument not in removed
            if kept and write.outcome is Outcome.ACKNOWLEDGED and write.argument not in present:
                return f"{key} lost {write.argument}, acknowledged by {write.node} at {write.answered:.3f}"
    for key, writes in history.by_key("lww_register").items():
        is_written = any(write.outcome is Outcome.ACKNOWLEDGED for write in writes)
        if is_written and not any((key, 2) in states for states in history.final.values()):
            return f"{key} is gone"
    return None
