"""What happened, as a running hash: two runs of one seed have the same, or the simulation is not deterministic."""

import hashlib
from collections import deque

TAIL_EVENTS = 40


class Trace:
    """Attributes: `count` of events, and the `tail` of the newest ones."""

    def __init__(self, now):
        self._now = now
        self._hash = hashlib.blake2b(digest_size=16)
        self.count = 0
        self.tail = deque(maxlen=TAIL_EVENTS)

    def __call__(self, kind, *fields):
        line = f"{self._now():.6f} {kind} {' '.join(map(str, fields))}"
        self._hash.update(line.encode() + b"\n")
        self.tail.append(line)
        self.count += 1

    def digest(self):
        return self._hash.hexdigest()
