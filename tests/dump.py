"""What a store holds, to compare stores with."""


def dump(store):
    """Return the canonical bytes of all states by (key, tag)."""
    return {tuple(address): store.encode(address).state for part in store.slices(256) for address in part}
