"""Whether and when a failed call is made again."""

import random
from dataclasses import dataclass

from crdt_service.client.error import OUTCOME_UNKNOWN, UNEXPECTED_ANSWER, UNREACHABLE, ApiError

# After these nothing was done, and before long it may be.
_NOTHING_DONE = {
    UNREACHABLE,
    "no_node",
    "node_unreachable",
    "syncing",
    "behind",
    "stopping",
    "overloaded",
    "too_few_owners",
    "id_collision",
}
# The same of calls that may be made any number of times.
_OF_SAFE = {*_NOTHING_DONE, OUTCOME_UNKNOWN, "concern_not_met", "internal"}
_TOO_MANY_REQUESTS = 429
_GATEWAY_ERRORS = {502, 503, 504}


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential backoff with full jitter.

    Attributes:
        attempts_max: How often a call is made, the first time included.
        first_seconds: The longest pause after the first attempt; it doubles each time.
        seconds_max: The longest pause. Where the service asks for a longer one, the call fails at once, so that who
            called can decide.
    """

    attempts_max: int = 4
    first_seconds: float = 0.1
    seconds_max: float = 5.0

    def plan(self, attempt: int, error: ApiError, is_safe: bool, randomness: random.Random) -> float | None:
        """Return how many seconds to wait before the call is made again, None if it is not.

        Args:
            attempt: Which one failed, from 1.
            error: How.
            is_safe: The call may be made any number of times.
            randomness: Draws the pause.
        """
        if attempt >= self.attempts_max or not _is_temporary(error, is_safe):
            return None
        asked = error.retry_after_seconds or 0.0
        if asked > self.seconds_max:
            return None
        # Whoever was refused at the same moment should not come back at the same moment.
        return asked + randomness.uniform(0, min(self.seconds_max, self.first_seconds * 2 ** (attempt - 1)))


DEFAULT = Retry()
NEVER = Retry(attempts_max=1)


def _is_temporary(error: ApiError, is_safe: bool) -> bool:
    if error.status == _TOO_MANY_REQUESTS:
        return True
    if is_safe and error.code == UNEXPECTED_ANSWER:
        return error.status in _GATEWAY_ERRORS
    return error.code in (_OF_SAFE if is_safe else _NOTHING_DONE)
