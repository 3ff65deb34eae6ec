"""What was deleted is forgotten everywhere, long after all is calm."""


def find(history):
    if history.vacant and history.quiet:
        return f"still remembered, though deleted: {history.vacant}"
    return None
