"""What a node acknowledged as added and then as removed stays removed; each element is added once.

And what any node has ever shown as gone, of what it had seen, is gone for good, unless only a lost disk had seen it go.
"""

from crdt_service.datatypes.aw_set import AwSet


def find(history):
    for key, writes in history.by_key("aw_set").items():
        present = history.final_elements(key)
        done = [write for write in writes if write.is_kept]
        added = {write.argument: write for write in done if write.verb == "add"}
        for write in done:
            add = added.get(write.argument) if write.verb == "remove" else None
            is_removed = add and add.node == write.node and add.answered <= write.sent
            if is_removed and write.argument in present:
                return f"{key} holds {write.argument} again, removed by {write.node} at {write.answered:.3f}"
    return _find_seen_gone(history)


def _find_seen_gone(history):
    datatype = AwSet()
    finals = {key: datatype.decode(history.final[owners[0]][key, datatype.tag]) for key, owners in _sets(history)}
    for seen in history.seen:
        if seen.tag != datatype.tag or seen.key not in finals or seen.disk != history.disks[seen.node]:
            continue
        state = datatype.decode(seen.state)
        for dot, (path, _) in finals[seen.key].owner.items():
            if dot in state.context and dot not in state.owner:
                return f"{seen.key} holds {path[0]} of {dot} again, which {seen.node} had seen go"
    return None


def _sets(history):
    return [(key, owners) for key, owners in history.owners.items() if (key, AwSet.tag) in history.final[owners[0]]]
