"""Tasks that run for as long as their process; one that fails has the process stop, so that it is started again."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

Loop = asyncio.Task[None]


def start_loops(loops: Iterable[Coroutine[Any, Any, None]], stopping: asyncio.Event) -> list[Loop]:
    """Start each as a task, in their order; `stopping` is set once one fails."""

    def check(task: Loop) -> None:
        if not task.cancelled() and task.exception():
            stopping.set()

    tasks = [asyncio.create_task(loop) for loop in loops]
    for task in tasks:
        task.add_done_callback(check)
    return tasks


async def end_loops(tasks: Sequence[Loop]) -> None:
    """Cancel those that still run, and return when all have ended.

    Raises:
        Exception: What the first of them failed with.
    """
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
