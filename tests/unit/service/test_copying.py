"""Which slots a node has to read, and from how many of whom, before it holds all of them."""

import pytest

from crdt_service.kernel.slot import SLOTS
from crdt_service.replication.copying import Copies, Source, decode_bits, encode_bits

THREE = Source(("a", "b", "c"), 2)


def begin(me="d", **sources):
    copies = Copies()
    copies.begin(me, {int(slot[1:]): source for slot, source in sources.items()})
    return copies


def test_a_slot_is_complete_once_as_many_sources_were_read_as_are_needed():
    copies = begin(s7=THREE)
    assert frozenset() == copies.note("a", [7])
    assert frozenset() == copies.note("a", [7]), "one source counts once"
    assert frozenset({7}) == copies.note("c", [7])
    assert frozenset({7}) == copies.complete


def test_what_the_node_holds_itself_counts_if_it_is_a_source():
    copies = begin(me="b", s1=THREE, s2=Source(("a", "c"), 2))
    assert frozenset() == copies.complete
    assert frozenset({1}) == copies.note("a", [1, 2])


def test_the_only_source_has_nothing_to_read():
    assert frozenset({1}) == begin(me="a", s1=Source(("a",), 1)).complete


def test_a_source_is_asked_for_what_it_was_not_read_for_yet():
    copies = begin(s1=THREE, s2=Source(("a",), 1), s3=Source(("b", "c"), 2))
    assert frozenset({1, 2}) == copies.wanted("a")
    copies.note("a", [1])
    assert frozenset({2}) == copies.wanted("a")
    assert frozenset() == copies.wanted("d")


def test_slots_that_are_not_copied_are_none_of_it():
    copies = begin(s1=THREE)
    assert frozenset() == copies.note("a", [5])
    assert frozenset() == copies.complete


def test_what_was_read_counts_on_only_from_the_same_sources():
    copies = begin(s1=THREE, s2=THREE)
    copies.note("a", [1, 2])
    copies.begin("d", {1: THREE, 2: Source(("a", "b", "x"), 2), 3: THREE})
    assert frozenset({1}) == copies.note("b", [1, 2, 3])
    assert frozenset({2, 3}) == copies.wanted("a")
    assert {1, 2, 3} == copies.needed.keys()


@pytest.mark.parametrize("slots", [(), (0,), (SLOTS - 1,), (0, 8, 9, SLOTS - 1), range(SLOTS)])
def test_slots_are_bits(slots):
    slots = frozenset(slots)
    data = encode_bits(slots)
    assert (SLOTS // 8 if slots else 0) == len(data)
    assert slots == decode_bits(data)


def test_the_lowest_slot_is_the_first_bit():
    assert b"\x05" == encode_bits(frozenset({0, 2})).rstrip(b"\0")
