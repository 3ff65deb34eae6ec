import asyncio

import pytest

from crdt_service.loops.task import end_loops, start_loops


async def _fail():
    raise ValueError("broken")


async def _return():
    pass


async def test_a_loop_that_fails_has_the_process_stop_and_its_error_is_raised():
    stopping = asyncio.Event()
    tasks = start_loops([asyncio.Event().wait(), _fail()], stopping)

    await stopping.wait()

    with pytest.raises(ValueError, match="broken"):
        await end_loops(tasks)
    assert [True, False] == [task.cancelled() for task in tasks]


async def test_a_loop_that_has_nothing_to_do_may_end():
    stopping = asyncio.Event()
    tasks = start_loops([_return(), asyncio.Event().wait()], stopping)

    await asyncio.wait(tasks[:1])
    await end_loops(tasks)

    assert not stopping.is_set()
