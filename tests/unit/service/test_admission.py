"""Permits, proximity and hedges, without a network."""

import asyncio
import time

import pytest

from crdt_service.api.admission import AT_WORK_MAX, AT_WORK_MIN, TURN_SECONDS_MAX, Admission
from crdt_service.api.hedge import HEDGES_SAVED_MAX, REQUESTS_PER_HEDGE, HedgeBudget, hedge
from crdt_service.api.proximity import LATE_SECONDS_MAX, LATE_SECONDS_MIN, RECOVERY_SECONDS, Proximity
from crdt_service.kernel.error import ServiceError, UnreachableError

OWNERS = ("a", "b", "c")
ZONES = {"a": "z1", "b": "z2", "c": "z3"}


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_permits_go_to_those_that_wait_in_their_order():
    admission = Admission(at_work_max=1, waiting_max=3, wait_seconds_max=60)
    await admission.enter()
    order = []

    async def work(name):
        await admission.enter()
        order.append(name)

    waiting = [asyncio.create_task(work(name)) for name in ("first", "second")]
    await settle()
    with pytest.raises(ServiceError) as refused:
        await admission.enter()
    assert ("overloaded", 2, []) == (refused.value.code, admission.waiting, order)
    admission.leave()
    await settle()
    assert (["first"], 1) == (order, admission.at_work)
    admission.leave()
    await asyncio.gather(*waiting)
    admission.leave()
    assert (["first", "second"], 0) == (order, admission.at_work)


async def test_who_waits_too_long_is_refused_and_the_next_gets_the_permit():
    admission = Admission(at_work_max=1, waiting_max=3, wait_seconds_max=0.01)
    await admission.enter()
    results = await asyncio.gather(admission.enter(), admission.enter(), return_exceptions=True)
    assert ["overloaded", "overloaded"] == [result.code for result in results]
    admission.leave()
    await admission.enter()
    assert (1, 0) == (admission.at_work, admission.waiting)


async def test_a_caller_that_leaves_gives_its_permit_to_the_next():
    admission = Admission(at_work_max=1, waiting_max=3, wait_seconds_max=60)
    await admission.enter()
    leaving, staying = (asyncio.create_task(admission.enter()) for _ in range(2))
    await settle()
    admission.leave()  # To the first, which is cancelled before it hears of it.
    leaving.cancel()
    await asyncio.gather(leaving, staying, return_exceptions=True)
    assert (True, None, 1) == (leaving.cancelled(), staying.result(), admission.at_work)
    admission.leave()
    assert 0 == admission.at_work


async def test_a_caller_with_many_requests_leaves_permits_to_others_and_callers_come_in_turn():
    admission = Admission(at_work_max=4, waiting_max=100, wait_seconds_max=60)
    order = []

    async def work(caller):
        await admission.enter(caller)
        order.append(caller)

    waiting = [asyncio.create_task(work("many")) for _ in range(6)]
    await settle()
    assert (["many", "many"], 4) == (order, admission.waiting)
    waiting += [asyncio.create_task(work(caller)) for caller in ("few", "one")]
    await settle()
    assert (["many", "many", "few", "one"], 4) == (order, admission.waiting)
    for caller in ("few", "one", *["many"] * 6):
        admission.leave(caller)
        await settle()
    await asyncio.gather(*waiting)
    assert (["many"] * 4, 0) == (order[4:], admission.at_work)


async def test_while_several_ask_and_turns_are_long_each_caller_has_fewer_at_work(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "thread_time", lambda: now[0])
    admission = Admission(wait_seconds_max=60)

    async def turn(caller, seconds):
        await admission.enter(caller)
        now[0] += seconds
        await settle()
        admission.leave(caller)

    async def measure(caller):
        """How many a caller has at work before the next one waits."""
        entered = [asyncio.create_task(admission.enter(caller)) for _ in range(200)]
        await settle()
        at_work = admission.at_work
        for each in entered:
            each.cancel()
        await asyncio.gather(*entered, return_exceptions=True)
        for _ in range(admission.at_work):
            admission.leave(caller)
        return at_work

    for _ in range(100):
        await turn("one", 2 * TURN_SECONDS_MAX)
    assert AT_WORK_MAX // 2 == await measure("one")
    await turn("other", 0)
    assert await measure("one") in (AT_WORK_MIN, AT_WORK_MIN + 1)  # The turn before was a short one.


