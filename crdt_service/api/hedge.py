"""Asking one more node when the first is late, within a budget (Dean and Barroso, "The Tail at Scale", 2013)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Answer = TypeVar("Answer")

# One more request for so many at most: a slow cluster must not get twice the load.
REQUESTS_PER_HEDGE = 20
# Hedges that may come at once after a quiet time.
HEDGES_SAVED_MAX = 10
# How often what is late looks whether there is a hedge for it now.
AGAIN_SECONDS = 0.05


class HedgeBudget:
    """How many hedges are left."""

    def __init__(self) -> None:
        self._saved = float(HEDGES_SAVED_MAX)

    def earn(self) -> None:
        """Count a request."""
        self._saved = min(HEDGES_SAVED_MAX, self._saved + 1 / REQUESTS_PER_HEDGE)

    def spend(self) -> bool:
        """Take a hedge; return whether there was one."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


async def hedge(
    first: Callable[[], Awaitable[Answer]],
    second: Callable[[], Awaitable[Answer]],
    late_seconds: float,
    budget: HedgeBudget,
    is_good: Callable[[Answer], bool],
) -> Answer:
    """Return the answer of `first`; if that is late, that of `second` should it be good and come before.

    What is late while the budget is spent is hedged as soon as there is a hedge again: others earn them. What `second`
    raises or says otherwise does not count: the first one is waited for then.
    """
    budget.earn()
    asking = asyncio.ensure_future(first())
    also: asyncio.Future[Answer] | None = None
    try:
        await asyncio.wait((asking,), timeout=late_seconds)
        while not asking.done() and not budget.spend():
            await asyncio.wait((asking,), timeout=AGAIN_SECONDS)
        if asking.done():
            return await asking
        also = asyncio.ensure_future(second())
        await asyncio.wait((asking, also), return_when=asyncio.FIRST_COMPLETED)
        if not asking.done() and also.exception() is None and is_good(also.result()):
            return also.result()
        return await asking
    finally:
        for task in (asking, also):
            if task is not None and not task.done():
                task.cancel()
            elif task is not None and not task.cancelled():
                task.exception()  # Nobody else looks.
