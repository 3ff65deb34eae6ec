"""No queue grew beyond its limit."""


def find(history):
    if history.queue_items > history.queue_items_max:
        return f"{history.queue_items} writes waited, the limit is {history.queue_items_max}"
    if history.commits_bytes > history.commits_bytes_max:
        return f"a commit log held {history.commits_bytes} bytes, the limit is {history.commits_bytes_max}"
    return None
