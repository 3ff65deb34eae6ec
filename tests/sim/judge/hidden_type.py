"""Of each type that a node holds something of a key, its answers tell; and all owners tell the same.

With what is never lost, this is that every acknowledged write can be read under some type.
"""

from crdt_service.datatypes.registry import get_type


def find(history):
    for node, states in history.final.items():
        held = {}
        for (key, tag), data in states.items():
            datatype = get_type(tag)
            if not datatype.is_vacant(datatype.decode(data)):
                held.setdefault(key, set()).add(datatype.name)
        for key, types in held.items():
            told = history.told[node].get(key, ())
            if types != set(told):
                return f"{node} holds {sorted(types)} of {key}, and tells of {told}"
    for key, owners in history.owners.items():
        told = {history.told[node].get(key, ()) for node in owners}
        if history.quiet and len(told) > 1:
            return f"the owners of {key} tell of {sorted(told)}"
    return None
