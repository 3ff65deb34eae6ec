"""All owners of a key end with the same bytes, and nobody else with any."""


def find(history):
    if history.quiet:
        return None
    return differ(history.final, history.owners) or "the nodes were not quiet in time"


def differ(final, owners):
    """Return which nodes hold what they should not, or not what they should; None if all is well."""
    by_key = {key: {} for key in owners}
    for name, states in final.items():
        for (key, tag), state in states.items():
            by_key.setdefault(key, {}).setdefault(name, {})[tag] = state
    for key, holders in by_key.items():
        parts = [holders.get(name) for name in owners.get(key, ())]
        if any(part != parts[0] for part in parts):
            return f"the owners of {key} differ: {owners.get(key, ())}"
        strangers = sorted(holders.keys() - set(owners.get(key, ())))
        if strangers:
            return f"{strangers} hold {key}, which {owners.get(key, ())} own"
    return None
