import itertools
import random

import pytest

from crdt_service.datatypes.registry import DATATYPES, find_type
from crdt_service.kernel.clock import HybridClock
from crdt_service.kernel.slot import SLOTS, name_of, slot_of
from crdt_service.store import store as store_module
from crdt_service.store.batch import Batch
from crdt_service.store.store import PACKED_BYTES_MAX, Address, Store
from tests.dump import dump
from tests.unit.service.double import FakeClock

REGISTER = find_type("lww_register").tag


def new_store():
    return Store(HybridClock(FakeClock()))


def write(store, key, type_name="lww_register", op=b'{"assign": 1}', replica="a~1"):
    batch = Batch(store, store._clock, replica)
    batch.write(key, type_name, op)
    batch.install()


def copy(source, target):
    batch = Batch(target, HybridClock(FakeClock()), "b~1")
    for part in source.slices(7):
        for address in part:
            batch.join(source.encode(address))
    batch.install()


def refresh(store):
    while store.refresh_digests(1):
        pass


def sums_of_scans(store):
    return [store.scan(slot, is_fresh=True).total for slot in range(SLOTS)]


def test_names_and_slots_never_change():
    assert ("ac52cb5ff985d463", 689) == (name_of("k").hex(), slot_of("k"))


def test_slots_fill_evenly():
    counts = [0] * SLOTS
    for number in range(100 * SLOTS):
        counts[slot_of(f"key-{number}")] += 1
    assert 50 < min(counts) <= max(counts) < 150


def test_a_slot_is_listed_and_forgotten_whole():
    store = new_store()
    for number in range(3000):
        write(store, f"k{number}")
    refresh(store)
    slot = slot_of("k7")
    expected = {Address(key, REGISTER) for key in map("k{}".format, range(3000)) if slot_of(key) == slot}
    assert expected == set(store.addresses(slot))
    version = store.versions[slot]
    store.drop(slot)
    assert (3000 - len(expected), [], 0) == (len(store), store.addresses(slot), store.sums[slot])
    assert store.versions[slot] > version
    assert (None, None, None) == (store.get(Address("k7", REGISTER)), store.find("k7"), store.read("k7"))
    assert store.sums == sums_of_scans(store)


def test_what_was_forgotten_can_come_back():
    store, other = new_store(), new_store()
    write(other, "k")
    write(store, "k")
    store.drop(slot_of("k"))
    copy(other, store)
    refresh(store)
    refresh(other)
    assert other.sums == store.sums
    assert (1, dump(other)) == (len(store), dump(store))


def test_slices_bear_a_slot_that_is_forgotten_meanwhile():
    store = new_store()
    for number in range(100):
        write(store, f"k{number}")
    seen = []
    for part in store.slices(3):
        seen += part
        for slot in range(SLOTS):
            store.drop(slot)
    assert 3 >= len(seen)
    assert set(seen) <= {Address(f"k{number}", REGISTER) for number in range(100)}


def test_versions_count_installs_of_their_slot_only():
    store = new_store()
    for _ in range(3):
        write(store, "k")
    assert {slot_of("k"): 3} == {slot: version for slot, version in enumerate(store.versions) if version}


@pytest.mark.parametrize("order", [*itertools.permutations(("aw_set", "pn_counter", "ew_flag"))])
def test_of_types_created_concurrently_the_first_in_the_registry_is_found_and_none_is_lost(order):
    ops = {"aw_set": b'{"add": "x"}', "pn_counter": b'{"increment": 1}', "ew_flag": b'{"enable": true}'}
    store, all_states = new_store(), {}
    for name in order:
        other = new_store()
        write(other, "k", name, ops[name])
        all_states |= dump(other)
        copy(other, store)
    expected = next(datatype for datatype in DATATYPES if datatype.name in order)
    assert expected is store.find("k")
    assert expected.name == store.read("k").type
    assert (all_states, 3) == (dump(store), len(store))
    refresh(store)
    assert all_states == dump(store)
    assert store.digest("k") == store.sums[slot_of("k")]


@pytest.mark.parametrize("datatype", DATATYPES, ids=lambda datatype: datatype.name)
def test_no_state_is_mistaken_for_the_bytes_of_one_at_rest(datatype):
    assert not isinstance(datatype.empty(), bytes)


def test_sums_and_digests_follow_every_write_whenever_they_are_refreshed(monkeypatch):
    monkeypatch.setattr(store_module, "STALE_KEYS_MAX", 5)
    monkeypatch.setattr(store_module, "SCANNED_KEYS_MAX", 20)
    randomness = random.Random(1)
    store = new_store()
    for number in range(600):
        key = f"k{randomness.randrange(40)}"
        value = "x" * randomness.choice((1, PACKED_BYTES_MAX))
        write(store, key, op=b'{"assign": "%s%d"}' % (value.encode(), number), replica=f"{randomness.randrange(3)}~1")
        if randomness.random() < 0.1:
            store.refresh_digests(randomness.randrange(10))
        if randomness.random() < 0.05:
            store.drop(slot_of(f"k{randomness.randrange(40)}"))
        assert store.sums == sums_of_scans(store)
        assert (value + str(number)) in store.read(key).value.decode()
    refresh(store)
    again = new_store()
    copy(store, again)
    refresh(again)
    assert dump(store) == dump(again)
    assert store.sums == again.sums
    assert all(store.digest(key) == again.digest(key) for key in map("k{}".format, range(40)))


def test_small_states_rest_as_their_bytes_and_wake_when_written():
    store = new_store()
    write(store, "small", "aw_set", b'{"add": "x"}')
    write(store, "large", "aw_set", b'{"add": "%s"}' % (b"x" * 200))
    write(store, "large", "aw_set", b'{"add": "%s"}' % (b"y" * 200))
    before = dump(store)
    refresh(store)
    states = {key: store.slots[slot_of(key)][key].state for key in ("small", "large")}
    assert [True, False] == [isinstance(state, bytes) for state in states.values()]
    assert before == dump(store)
    write(store, "small", "aw_set", b'{"add": "y"}')
    assert not isinstance(store.slots[slot_of("small")]["small"].state, bytes)
    assert b'["x","y"]' == store.read("small").value


def test_a_state_that_was_only_looked_at_keeps_its_digest():
    store = new_store()
    write(store, "k")
    refresh(store)
    before = list(store.sums)
    store.get(Address("k", REGISTER))
    store.read("k")
    assert before == store.sums == sums_of_scans(store)
    refresh(store)
    assert before == store.sums


def test_scans_under_way_keep_what_they_saw_and_stay_bounded(monkeypatch):
    monkeypatch.setattr(store_module, "SCANNED_KEYS_MAX", 10)
    store = new_store()
    for number in range(200):
        write(store, f"k{number}")
    refresh(store)
    slot = slot_of("k1")
    scan = store.scan(slot, is_fresh=True)
    write(store, "k1", op=b'{"assign": 2}')
    refresh(store)
    assert scan is store.scan(slot, is_fresh=False)
    assert (0, len(store.slots[slot])) == tuple(store.scan_cost(slot, is_fresh=fresh) for fresh in (False, True))
    assert scan is not store.scan(slot, is_fresh=True)
    for other in range(SLOTS):
        store.scan(other, is_fresh=True)
    assert 10 >= sum(len(scan.keys) for scan in store._scans.values())
