"""The Jarvis CRDT service: nodes that keep and replicate state, and the backend that serves it.

Imports point inward: ``__main__ > node|backend > api|loops|disk|net|metrics > telemetry > replication|membership >
store > wire > datatypes > kernel``; ``client``, for the API's users, stands alone. Inner rooms are pure; clock, disk,
network and randomness are arguments that node and backend pass.
"""

VERSION = "0.19.0"
