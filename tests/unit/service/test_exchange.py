"""What a node says of the slots that it owns."""

import random
from types import SimpleNamespace

import pytest

from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.slot import SLOTS, slot_of
from crdt_service.loops.exchange import Exchange
from crdt_service.membership.placement import Placement
from crdt_service.replication.replica import Replica
from crdt_service.wire.message import Concern
from tests.unit.service.double import NullObserver
from tests.unit.service.side import Side

KEY = "k"


def make(members, replication_factor=1):
    side = Side("a")
    side.write(KEY, "pn_counter", b'{"increment": 1}')
    committer = SimpleNamespace(subscribe=lambda publish: None, join_states=None)
    return Exchange(
        "a",
        side.store,
        committer,
        Replica("a~1"),
        placement=Placement(dict.fromkeys(members, ""), replication_factor),
        observer=NullObserver(),
        sync_interval_seconds=1.0,
        randomness=random.Random(1),
    )


def test_what_is_being_forgotten_is_not_counted_on_even_if_it_is_owned_again():
    exchange = make(["b"])
    slot = slot_of(KEY)
    assert frozenset({slot}) == exchange.surplus
    exchange._handoff.confirm("b", {slot: exchange._store.versions[slot]})
    assert [slot] == exchange._begin_drop()
    exchange.place(Placement({"a": ""}, 1))
    assert frozenset(range(SLOTS)) - {slot} == exchange.kept


def test_an_epoch_is_never_the_same_again():
    exchange = make(["a"])
    epochs = {exchange.epoch}
    for _ in range(100):
        exchange.place(Placement({"a": ""}, 1))
        epochs.add(exchange.epoch)
    assert 101 == len(epochs)


def test_confirmations_of_before_a_change_count_no_more():
    exchange = make(["b"])
    slot = slot_of(KEY)
    exchange._handoff.confirm("b", {slot: exchange._store.versions[slot]})
    exchange.place(Placement({"b": "", "c": ""}, 1))
    assert [] == exchange._begin_drop()


def test_a_node_that_knows_of_no_others_yet_is_no_majority():
    exchange = make(["a"], replication_factor=3)
    exchange.check(KEY, Concern.ONE)
    for concern in (Concern.MAJORITY, Concern.ALL):
        with pytest.raises(ServiceError) as refused:
            exchange.check(KEY, concern)
        assert "too_few_owners" == refused.value.code
