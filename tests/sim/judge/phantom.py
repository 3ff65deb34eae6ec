"""Nothing is there that nobody wrote, or whose write was refused."""

import json

from crdt_service.datatypes.lww_register import LwwRegister


def find(history):
    for key, writes in history.by_key("aw_set").items():
        possible = {write.argument for write in writes if write.verb == "add" and write.is_possible}
        phantoms = history.final_elements(key) - possible
        if phantoms:
            return f"{key} holds {sorted(phantoms)}, which nobody added"
    for key, writes in history.by_key("lww_register").items():
        value = json.loads(history.final_state(key, LwwRegister())[2] or b"null")
        if value is not None and value not in {write.argument for write in writes if write.is_possible}:
            return f"{key} is {value!r}, which nobody assigned"
    return None
