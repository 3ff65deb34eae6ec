"""Nobody saw what a crash took back: what was seen is part of what the node shows later, and of what all end with."""

from crdt_service.datatypes.registry import get_type


def find(history):
    newest = {}
    for seen in history.seen:
        place = (seen.node, seen.key, seen.tag)
        earlier = newest.get(place)
        if earlier is not None and not _is_part(seen.tag, earlier, seen.state):
            return f"{seen.node} showed {earlier!r} in {seen.key}, and later {seen.state!r}"
        newest[place] = seen.state
    for (node, key, tag), state in newest.items():
        final = history.final[node].get((key, tag))
        if final is None or not _is_part(tag, state, final):
            return f"{node} showed {state!r} in {key}, and ended with {final!r}"
    return None


def _is_part(tag, state, whole):
    if state == whole:
        return True
    datatype = get_type(tag)
    return datatype.encode(datatype.join(datatype.decode(whole), datatype.decode(state))) == whole
