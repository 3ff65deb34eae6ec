"""Replaces everything on disk by one checkpoint, before a node serves: after encryption was turned on, or a new key."""

import logging

from crdt_service.loops.commit import encode_states
from crdt_service.replication.port import Journal
from crdt_service.replication.replica import Replica
from crdt_service.store.store import Store
from crdt_service.wire.message import encode_step

_log = logging.getLogger(__name__)


def rewrite(store: Store, journal: Journal, replica: Replica) -> None:
    """Write all states as a checkpoint, so that no file of before remains.

    A full or failing disk is logged: what is there stays readable, and a later checkpoint or start replaces it.
    """
    try:
        number = journal.rotate()
        for payload in encode_states(store):
            journal.write_snapshot(number, [payload], last=False)
        journal.write_snapshot(number, [encode_step(replica.describe())], last=True)
    except OSError as error:
        _log.error("the data on disk could not be rewritten with the current key; it stays as it was: %s", error)
        return
    _log.info("the data on disk was rewritten with the current key")
