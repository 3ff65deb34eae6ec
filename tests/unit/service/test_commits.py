"""The numbered commits: what each peer lacks, bounded in memory."""

import random
from unittest import mock

from crdt_service.datatypes.aw_set import AwSet
from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.pn_counter import PnCounter
from crdt_service.kernel.slot import slot_of
from crdt_service.replication import commits
from crdt_service.replication.commits import CommitLog, delta_bytes
from crdt_service.wire.message import Delta


def delta(key, count=1):
    return Delta(key, PnCounter.tag, PnCounter.version, PnCounter().encode({"node-0~1": (count, 0)}))


def test_a_peer_is_sent_what_it_lacks_and_nothing_else():
    log = CommitLog()
    for number in range(10):
        log.append(float(number), [delta(f"k{number}")])
    push = log.take(7)
    assert (["k7", "k8", "k9"], 10, 7.0) == ([each.key for each in push.deltas], push.upto, push.committed_at)
    assert (10, []) == (log.take(10).upto, log.take(10).deltas)


def test_deltas_of_one_key_travel_as_one():
    log = CommitLog()
    for count in range(1, 101):
        log.append(1.0, [delta("hot", count)])
    push = log.take(0)
    assert (100, [delta("hot", 100)]) == (push.upto, push.deltas)


def test_only_the_slots_of_a_peer_are_sent_and_the_rest_counts_as_sent():
    log = CommitLog()
    log.append(1.0, [delta("a"), delta("b")])
    push = log.take(0, frozenset({slot_of("b")}))
    assert (2, ["b"]) == (push.upto, [each.key for each in push.deltas])
    assert (2, []) == (log.take(0, frozenset()).upto, log.take(0, frozenset()).deltas)


def test_a_push_is_bounded_and_the_next_goes_on_behind_it():
    log = CommitLog()
    log.append(1.0, [delta(f"k{number}") for number in range(10)])
    with mock.patch.object(commits, "PUSH_BYTES_MAX", 3 * delta_bytes(delta("k0"))):
        first = log.take(0)
        assert (3, 3) == (first.upto, len(first.deltas))
        assert "k3" == log.take(first.upto).deltas[0].key


def test_a_delta_larger_than_a_push_goes_alone():
    log = CommitLog()
    log.append(1.0, [delta("a"), delta("b")])
    with mock.patch.object(commits, "PUSH_BYTES_MAX", 1):
        assert (1, ["a"]) == (log.take(0).upto, [each.key for each in log.take(0).deltas])


def test_joined_deltas_take_no_more_than_each_for_itself():
    log, sets, state, total = CommitLog(), AwSet(), AwSet().empty(), 0
    randomness = random.Random(1)
    for number in range(2000):
        replica = f"node-{randomness.randrange(3)}~478f0fb3"
        op = b'{"%s": "x%d"}' % (randomness.choice((b"add", b"add", b"remove")), randomness.randrange(100))
        change = sets.apply(state, sets.empty(), op, Origin(replica, lambda: 1))
        state = sets.join(state, change)
        log.append(1.0, [Delta("k", AwSet.tag, AwSet.version, sets.encode(change))])
        total += delta_bytes(Delta("k", AwSet.tag, AwSet.version, sets.encode(change)))
        if number % 50 == 49:
            (joined,) = log.take(number - 49).deltas
            assert delta_bytes(joined) <= total
            total = 0
    assert sets.encode(state) == log.take(0).deltas[0].state


def test_memory_is_bounded_and_what_fell_off_is_known():
    log = CommitLog()
    size = delta_bytes(delta("k0"))
    with mock.patch.object(commits, "LOG_BYTES_MAX", 5 * size):
        for _ in range(10_000):
            log.append(1.0, [delta("k0")])
    assert (10_000, 5 * size, 9_996) == (log.newest, log.bytes, log.oldest)
    assert [False, True, True, False] == [log.reaches(after) for after in (9_994, 9_995, 10_000, 10_001)]
    assert len(log._entries) < 5000


def test_a_log_goes_on_where_its_data_directory_ended():
    log = CommitLog()
    log.restore(0, [])
    log.restore(40, [])  # What a snapshot says.
    log.restore(42, [delta("a"), delta("b")])
    assert (42, 41, True, False) == (log.newest, log.oldest, log.reaches(40), log.reaches(39))
    assert ["b"] == [each.key for each in log.take(41).deltas]
