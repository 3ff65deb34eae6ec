"""The totals of counters that the acknowledged and the possible writes allow; shared by two judges."""

from crdt_service.datatypes.pn_counter import PnCounter


def totals(history):
    """Yield (key, verb, acknowledged, possible, final) for each counter and direction."""
    for key, writes in history.by_key("pn_counter").items():
        state = history.final_state(key, PnCounter())
        for index, verb in enumerate(("increment", "decrement")):
            mine = [write for write in writes if write.verb == verb]
            acknowledged = sum(write.argument for write in mine if write.is_kept)
            possible = sum(write.argument for write in mine if write.is_possible)
            yield key, verb, acknowledged, possible, sum(total[index] for total in state.values())
