"""Connections that were refused: all are counted, and of each stranger the first is logged."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable

from crdt_service.access.buckets import Buckets
from crdt_service.access.limit import Limit
from crdt_service.kernel.error import ServiceError

# How long a stranger that comes again is not mentioned. Raising it writes fewer lines.
MENTION_AGAIN_SECONDS = 3600.0
# What is remembered of strangers; beyond it, who came first would be mentioned again.
STRANGERS_MAX = 1024
# Of all strangers together, so that many addresses write no more than that.
LINES = Limit(requests_per_minute=10, burst_limit=30)
# Why a connection was refused, beside the codes of errors.
SILENT = "silent"
CROWDED_OUT = "crowded_out"
FULL = "full"
_log = logging.getLogger(__name__)


class Refusals:
    """Tells of strangers.

    Args:
        on_refusal: Learns each reason.
        monotonic: A clock in seconds that never goes back.
    """

    def __init__(self, on_refusal: Callable[[str], None], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._on_refusal = on_refusal
        self._monotonic = monotonic
        self._mentioned: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._lines = Buckets()

    def refuse(self, address: str, reason: str, sentence: str) -> None:
        """Count a connection from an address, and log why it was refused unless that is known."""
        self._on_refusal(reason)
        now = self._monotonic()
        if now - self._mentioned.get((address, sentence), -MENTION_AGAIN_SECONDS) < MENTION_AGAIN_SECONDS:
            return
        if not self._lines.take("", LINES, now).is_allowed:
            return
        self._mentioned[address, sentence] = now
        self._mentioned.move_to_end((address, sentence))
        if len(self._mentioned) > STRANGERS_MAX:
            self._mentioned.popitem(last=False)
        _log.warning("connection from %s refused: %s; the next such line is in an hour", address, sentence)

    def refuse_error(self, address: str, error: ServiceError) -> None:
        """As `refuse`, for an error."""
        self.refuse(address, error.code, str(error))
