"""Without faults every node takes writes."""


def find(history):
    return "; ".join(history.unavailable) or None