def test_owners_of_the_own_zone_come_first_and_else_stay_in_order():
    assert ["b", "a", "c"] == Proximity("z2").order("read", OWNERS, ZONES, 0)
    assert list(OWNERS) == Proximity("").order("read", OWNERS, ZONES, 0)
    assert list(OWNERS) == Proximity("z9").order("read", OWNERS, ZONES, 0)


def test_a_slow_node_comes_last_until_it_is_forgiven():
    proximity = Proximity("z1")
    for _ in range(50):
        for name, seconds in (("a", 1.0), ("b", 0.001), ("c", 0.001)):
            proximity.observe("read", name, seconds, 0)
    assert ["b", "c", "a"] == proximity.order("read", OWNERS, ZONES, 0)
    assert ["a", "b", "c"] == proximity.order("read", OWNERS, ZONES, RECOVERY_SECONDS * 10)
    assert ["a", "b", "c"] == proximity.order("write", OWNERS, ZONES, 0)


def test_small_differences_between_quick_nodes_change_nothing():
    proximity = Proximity("")
    for name, seconds in (("a", 0.04), ("b", 0.001)):
        proximity.observe("read", name, seconds, 0)
    assert ["a", "b"] == proximity.order("read", ("a", "b"), ZONES, 0)


def test_an_answer_is_late_by_what_the_node_took_before():
    proximity = Proximity("")
    assert LATE_SECONDS_MAX == proximity.late_after("read", "a")
    for _ in range(100):
        proximity.observe("read", "a", 0.0001, 0)
        proximity.observe("read", "b", 0.1, 0)
    assert LATE_SECONDS_MIN == proximity.late_after("read", "a")
    assert 0.1 <= proximity.late_after("read", "b") < 0.11


def answering(result, after=None):
    async def ask():
        if after is not None:
            await after.wait()
        if isinstance(result, Exception):
            raise result
        return result

    return ask


async def test_a_late_answer_is_overtaken():
    never = asyncio.Event()
    assert "second" == await hedge(answering("first", never), answering("second"), 0.001, HedgeBudget(), bool)


async def test_what_is_late_when_no_hedge_is_left_gets_the_next_one():
    budget = HedgeBudget()
    while budget.spend():
        pass
    waiting = asyncio.create_task(hedge(answering("first", asyncio.Event()), answering("second"), 0.001, budget, bool))
    await settle()
    for _ in range(REQUESTS_PER_HEDGE):
        budget.earn()
    assert "second" == await waiting


async def test_an_answer_in_time_asks_nobody_else():
    budget = HedgeBudget()
    assert "first" == await hedge(answering("first"), answering("second"), 60, budget, bool)
    assert HEDGES_SAVED_MAX == sum(budget.spend() for _ in range(2 * HEDGES_SAVED_MAX))


@pytest.mark.parametrize("other", ["", UnreachableError("b")])
async def test_what_the_second_lacks_or_refuses_does_not_count(other):
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, later.set)
    assert "first" == await hedge(answering("first", later), answering(other), 0.001, HedgeBudget(), bool)


async def test_the_first_ones_error_is_the_error():
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, later.set)
    never = asyncio.Event()
    with pytest.raises(UnreachableError):
        await hedge(answering(UnreachableError("a"), later), answering("b", never), 0.001, HedgeBudget(), bool)


def test_hedges_are_a_bounded_part_of_requests():
    budget = HedgeBudget()
    while budget.spend():
        pass
    count = 0
    for _ in range(40 * REQUESTS_PER_HEDGE):
        budget.earn()
        count += budget.spend()
    assert 39 <= count <= 40
