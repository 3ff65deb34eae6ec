"""Rounds in which backends exchange what they let through, and what holds without them."""

import json
import logging

import pytest

from crdt_service.access import sharing
from crdt_service.access.limit import Limit
from crdt_service.access.sharing import Sharing
from crdt_service.kernel.error import UnreachableError

LIMIT = Limit(requests_per_minute=60, burst_limit=12)


class MapKey:
    """The map behind the nodes, with the operations that backends use."""

    def __init__(self):
        self.fields = {}
        self.writes = 0
        self.is_cut = False

    async def update(self, operation):
        value = await self.read()
        change = json.loads(operation)
        if "remove" in change:
            self.fields.pop(change["remove"], None)
        else:
            ((name, field),) = change["update"].items()
            assert "lww_register" == field["type"]
            self.fields[name] = field["op"]["assign"]
        self.writes += 1
        return json.dumps(self.fields).encode() if value else value

    async def read(self):
        if self.is_cut:
            raise UnreachableError("node-0")
        return json.dumps(self.fields).encode()


class World:
    def __init__(self, count):
        self.seconds = 1000.0
        self.key = MapKey()
        self.backends = [self.start(f"backend-{number}") for number in range(count)]

    def start(self, name):
        return Sharing(self.key, name, lambda: self.seconds)

    async def round(self, seconds=1.0):
        self.seconds += seconds
        for backend in self.backends:
            await backend.round()

    def take(self, number, count=1):
        backend = self.backends[number]
        return sum(backend.buckets.take("a", LIMIT, self.seconds, parts=backend.parts).is_allowed for _ in range(count))


async def test_backends_hear_of_each_other_within_two_rounds():
    world = World(3)
    await world.round()
    assert 8 == world.take(0, 8)
    await world.round(0.0)
    await world.round(0.0)
    assert (4, 0) == (world.take(1, 9), world.take(1, 9))
    assert 4 == world.take(2, 9), "what is let through at once …"
    await world.round(0.0)
    await world.round(0.0)
    world.seconds += 4.5
    assert 0 == sum(world.take(number) for number in range(3)), "… is waited for"
    world.seconds += 1
    assert 1 == world.take(0)


async def test_without_traffic_nothing_is_written_but_a_beat():
    world = World(1)
    for _ in range(60):
        await world.round()
    assert 3 == world.key.writes


async def test_a_backend_that_is_gone_is_forgotten_and_one_that_is_idle_is_not():
    world = World(3)
    await world.round()
    world.backends.pop()
    for _ in range(100):
        await world.round()
    assert {"backend-0", "backend-1"} == world.key.fields.keys()


async def test_a_backend_that_stops_takes_its_report_away():
    world = World(2)
    await world.round()
    await world.backends.pop().leave()
    assert {"backend-0"} == world.key.fields.keys()


async def test_alone_each_keeps_to_its_part_until_the_nodes_are_back(caplog):
    caplog.set_level(logging.INFO)
    world = World(3)
    await world.round()
    await world.round()
    world.key.is_cut = True
    seen = []
    for _ in range(7):
        await world.round()
        seen.append(world.backends[0].parts)
    assert [1] * 5 + [3] * 2 == seen
    assert [4, 4, 4] == [world.take(number, 99) for number in range(3)]
    assert 3 == caplog.text.count("rate limits are not shared; this backend allows 1/3 of each")
    world.key.is_cut = False
    await world.round(0.0)
    await world.round(0.0)
    assert (1, 0) == (world.backends[0].parts, world.take(0)), "what was let through meanwhile counts"
    assert 3 == caplog.text.count("rate limits are shared again")


async def test_a_backend_that_never_heard_of_others_keeps_to_the_whole():
    world = World(1)
    world.key.is_cut = True
    await world.round()
    assert (1, 12) == (world.backends[0].parts, world.take(0, 99))


@pytest.mark.parametrize(
    "field",
    [
        None,
        {"beat": 1},
        {"beat": 1, "callers": {"a": [-1, 0]}},
        {"beat": 1, "callers": {"a": [1, 0, 0]}},
        {"beat": 1, "callers": {"a" * 65: [1, 0]}},
        {"beat": 1, "callers": {str(number): [1, 0] for number in range(513)}},
    ],
)
async def test_a_report_that_is_none_changes_nothing(field):
    world = World(1)
    world.key.fields["stranger"] = field
    await world.round()
    assert 12 == world.take(0, 99)
    assert 1 == len(world.backends[0].buckets)


async def test_a_report_fits_the_key():
    """Of many callers with long names, which take large amounts."""
    world = World(1)
    for number in range(1000):
        world.backends[0].buckets.take(f"{number:039}", Limit(1_000_000, 1_000_000), world.seconds, cost=999_999)
    await world.round()
    (field,) = world.key.fields.values()
    assert 512 == len(field["callers"])
    assert len(json.dumps(field)) < 64 << 10


def test_the_key_is_reserved():
    assert sharing.KEY.startswith("_jarvis/")
