"""The audit log: who did or tried what that matters to security, one line each."""

import logging

_log = logging.getLogger("jarvis.audit")


def audit(event: str, **fields: object) -> None:
    """Write a line; no field may hold a secret."""
    _log.info(event, extra={"fields": fields})
