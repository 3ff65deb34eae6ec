"""The Jarvis CRDT service: nodes that keep and replicate state, and the backend that serves it.

CONTRIBUTING.md has the map of the rooms. Imports point inward; inner rooms are pure, and clock, disk, network and
randomness are arguments that node and backend pass.
"""

VERSION = "0.19.0"
