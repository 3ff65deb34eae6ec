"""Once clocks are right a register shows what was written since, whatever stamps were on the disks by then."""

import json

from crdt_service.datatypes.lww_register import LwwRegister
from tests.sim.history import Outcome


def find(history):
    for key, writes in history.by_key("lww_register").items():
        late = [write for write in writes if write.sent > history.calm_at]
        if not any(write.outcome is Outcome.ACKNOWLEDGED for write in late):
            continue
        shown = json.loads(history.final_state(key, LwwRegister())[2] or b"null")
        if shown not in [write.argument for write in late if write.is_possible]:
            return f"{key} shows {shown!r}, which was written before clocks were right"
    return None
