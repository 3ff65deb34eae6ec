"""Nobody saw what a crash took back: what was seen is part of what the node shows later, and of what all end with.

A node that hands a key over shows less of it then, so the first holds only for owners, while they stay. Where deleted
keys are purged, history goes on purpose: then only counters, which cannot be deleted, are judged.
"""

from crdt_service.datatypes.pn_counter import PnCounter
from crdt_service.datatypes.registry import get_type


def find(history):
    newest = {}
    judged = [seen for seen in history.seen if not history.is_purging or seen.tag == PnCounter.tag]
    for seen in judged:
        place = (seen.node, seen.disk, seen.key, seen.tag)
        earlier = newest.get(place)
        if (
            earlier is not None
            and history.is_settled(seen.node, seen.key)
            and not _is_part(seen.tag, earlier, seen.state)
        ):
            return f"{seen.node} showed {earlier!r} in {seen.key}, and later {seen.state!r}"
        newest[place] = seen.state
    for (node, disk, key, tag), state in newest.items():
        if disk != history.disks[node] or key not in history.owners:
            continue
        final = history.final[history.owners[key][0]].get((key, tag))
        if final is None or not _is_part(tag, state, final):
            return f"{node} showed {state!r} in {key}, and its owner ended with {final!r}"
    return None


def _is_part(tag, state, whole):
    if state == whole:
        return True
    datatype = get_type(tag)
    return datatype.encode(datatype.join(datatype.decode(whole), datatype.decode(state))) == whole
