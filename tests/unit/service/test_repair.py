import random

from crdt_service.wire.message import RootRequest
from tests.unit.service.double import NullObserver
from tests.unit.service.side import Side, repairer


async def repair_both(one, two):
    observer = NullObserver()
    await repairer(one, observer).repair(two, None)
    return sum(call[1] for call in observer.calls if call[0] == "on_repaired")


async def test_one_exchange_makes_both_sides_equal():
    one, two = Side("a"), Side("b")
    for number in range(300):
        random.Random(number).choice((one, two)).write(f"k{number % 200}", "pn_counter", b'{"increment": 1}')
    one.write("s", "aw_set", b'{"add": "x"}')
    await repair_both(one, two)
    assert one.dump() == two.dump()
    assert len(one.dump()) == 201


async def test_equal_sides_compare_only_roots():
    one, two = Side("a"), Side("b")
    one.write("k", "pn_counter", b'{"increment": 1}')
    await repair_both(one, two)
    two.requests.clear()
    assert await repair_both(one, two) <= 24
    assert [type(request) for request in two.requests] == [RootRequest]


async def test_bytes_follow_the_difference_not_the_state():
    one, two = Side("a"), Side("b")
    for number in range(5000):
        one.write(f"k{number}", "lww_register", b'{"assign": "%s"}' % (b"v" * 100))
    whole = await repair_both(one, two)
    one.write("k7", "lww_register", b'{"assign": "new"}')
    assert await repair_both(one, two) < whole / 100
    assert one.dump() == two.dump()


async def test_large_states_move_in_parts():
    one, two = Side("a"), Side("b")
    for number in range(5):
        two.write(f"k{number}", "lww_register", b'{"assign": "%s"}' % (b"v" * 900_000))
    await repair_both(one, two)
    assert one.dump() == two.dump()
