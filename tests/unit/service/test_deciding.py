"""Nodes decide on a placement however slow their disks are, in virtual time."""

import asyncio
import contextlib
import random
from types import SimpleNamespace

import pytest

from crdt_service.kernel.error import UnreachableError
from crdt_service.loops.deciding import Decider
from crdt_service.membership.document import end, first, resize
from crdt_service.replication.replica import Replica
from crdt_service.wire.message import PlacementState, PrepareRequest, Seat
from tests.sim.loop import VirtualLoop


class SlowCommitter:
    """It knows a placement durably after so many seconds, one after the other, as a log does."""

    def __init__(self, replica, seconds):
        self._replica = replica
        self._seconds = seconds
        self._syncing = asyncio.Lock()

    async def place(self, change):
        async with self._syncing:
            state = change(self._replica.placement)
            if state is None:
                return False
            await asyncio.sleep(self._seconds)
            self._replica.placement = state
            return True


class Member:
    def __init__(self, node_id, sync_seconds):
        self.seat = Seat(node_id, f"{node_id}~1", "")
        self.replica = Replica(self.seat.replica)
        self.decider = Decider(
            self.replica,
            SlowCommitter(self.replica, sync_seconds),
            seat=lambda: self.seat,
            is_empty=lambda: self.is_empty,
            node_count=3,
            randomness=random.Random(node_id),
        )
        self.is_away = False
        self.is_empty = True

    async def request(self, build):
        """What a channel to this member does."""
        if self.is_away:
            raise UnreachableError(self.seat.node_id)
        request = build(1)
        return await (self.decider.prepare if isinstance(request, PrepareRequest) else self.decider.accept)(request)

    async def propose(self, others, build, *, asks_all):
        voters = {other.seat.replica: SimpleNamespace(request=other.request) for other in others}
        return await self.decider.decide(voters, build, asks_all=asks_all)


def make_members(*sync_seconds):
    return [Member(f"node-{number}", seconds) for number, seconds in enumerate(sync_seconds)]


def take_up(members, document):
    for member in members:
        member.replica.placement = PlacementState(document)


def build_first(promises):
    return first([promise.seat for promise in promises.values()], 3, 3, "node-0", is_new=True)


def run(act):
    with contextlib.closing(VirtualLoop(None)) as loop:
        return loop.run_until_complete(act())


def test_the_first_placement_waits_for_a_disk_that_needs_seconds():
    async def act():
        one, *others = make_members(0.001, 3.0, 0.001)
        return await one.propose(others, build_first, asks_all=True)

    assert ["node-0", "node-1", "node-2"] == [seat.node_id for seat in run(act).old.seats]


def test_a_majority_does_not_wait_for_who_is_slow():
    async def act():
        one, *others = members = make_members(0.001, 3.0, 0.001)
        document = await one.propose(others, build_first, asks_all=True)
        take_up(members, document)
        begun = asyncio.get_running_loop().time()
        decided = await one.propose(others, lambda _: resize(document, 2, 2, {}, "node-0"), asks_all=False)
        return decided.epoch, asyncio.get_running_loop().time() - begun < 1

    epoch, is_quick = run(act)
    assert (True, True) == (epoch > 2, is_quick)


def test_nothing_is_decided_at_first_while_one_is_away():
    async def act():
        one, *others = make_members(0.001, 0.001, 0.001)
        others[0].is_away = True
        return await one.propose(others, build_first, asks_all=True)

    assert run(act) is None


def test_a_node_that_took_a_write_since_it_promised_accepts_no_placement_of_a_new_cluster():
    async def act():
        one, *others = make_members(0.001, 0.001, 0.001)

        def build_late(promises):
            for other in others:
                other.is_empty = False
            return build_first(promises)

        return await one.propose(others, build_late, asks_all=True)

    assert run(act) is None


def test_nodes_that_hold_keys_end_the_copies_of_an_upgrade():
    async def act():
        one, *others = members = make_members(0.001, 0.001, 0.001)
        for member in members:
            member.is_empty = False

        def build_upgrade(promises):
            return first([promise.seat for promise in promises.values()], 3, 3, "node-0", is_new=False)

        upgrade = await one.propose(others, build_upgrade, asks_all=True)
        take_up(members, upgrade)
        ended = await one.propose(others, lambda _: end(upgrade, "node-0"), asks_all=False)
        return ended.epoch, ended.next

    assert (2, None) == run(act)


@pytest.mark.parametrize("sync_seconds", [0.001, 3.0])
def test_proposers_that_are_in_each_others_way_come_to_one_decision(sync_seconds):
    async def insist(member, others):
        while (decided := await member.propose(others, build_first, asks_all=True)) is None:
            await member.decider.back_off()
        return decided

    async def act():
        members = make_members(*3 * [sync_seconds])
        insisting = [insist(member, [other for other in members if other is not member]) for member in members]
        return await asyncio.gather(*insisting)

    decided = run(act)
    assert 3 * [decided[0]] == decided


def test_a_node_that_has_promised_lets_the_other_one_go_on():
    async def act():
        one, other, _ = members = make_members(0.001, 0.001, 0.001)
        before = [member.decider.is_asked for member in members]
        await one.propose([other], build_first, asks_all=True)
        return before, [member.decider.is_asked for member in members]

    assert ([False] * 3, [False, True, False]) == run(act)
