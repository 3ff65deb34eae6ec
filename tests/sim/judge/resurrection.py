"""What a node acknowledged as added and then as removed stays removed; each element is added once."""

from tests.sim.history import Outcome


def find(history):
    for key, writes in history.by_key("aw_set").items():
        present = history.final_elements(key)
        done = [write for write in writes if write.outcome is Outcome.ACKNOWLEDGED]
        added = {write.argument: write for write in done if write.verb == "add"}
        for write in done:
            add = added.get(write.argument)
            is_removed = write.verb == "remove" and add and add.node == write.node and add.answered <= write.sent
            if is_removed and write.argument in present:
                return f"{key} holds {write.argument} again, removed by {write.node} at {write.answered:.3f}"
    return None
