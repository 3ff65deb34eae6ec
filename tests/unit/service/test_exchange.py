"""Whom a node counts, and when what it was told counts no more."""

import asyncio

import pytest

from crdt_service.kernel.error import ServiceError
from crdt_service.kernel.slot import SLOTS, slot_of
from crdt_service.membership.ownership import follow_members
from crdt_service.wire.message import Concern
from tests.unit.service.test_handoff import Node

KEY = "k"


def make(members, replication_factor=1):
    node = Node("a")
    node.place(follow_members(dict.fromkeys(members, ""), replication_factor))
    return node


async def write(node):
    committing = asyncio.create_task(node.committer.run())
    await node.committer.write(KEY, "pn_counter", b'{"increment": 1}')
    return committing


async def test_what_is_being_forgotten_is_not_counted_on_even_if_it_is_owned_again():
    node = make(["b"])
    committing = await write(node)
    slot = slot_of(KEY)
    assert frozenset({slot}) == node.transfer.surplus
    node.transfer._handoff.confirm("b", {slot: node.store.versions[slot]})
    assert [slot] == node.transfer._begin_drop()
    node.place(follow_members({"a": ""}, 1))
    assert frozenset(range(SLOTS)) - {slot} == node.transfer.kept
    committing.cancel()


async def test_a_version_is_never_the_same_again():
    node = make(["a"])
    versions = {node.exchange.version}
    for _ in range(100):
        node.place(follow_members({"a": ""}, 1))
        versions.add(node.exchange.version)
    assert 101 == len(versions)


async def test_confirmations_of_before_a_change_count_no_more():
    node = make(["b"])
    committing = await write(node)
    slot = slot_of(KEY)
    node.transfer._handoff.confirm("b", {slot: node.store.versions[slot]})
    node.place(follow_members({"b": "", "c": ""}, 1))
    assert [] == node.transfer._begin_drop()
    committing.cancel()


async def test_a_node_that_knows_of_no_others_yet_is_no_majority():
    node = make(["a"], replication_factor=3)
    node.exchange.check(KEY, Concern.ONE)
    for concern in (Concern.MAJORITY, Concern.ALL):
        with pytest.raises(ServiceError) as refused:
            node.exchange.check(KEY, concern)
        assert "too_few_owners" == refused.value.code


async def test_a_directory_that_is_not_vouched_for_is_no_owner_that_counts():
    node = make(["a"])
    node.exchange.is_voting = False
    with pytest.raises(ServiceError) as refused:
        node.exchange.check(KEY, Concern.MAJORITY)
    assert "too_few_owners" == refused.value.code
