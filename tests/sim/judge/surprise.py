"""No recovery refuses its disk, and no loop ends by an error that nobody handles."""


def find(history):
    return history.surprises[0] if history.surprises else None
