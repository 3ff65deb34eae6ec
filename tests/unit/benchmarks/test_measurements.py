import asyncio
import random
from pathlib import Path

import pytest

from crdt_service.membership.placement import Placement
from tests.measure.__main__ import SECTIONS
from tests.measure.growth import measure_repairs
from tests.measure.healing import increment, measure_log, measure_repair, overwrite
from tests.unit.service.side import Side

PAGE = Path(__file__).parents[3] / "docs/benchmarks.md"
NAMES = [f"key-{number:08d}" for number in range(2000)]


def test_the_page_has_a_section_for_all_that_is_measured():
    assert {*SECTIONS, "systems", "hotspots"} == {
        line.split()[2] for line in PAGE.read_text().splitlines() if line.startswith("<!-- measured: ")
    }


@pytest.mark.parametrize("count", [100, 1000])
def test_what_a_peer_missed_costs_at_most_half_more_by_the_log(count):
    _, difference, sent, ratio, pushes = measure_log("", overwrite(Side("one"), NAMES, count, random.Random(1)))
    assert "1" == pushes
    assert int(difference.replace(",", "")) < int(sent.replace(",", ""))
    assert float(ratio) <= 1.5


def test_a_hot_counter_that_a_peer_missed_costs_one_delta():
    row = measure_log("hot", increment(10_000))
    assert "1" == row[4]
    assert int(row[2]) <= 100


def test_a_repair_of_equal_stores_costs_one_request_and_of_others_three_times_what_differs():
    one, two = Side("one"), Side("two")
    asyncio.run(two.join(overwrite(one, NAMES, len(NAMES), random.Random(1))))
    assert ("0", "0", "18", "-", "1") == asyncio.run(measure_repair(one, two, NAMES, 0, random.Random(2)))
    row = asyncio.run(measure_repair(one, two, NAMES, 100, random.Random(2)))
    assert float(row[3]) <= 3


def test_each_of_three_nodes_compares_with_both_others():
    placement = Placement({"a": "", "b": "", "c": ""}, 3)
    assert (2.0, 2, 4.0, 36.0) == asyncio.run(measure_repairs(placement))


def test_a_node_of_many_shares_slots_with_few():
    placement = Placement({f"node-{number}": "" for number in range(500)}, 3)
    mean, most, messages, _ = asyncio.run(measure_repairs(placement))
    assert 2 * mean == messages
    assert most < 60
