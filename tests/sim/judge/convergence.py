"""All nodes end with the same bytes for all keys."""


def find(history):
    if history.quiet:
        return None
    first, states = next(iter(history.final.items()))
    for name, others in history.final.items():
        differing = sorted(key for key in states.keys() | others.keys() if states.get(key) != others.get(key))
        if differing:
            return f"{first} and {name} differ in {differing}"
    return "the nodes were not quiet in time"
