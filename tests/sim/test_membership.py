"""Membership under loss, partition and pauses: everybody ends up knowing the same, soon, with bounded messages."""

import math

import pytest

from crdt_service.membership.swim import LAMBDA, NEWS_SECONDS, SUSPICION_INTERVALS
from crdt_service.membership.table import DEAD, DOWN_OUT_SECONDS, FORGET_SECONDS
from tests.sim.growth import HEAD, measure
from tests.sim.membership import EPOCH_MS, World, update_of

SEEDS = range(5)


def incarnation(world, name):
    return world.peers[name].swim._table.updates[name].incarnation


def suspicion_seconds(world, count):
    return SUSPICION_INTERVALS * max(1.0, math.log10(count)) * world.interval_seconds


@pytest.mark.parametrize("seed", SEEDS)
def test_nodes_that_know_one_member_come_to_know_all(seed):
    world = World(1, seed=seed)
    for number in range(1, 12):
        world.join(f"node-{number}", "node-0")
    world.run_until(world.is_converged, 30)
    assert {f"node-{number}": f"zone-{number % 3}" for number in range(12)} == world.peers[
        "node-7"
    ].swim.placement_members()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("channels_close", [True, False])
def test_a_death_is_known_within_bounded_intervals(seed, channels_close):
    world = World(10, seed=seed)
    world.run(30)
    world.kill("node-3", channels_close=channels_close)
    # Each other member pings it once in three rounds; a closed channel brings that forward to now.
    find_seconds = 3 if channels_close else 3 * 1.1 * world.interval_seconds + 3
    spread_seconds = 10 * NEWS_SECONDS
    world.run_until(
        lambda: world.states("node-3") == {"dead": 9}, find_seconds + suspicion_seconds(world, 10) + spread_seconds
    )
    assert {"alive": 9} == world.states("node-4")


