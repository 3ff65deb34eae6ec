"""A key that was created concurrently with several types: nothing of it is hidden without a word."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.datatypes.registry import DATATYPES
from crdt_service.kernel.clock import HybridClock
from crdt_service.kernel.error import OperationError
from crdt_service.kernel.slot import slot_of
from crdt_service.replication.listing import answer_conflicts, answer_list, merge_conflicts, merge_keys
from crdt_service.resolution.conflicts import Arisen
from crdt_service.resolution.explanation import read_other_types, read_types
from crdt_service.resolution.sibling import TYPES_TAG
from crdt_service.store.batch import Batch
from crdt_service.store.store import Store
from crdt_service.wire.message import ConflictsRequest, ListRequest, WriteItem
from tests.unit.service.double import FakeClock
from tests.unit.service.test_law import OPERATIONS

# In the order of types.
WRITES = {
    "pn_counter": {"increment": 1},
    "lww_register": {"assign": "live"},
    "aw_set": {"add": "x"},
    "ew_flag": {"enable": True},
}


class Node:
    """A store and what writes to it."""

    def __init__(self, name="node-0"):
        self.hybrid = HybridClock(FakeClock())
        self.store = Store(self.hybrid)
        self.origin = f"{name}~1"

    def batch(self):
        return Batch(self.store, self.hybrid, self.origin)

    def perform(self, key, type_name="", op=None, *, is_named=False):
        """Write, or delete without an operation; return the conflicts that arose."""
        batch = self.batch()
        data = b"" if op is None else msgspec.json.encode(op)
        batch.perform(WriteItem(key, type_name, data, is_delete=op is None), is_named=is_named)
        return batch.install()

    def join(self, other, key):
        """Take what another node holds of a key; return the conflicts that arose."""
        batch = self.batch()
        for delta in other.store.encode_key(key):
            batch.join(delta)
        return batch.install()


def create(*type_names):
    """A node that joined concurrent creations of the key `k`, in this order."""
    node = Node()
    for place, type_name in enumerate(type_names, 1):
        other = Node(f"node-{place}")
        other.perform("k", type_name, WRITES[type_name])
        node.join(other, "k")
    return node


def conflict(reading):
    return msgspec.json.decode(reading.conflict)


def code(call, *arguments, **options):
    with pytest.raises(OperationError) as failed:
        call(*arguments, **options)
    return failed.value.code


@pytest.mark.parametrize("order", list(itertools.permutations(WRITES)))
def test_in_whatever_order_types_arrive_the_first_by_their_order_is_shown_and_names_the_others(order):
    node = create(*order)

    shown, *others = WRITES
    assert (shown, {"places": 0, "strategies": [], "other_types": others}) == (
        node.store.read("k").type,
        conflict(node.store.read("k")),
    )
    read = {name: node.store.read("k", type_name=name) for name in WRITES}
    assert {"pn_counter": 1, "lww_register": "live", "aw_set": ["x"], "ew_flag": True} == {
        name: msgspec.json.decode(reading.value) for name, reading in read.items()
    }
    assert {name: [each for each in WRITES if each != name] for name in WRITES} == {
        name: conflict(reading)["other_types"] for name, reading in read.items()
    }
    assert None is node.store.read("k", type_name="g_set")


def test_a_write_to_a_type_that_is_not_shown_names_it():
    node = create("pn_counter", "aw_set")
    add = {"add": "y"}

    assert "type_conflict" == code(node.perform, "k", "aw_set", add)
    node.perform("k", "aw_set", add, is_named=True)
    node.perform("k", "pn_counter", WRITES["pn_counter"])
    assert (b'["x","y"]', b"2") == (
        node.store.read("k", type_name="aw_set").value,
        node.store.read("k").value,
    )


def test_naming_a_type_begins_no_conflict():
    node = create("pn_counter")

    assert "type_conflict" == code(node.perform, "k", "aw_set", WRITES["aw_set"], is_named=True)
    node.perform("new", "aw_set", WRITES["aw_set"], is_named=True)
    assert ("aw_set", b"") == (node.store.read("new").type, node.store.read("new").conflict)


def test_writes_of_one_batch_see_those_before_them():
    node = Node()
    batch = node.batch()
    batch.perform(WriteItem("k", "lww_register", b'{"assign": 1}'))
    assert "type_conflict" == code(batch.perform, WriteItem("k", "aw_set", b'{"add": "x"}'))
    batch.perform(WriteItem("k", "", b"", is_delete=True))
    batch.perform(WriteItem("k", "aw_set", b'{"add": "x"}'))
    batch.install()

    reading = node.store.read("k")
    assert ("aw_set", b'["x"]', b"") == (reading.type, reading.value, reading.conflict)


@pytest.mark.parametrize(("gone", "left"), [("aw_set", "lww_register"), ("lww_register", "aw_set")])
def test_either_side_can_be_deleted_and_then_there_is_no_conflict(gone, left):
    node = create("lww_register", "aw_set")
    node.perform("k", gone, is_named=True)

    reading = node.store.read("k")
    assert (left, b"", None) == (reading.type, reading.conflict, node.store.read("k", type_name=gone))
    assert [] == list(node.store.conflicts.walk("", None))
    node.perform("k", left, WRITES[left])
    assert "type_conflict" == code(node.perform, "k", gone, WRITES[gone])


def test_a_deletion_without_a_type_is_of_all():
    node = create("lww_register", "aw_set")
    node.perform("k")

    assert (None, {}, b"") == (node.store.read("k"), node.store.conflicts.types, node.store.etag("k"))


def test_what_was_written_is_answered_even_if_that_emptied_it():
    node = create("pn_counter", "ew_flag")
    node.perform("k", "ew_flag", {"disable": True}, is_named=True)

    reading = node.store.read("k", type_name="ew_flag", is_written=True)
    assert ("ew_flag", b"false", node.store.etag("k")) == (reading.type, reading.value, reading.digest)


def test_each_type_that_joins_others_is_counted_once_and_receipts_are_none():
    register, elements, flag = (Node(f"node-{place}") for place in range(3))
    register.perform("k", "lww_register", WRITES["lww_register"])
    elements.perform("k", "aw_set", WRITES["aw_set"])
    flag.perform("k", "ew_flag", WRITES["ew_flag"])

    assert [Arisen("lww_register", "type_order", 1)] == register.join(elements, "k")
    assert [] == register.join(elements, "k")
    assert [Arisen("lww_register", "type_order", 1)] == register.join(flag, "k")
    assert [] == register.perform("k", "lww_register", WRITES["lww_register"])
    assert ["k"] == [place.key for place in register.store.conflicts.walk("", None)]


def test_conflicts_list_such_a_key_once_and_who_knows_more_types_tells():
    two, three = create("lww_register", "aw_set"), create("lww_register", "aw_set", "ew_flag")
    replies = {
        name: answer_conflicts(node.store, ConflictsRequest(1, "", None, 10))
        for name, node in (("node-0", two), ("node-1", three))
    }
    [(node_id, found)], after = merge_conflicts(replies, 10)

    assert ("node-1", "k", (), TYPES_TAG, None) == (node_id, found.key, found.path, found.tag, after)
    assert ["lww_register", "aw_set", "ew_flag"] == read_types(found.resolution)
    explained = conflict(three.store.read("k", explain=True))
    assert (["aw_set", "ew_flag"], "type_order") == (
        explained["other_types"],
        explained["resolutions"][0]["strategy"],
    )
    beyond = ConflictsRequest(1, "", (found.key, found.path, found.tag), 10)
    assert [] == answer_conflicts(three.store, beyond).conflicts


def test_listings_show_the_type_that_reads_show_and_the_others():
    node = create("lww_register", "aw_set", "ew_flag")
    node.perform("j", "aw_set", WRITES["aw_set"])
    for slot in node.store.index.missing():
        node.store.index.build(slot, node.store.slots[slot])
    replies = {"node-0": answer_list(node.store, ListRequest(1, "", "", 2))}
    merged, after = merge_keys(replies, 2, lambda key: ["node-0"])

    assert [("j", "aw_set", ()), ("k", "lww_register", ("aw_set", "ew_flag"))] == [
        (each.listed.key, each.listed.type_name, each.other_types) for each in merged
    ]
    assert None is after
    # The release before takes the last of a key.
    assert {"j": "aw_set", "k": "lww_register"} == {each.key: each.type_name for each in replies["node-0"].keys}
    page = answer_list(node.store, ListRequest(1, "", "", 1))
    assert (["j"], "j") == ([each.key for each in page.keys], page.upto)


def test_a_slot_that_is_dropped_takes_its_conflicts_along():
    node = create("lww_register", "aw_set")
    node.store.drop(slot_of("k"))

    assert ({}, []) == (node.store.conflicts.types, list(node.store.conflicts.walk("", None)))


@given(data=st.data())
def test_whatever_is_written_by_whom_is_visible_under_its_type_on_every_node(data):
    nodes = [Node(f"node-{place}") for place in range(3)]
    kinds = [datatype for datatype in DATATYPES if datatype.name in OPERATIONS]
    for _ in range(data.draw(st.integers(1, 10))):
        node = data.draw(st.sampled_from(nodes))
        if data.draw(st.booleans()):
            node.join(data.draw(st.sampled_from(nodes)), "k")
            continue
        datatype = data.draw(st.sampled_from(kinds))
        try:
            node.perform("k", datatype.name, data.draw(OPERATIONS[datatype.name]), is_named=data.draw(st.booleans()))
        except OperationError:
            continue
    for node in nodes:
        for other in nodes:
            node.join(other, "k")
    for node in nodes:
        held = [datatype.name for datatype in DATATYPES if node.store.read("k", type_name=datatype.name) is not None]
        reading = node.store.read("k")
        told = [] if reading is None else [reading.type, *read_other_types(reading.conflict)]
        assert held == told
        of_types = [place.key for place in node.store.conflicts.walk("", None) if place.tag == TYPES_TAG]
        assert (["k"] if len(held) > 1 else []) == of_types
    assert 1 == len({node.store.etag("k") for node in nodes})
