"""No acknowledged write is lost: counters hold them all, sets hold what nobody removed."""

from crdt_service.datatypes.lww_register import LwwRegister
from tests.sim.judge.total import totals


def find(history):
    for key, verb, acknowledged, _, final in totals(history):
        if final < acknowledged:
            return f"{key} holds {verb}s of {final}, acknowledged were {acknowledged}"
    for key, writes in history.by_key("aw_set").items():
        present = history.final_elements(key)
        removed = {write.argument for write in writes if write.verb == "remove" and write.is_possible}
        cleared = history.clears(key)
        for write in writes:
            kept = write.verb == "add" and write.argument not in removed and write.sent > cleared
            if kept and write.is_kept and write.argument not in present:
                return f"{key} lost {write.argument}, acknowledged by {write.node} at {write.answered:.3f}"
    for key, writes in history.by_key("lww_register").items():
        cleared = history.clears(key) + history.clock_error_seconds  # The later stamp wins, not who came later.
        is_written = any(write.is_kept and write.verb == "assign" and write.sent > cleared for write in writes)
        if is_written and not history.final_state(key, LwwRegister())[0]:
            return f"{key} is gone"
    return None
