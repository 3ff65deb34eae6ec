"""No queue grew beyond its limit."""


def find(history):
    if history.queue_items > history.queue_items_max:
        return f"{history.queue_items} writes waited, the limit is {history.queue_items_max}"
    if history.outbox_bytes > history.outbox_bytes_max:
        return f"an outbox held {history.outbox_bytes} bytes, the limit is {history.outbox_bytes_max}"
    return None
