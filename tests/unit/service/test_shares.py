"""What callers share, and how strangers are slowed down: without a network, in real time where time counts."""

import asyncio

import pytest

from crdt_service.access.room import Room
from crdt_service.access.turns import Turns
from crdt_service.api.pace import WAITING_MAX, Pace, Shared
from crdt_service.kernel.error import ServiceError


def fill(room, caller):
    """Take one after the other until there is no more for the caller; return how many it holds."""
    while room.has(caller):
        room.take(caller)
    return room.holds(caller)


def test_one_caller_gets_half_of_a_room_and_leaves_the_rest():
    room = Room("feeds", 100)
    assert (50, 50) == (fill(room, "a"), room.free)


@pytest.mark.parametrize("callers", [2, 3, 9])
def test_callers_that_want_everything_leave_as_much_as_each_of_them_has(callers):
    room = Room("feeds", 1000)
    for _ in range(20):  # Each gives what is over its share as the others come.
        for number in range(callers):
            while room.holds(str(number)) > room.free:
                room.give(str(number))
            fill(room, str(number))
    assert [1000 // (callers + 1)] * callers == pytest.approx([room.holds(str(n)) for n in range(callers)], abs=1)
    room.take("next")


def test_what_is_refused_is_counted_and_takes_nothing():
    refused = []
    room = Room("bodies", 10, refused.append)
    with pytest.raises(ServiceError, match="bodies") as error:
        room.take("a", 11)
    assert ("overloaded", ["bodies"], 10, 0) == (error.value.code, refused, room.free, room.holds("a"))


def test_what_is_given_back_is_there_again():
    room = Room("bodies", 10)
    room.take("a", 5)
    room.give("a", 5)
    room.force("a", 12)
    assert (-2, False) == (room.free, room.has("b"))
    room.give("a", 12)
    assert (10, True) == (room.free, room.has("b", 10))


def test_callers_come_in_turn_and_each_in_its_order():
    turns = Turns()
    for caller, item in (("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("c", 6)):
        turns.add(caller, item)
    turns.remove("a", 2)
    turns.remove("d", 7)
    assert (True, False, 5) == ("a" in turns, "d" in turns, turns.count)
    assert ("b", 4) == turns.pop(lambda caller: caller != "a")
    assert [("a", 1), ("c", 5), ("a", 3), ("c", 6), None] == [turns.pop() for _ in range(5)]
    assert 0 == turns.count


async def test_a_pace_holds_back_what_comes_too_often_and_takes_addresses_in_turn():
    loop, order = asyncio.get_running_loop(), []
    pace = Pace(50)

    async def ask(address):
        await pace.wait_turn(address)
        order.append(address)

    started = loop.time()
    await asyncio.gather(*(ask("many") for _ in range(15)), ask("one"))
    # Five come at once, then one each 20 ms; it was the turn of the other address after the first that waited.
    assert (["many"] * 5, True) == (order[:5], "one" in order[5:7])
    assert loop.time() - started >= 10 / 50


async def test_of_too_many_that_wait_for_their_turn_those_of_one_address_are_refused():
    refused = []
    pace = Pace(1, refused.append)
    many = [asyncio.create_task(pace.wait_turn("many")) for _ in range(WAITING_MAX)]
    await asyncio.sleep(0)
    other = asyncio.create_task(pace.wait_turn("other"))
    await asyncio.sleep(0)
    done = [each for each in many if each.done() and each.exception() is not None]
    assert WAITING_MAX // 2 - 1 == len(done) == len(refused)
    assert not other.done()
    for each in (*many, other):
        each.cancel()
    await asyncio.gather(*many, other, return_exceptions=True)


async def test_a_shared_page_is_made_once_for_all_and_is_never_older_than_the_request():
    made = []

    def render():
        made.append(len(made))
        return b"%d" % made[-1]

    page = Shared(render, seconds=0.2)
    first = await page.get()
    others = await asyncio.gather(*(page.get() for _ in range(100)))
    assert (b"0", {b"1"}, 2) == (first, set(others), len(made))


async def test_a_shared_page_that_cannot_be_made_fails_who_asked_and_is_made_for_the_next():
    answers = [b"first", ValueError("none"), b"third"]

    def render():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    page = Shared(render, seconds=0.01)
    assert [b"first", ValueError, b"third"] == [
        answer if isinstance(answer, bytes) else type(answer)
        for answer in [(await asyncio.gather(page.get(), return_exceptions=True))[0] for _ in range(3)]
    ]