@pytest.mark.parametrize("seed", SEEDS)
def test_loss_makes_suspects_that_refute_and_nobody_dead(seed):
    world = World(10, seed=seed, loss=0.2)
    dead = []
    for _ in range(60):
        world.run(10)
        dead += [name for name in world.peers if "dead" in world.states(name)]
    assert [] == dead
    assert any(incarnation(world, name) > EPOCH_MS for name in world.peers)  # Somebody had to refute.
    world.loss = 0.0
    world.run_until(
        lambda: world.is_converged() and all({"alive": 10} == world.states(name) for name in world.peers), 60
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_partition_is_survived_however_long(seed):
    world = World(8, seed=seed)
    left = {f"node-{number}" for number in range(3)}
    world.cut(lambda a, b: (a in left) != (b in left))
    world.run(DOWN_OUT_SECONDS + 200)
    assert {"alive": 3, "dead": 5} == world.states("node-0")
    assert left == set(world.peers["node-1"].swim.placement_members())
    world.cut(lambda _a, _b: False)
    world.run_until(
        lambda: world.is_converged() and all({"alive": 8} == world.states(name) for name in world.peers), 60
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_paused_process_comes_back_and_accuses_nobody(seed):
    world = World(6, seed=seed)
    world.run(20)
    world.pause("node-2", 300)
    world.run(299)
    assert {"dead": 5, "alive": 1} == world.states("node-2")
    before = {name: incarnation(world, name) for name in world.peers}
    world.run_until(lambda: {"alive": 6} == world.states("node-2"), 30)
    world.run(60)
    after = {name: incarnation(world, name) for name in world.peers}
    assert ["node-2"] == [name for name in world.peers if after[name] != before[name]]
    assert world.is_converged()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_restart_refutes_the_death_of_the_life_before_and_moves_no_data(seed):
    world = World(5, seed=seed)
    placement = world.peers["node-0"].swim.placement_members()
    epochs = [peer.swim.epoch for name, peer in world.peers.items() if name != "node-4"]
    world.kill("node-4")
    world.run(DOWN_OUT_SECONDS - 60)
    assert {"dead": 4} == world.states("node-4")
    world.join("node-4", "node-0")
    world.run_until(lambda: {"alive": 5} == world.states("node-4") and world.is_converged(), 10)
    assert placement == world.peers["node-4"].swim.placement_members()
    assert epochs == [peer.swim.epoch for name, peer in world.peers.items() if name != "node-4"]


def test_a_node_whose_clock_went_back_outruns_its_earlier_life():
    world = World(3)
    world.kill("node-1")
    for peer in world.peers.values():
        peer.swim.learn([update_of("node-1", EPOCH_MS + 10**9)], world.now)
    world.join("node-1", "node-0")
    world.run_until(lambda: {"alive": 3} == world.states("node-1") and world.is_converged(), 10)
    assert EPOCH_MS + 10**9 < incarnation(world, "node-1")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_node_that_leaves_loses_its_slots_at_once_and_is_forgotten_in_the_end(seed):
    world = World(9, seed=seed)
    leaver = world.peers["node-8"]
    world._perform(leaver, leaver.swim.leave(world.now))
    world.run_until(lambda: {"leaving": 9} == world.states("node-8"), 5)
    assert world.is_converged()
    assert 8 == len(leaver.swim.placement_members())
    world._perform(leaver, leaver.swim.depart(world.now))
    world.run(0.1)
    world.kill("node-8")
    world.run_until(lambda: {"left": 8} == world.states("node-8"), 5)
    world.run(FORGET_SECONDS + 10)
    assert {None: 8} == world.states("node-8")


@pytest.mark.parametrize("seed", SEEDS)
def test_the_dead_lose_their_slots_after_a_while_and_are_forgotten_by_all_for_good(seed):
    world = World(6, seed=seed)
    world.kill("node-5")
    world.run(DOWN_OUT_SECONDS + suspicion_seconds(world, 6) + 20)
    assert {("node-0", "node-1", "node-2", "node-3", "node-4")} == {
        tuple(peer.swim.placement_members()) for peer in world.peers.values()
    }
    world.join("node-6", "node-0")  # It learns the tombstone, with its age.
    world.run(10)
    assert {"dead": 6} == world.states("node-5")
    world.run(FORGET_SECONDS - DOWN_OUT_SECONDS)
    assert {None: 6} == world.states("node-5")
    world.run(FORGET_SECONDS)
    assert {None: 6} == world.states("node-5")


@pytest.mark.parametrize("seed", SEEDS)
def test_who_missed_news_for_good_gets_it_by_the_digest(seed):
    world = World(6, seed=seed)
    deaf = "node-5"
    world.cut(lambda _a, b: b == deaf)
    world.add("node-6")
    world._perform(world.peers["node-6"], world.peers["node-6"].swim.opened("node-0"))
    world.run(8)  # By then nobody tells it any more, and the deaf one is not dead yet.
    assert {"alive": 6, None: 1} == world.states("node-6")
    assert not any(peer.swim._news.get("node-6") is not None for peer in world.peers.values())
    world.cut(lambda _a, _b: False)
    world.run_until(world.is_converged, 60)
    assert {"alive": 7} == world.states("node-6")


def test_messages_are_bounded_whatever_happens():
    world = World(30, seed=1, loss=0.3)
    for number in range(30, 40):
        world.join(f"node-{number}", "node-0")
    for number in range(5):
        world.kill(f"node-{number}")
    rounds = 50
    world.run(rounds * world.interval_seconds)
    messages, _ = world.totals()
    # In a round, a node pings fanout members and a dead one, asks fanout others about each that is silent, who ping it;
    # with the replies that is at most this. News comes on top: fanout members per NEWS_SECONDS / 2, and their replies.
    per_round = 2 * (4 + 3 * 3 * 2)
    per_second = 2 * 3 / (NEWS_SECONDS / 2)
    assert messages < 35 * rounds * (per_round + per_second * world.interval_seconds)
    assert world.largest_message < 16 * 1024


@pytest.mark.parametrize("count", [3, 30])
def test_news_is_told_a_bounded_number_of_times(count):
    world = World(count)
    peer = world.peers["node-0"].swim
    peer.learn([update_of("node-99")], world.now)
    told = 0
    while any(update.node_id == "node-99" for update in peer.gossip("node-1", world.now).updates):
        told += 1
    assert math.ceil(LAMBDA * math.log(count + 2)) == told


def test_each_member_is_probed_once_per_turn():
    world = World(10)
    swim = world.peers["node-0"].swim
    asked = [effect.to for _ in range(3) for effect in swim._round(world.now)]
    assert {f"node-{number}" for number in range(1, 10)} == set(asked)
    assert 9 == len(asked)


def test_without_rounds_channels_are_the_evidence():
    world = World(3, interval_seconds=math.inf)
    world.run(100)
    assert (0, 0) == world.totals()
    world.kill("node-2")
    world.run(100)
    assert {"dead": 2} == world.states("node-2")
    world.join("node-2", "node-0")
    world._perform(world.peers["node-1"], world.peers["node-1"].swim.opened("node-2"))
    world.run(1)
    assert {"alive": 3} == world.states("node-2")
    leaver = world.peers["node-2"]
    world._perform(leaver, leaver.swim.leave(world.now))
    world.run(1)
    assert {"leaving": 3} == world.states("node-2")


def test_the_epoch_rises_with_placement_and_only_then():
    world = World(3)
    swim = world.peers["node-0"].swim
    before = swim.epoch
    swim.learn([update_of("node-3")], 0.0)
    assert before + 1 == swim.epoch
    swim.learn([update_of("node-3", liveness=DEAD)], 0.0)
    assert before + 1 == swim.epoch
    while swim.wake_at() < DOWN_OUT_SECONDS:
        swim.tick(swim.wake_at())
    assert before + 1 == swim.epoch
    swim.tick(DOWN_OUT_SECONDS)
    assert before + 2 == swim.epoch


def test_growth_is_measured_alike_each_time():
    def cells():
        row = measure(5, interval_seconds=10.0, fanout=3, seed=1)
        assert HEAD.count("|") == row.count("|")
        return row.split("|")[1:-3]  # All but the two that measure this machine.

    assert cells() == cells()
