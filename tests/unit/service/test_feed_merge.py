"""The nodes' changes become one sequence, and a cursor names a place in it."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.api.feed.cursor import CURSOR_LENGTH_MAX, NODES_MAX, Place, read_cursor, write_cursor
from crdt_service.api.feed.event import encode_event
from crdt_service.api.feed.merge import Changed, Merge, Reset
from crdt_service.api.feed.ring import Entry, Ring
from crdt_service.kernel.error import OperationError
from crdt_service.kernel.slot import SLOTS
from crdt_service.wire.message import Change, ChangesReply

EPOCH = 7
NODES = ("a", "b", "c")
numbers = st.integers(0, 2**53)
node_ids = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
all_places = st.dictionaries(node_ids, st.builds(Place, numbers, numbers), max_size=NODES_MAX)


def reply(*changes, upto=None, epoch=EPOCH, is_gap=False):
    """A reply with (number, key, digest) each."""
    listed = [Change(number, key, "pn_counter" if digest else "", digest.encode()) for number, key, digest in changes]
    return ChangesReply(1, epoch, listed[-1].number if upto is None else upto, listed, is_gap)


def merge_at(number=0, nodes=NODES):
    return Merge({node_id: Place(EPOCH, number) for node_id in nodes})


def take(merge, node_id, *changes, **more):
    """What is told of a reply: (node, key, digest), or a reset."""
    return [
        event if isinstance(event, Reset) else (event.node_id, event.change.key, event.change.digest.decode())
        for event in merge.take(node_id, reply(*changes, **more))
    ]


def test_a_change_on_three_owners_is_told_once():
    merge = merge_at()
    told = [take(merge, node_id, (1, "k", "d1"), (2, "l", "e1")) for node_id in NODES]
    assert [[("a", "k", "d1"), ("a", "l", "e1")], [], []] == told


def test_a_replica_that_lags_does_not_tell_again_what_was_told():
    merge = merge_at()
    take(merge, "a", (1, "k", "d1"))
    take(merge, "a", (2, "k", "d2"))
    assert [[], []] == [take(merge, "b", (1, "k", "d1")), take(merge, "b", (2, "k", "d2"))]


def test_a_key_that_is_deleted_twice_is_told_twice():
    merge = merge_at()
    history = ["d1", "", "d2", ""]
    told = [take(merge, "a", (number, "k", digest)) for number, digest in enumerate(history, 1)]
    assert [[("a", "k", digest)] for digest in history] == told
    assert [("b", "k", "d3")] == take(merge, "b", (9, "k", "d3"))
    assert [("b", "k", "")] == take(merge, "b", (10, "k", ""))


def test_a_state_that_only_one_node_told_is_not_the_last_word():
    merge = merge_at()
    take(merge, "a", (1, "k", "d3"))
    assert [("b", "k", "d2")] == take(merge, "b", (1, "k", "d2"))
    assert [("b", "k", "d3")] == take(merge, "b", (2, "k", "d3"))


@given(
    st.lists(st.booleans(), min_size=1, max_size=12),
    st.lists(st.tuples(st.sampled_from(NODES), st.integers(0, 3)), max_size=40),
)
def test_what_is_told_last_of_a_key_is_what_it_holds_in_the_end(vacancies, steps):
    """Each node passes through the key's states in their order, may skip some, and ends with the last."""
    history = ["" if is_vacant else f"d{number}" for number, is_vacant in enumerate(vacancies)]
    merge, at, told = merge_at(), dict.fromkeys(NODES, 0), []
    for number, (node_id, skipped) in enumerate((*steps, *((node_id, len(history)) for node_id in NODES)), 1):
        at[node_id] = min(at[node_id] + skipped, len(history) - 1)
        told += take(merge, node_id, (number, "k", history[at[node_id]]))
    assert history[-1] == told[-1][2]


def test_so_many_keys_are_remembered_and_no_more():
    merge = Merge({"a": Place(EPOCH, 0), "b": Place(EPOCH, 0)}, keys_max=2)
    take(merge, "a", (1, "k", "d"), (2, "l", "d"), (3, "m", "d"))
    assert [("b", "k", "d")] == take(merge, "b", (1, "k", "d"))
    assert [] == take(merge, "b", (3, "m", "d"))


@pytest.mark.parametrize(
    ("places", "given", "reason"),
    [
        ({}, reply(upto=9, is_gap=True), "node_joined"),
        ({"a": Place(EPOCH, 3)}, reply(upto=9, is_gap=True), "changes_lost"),
        ({"a": Place(EPOCH, 3)}, reply(upto=9, epoch=8, is_gap=True), "node_restarted"),
        ({"a": Place(EPOCH, 3)}, reply((1, "k", "d"), epoch=8), "node_restarted"),
    ],
)
def test_a_gap_is_told_before_all_else_and_the_place_is_that_after_it(places, given, reason):
    merge = Merge(places)
    assert Reset("a", reason) == next(merge.take("a", given))
    assert {"a": Place(given.epoch, given.upto)} == merge.places


def test_places_follow_what_was_told():
    merge = merge_at(nodes=("a",))
    seen = [merge.places["a"].number for _ in merge.take("a", reply((3, "k", "d"), (5, "l", "d"), upto=8))]
    assert ([3, 5], Place(EPOCH, 8)) == (seen, merge.places["a"])


@given(all_places)
def test_a_cursor_is_read_as_it_was_written(places):
    text = write_cursor(places)
    assert places == read_cursor(text)
    assert len(text) <= CURSOR_LENGTH_MAX
    assert text == write_cursor(dict(reversed(places.items())))


def test_the_longest_cursor_is_read():
    places = {f"{number:063d}": Place(2**53, 2**53) for number in range(NODES_MAX)}
    assert places == read_cursor(write_cursor(places))


def packed(value):
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(value)).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AAAA",
        "not a cursor",
        "é",
        packed((2, [])),
        packed((1, [("a", -1, 0)])),
        packed((1, [("a", 2**53 + 1, 0)])),
        packed((1, [("A/../b", 0, 0)])),
        packed((1, [("a", 0, 0), ("a", 0, 1)])),
        packed((1, [("b", 0, 0), ("a", 0, 0)])),
        packed((1, [(f"n{number}", 0, 0) for number in range(NODES_MAX + 1)])),
        packed((1, [])) + "=",
        packed((1, [])) + "A" * CURSOR_LENGTH_MAX,
    ],
)
def test_what_is_no_cursor_is_refused(text):
    with pytest.raises(OperationError) as refusal:
        read_cursor(text)
    assert "invalid_cursor" == refusal.value.code


@given(
    st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
)
def test_any_text_is_a_cursor_or_refused(text):
    try:
        places = read_cursor(text)
    except OperationError as refusal:
        assert "invalid_cursor" == refusal.code
    else:
        assert text == write_cursor(places)


def entry(key, number, size=10):
    return Entry(key, write_cursor({"a": Place(EPOCH, number)}), bytes(size))


def ring_of(count, **limits):
    ring = Ring(write_cursor({"a": Place(EPOCH, 0)}), **limits)
    for number in range(1, count + 1):
        ring.append(entry(f"k{number}", number))
    return ring


@pytest.mark.parametrize("limits", [{"events_max": 4}, {"bytes_max": 49}])
def test_the_ring_keeps_the_newest(limits):
    ring = ring_of(10, **limits)
    assert (6, 10) == (ring.first, ring.next)
    assert (bytes(40), 10) == ring.read(6, "")


def test_a_ring_is_read_by_prefix_and_resets_concern_all():
    ring = Ring(write_cursor({}))
    for key in ("a/1", "b/1", None, "a/2"):
        ring.append(Entry(key, write_cursor({}), str(key).encode()))
    assert (b"a/1Nonea/2", 4) == ring.read(0, "a/")
    assert (b"b/1None", 4) == ring.read(1, "b/")
    assert (b"", 4) == ring.read(3, "b/")


def test_a_piece_is_bounded_and_the_next_goes_on():
    ring = Ring(write_cursor({}))
    for number in range(5):
        ring.append(entry("k", number, size=5000))
    pieces, position = [], 0
    while position < ring.next:
        piece, position = ring.read(position, "")
        pieces.append(len(piece))
    assert [10000, 10000, 5000] == pieces


def test_a_client_goes_on_after_the_event_that_it_had_last():
    ring = ring_of(10, events_max=4)
    newest = {"a": Place(EPOCH, 10)}
    located = [ring.locate({"a": Place(EPOCH, number)}, newest) for number in (5, 6, 8, 10, 11)]
    assert [None, 6, 8, 10, 10] == located
    assert [None, None] == [ring.locate(places, newest) for places in ({}, {"a": Place(6, 99)})]


def test_a_client_that_saw_the_node_start_again_goes_on_there():
    ring = Ring(write_cursor({"a": Place(1, 50)}))
    for place in (Place(1, 51), Place(2, 3), Place(2, 4)):
        ring.append(Entry("k", write_cursor({"a": place}), b"e"))
    newest = {"a": Place(2, 4)}
    located = [ring.locate({"a": place}, newest) for place in (Place(1, 50), Place(1, 60), Place(2, 3), Place(2, 4))]
    assert [0, 1, 2, 3] == located


@given(st.data())
def test_a_client_goes_on_at_another_backend_and_misses_nothing(data):
    """Two backends hear the same nodes in different orders; a cursor of one leads to all that it did not cover."""
    logs = {
        node_id: [
            (number, f"k{data.draw(st.integers(0, 3))}", f"d{data.draw(st.integers(0, 9))}")
            for number in range(1, data.draw(st.integers(0, 6)) + 1)
        ]
        for node_id in NODES
    }

    def listen():
        merge, cursors, events = merge_at(), [write_cursor(merge_at().places)], []
        ring = Ring(cursors[0])
        order = data.draw(st.permutations([node_id for node_id, log in logs.items() for _ in log]))
        left = {node_id: iter(log) for node_id, log in logs.items()}
        for node_id in order:
            for event in merge.take(node_id, reply(next(left[node_id]))):
                cursors.append(write_cursor(merge.places))
                events.append(event)
                ring.append(Entry(event.change.key, cursors[-1], encode_event(event, cursors[-1])))
        return ring, merge, cursors, events

    _, _, cursors, told = listen()
    ring, merge, _, events = listen()
    seen = data.draw(st.integers(0, len(told)))
    position = ring.locate(read_cursor(cursors[seen]), merge.places)
    covered = {(event.change.key, event.change.digest) for event in told[:seen]}
    skipped = {(event.change.key, event.change.digest) for event in events[:position]}
    assert set() == skipped - covered
    assert all(isinstance(event, Changed) for event in events)


def owned_by(*owners):
    return [owners] * SLOTS


def placed(merge, *owners):
    """What is told because others own all keys now."""
    events = merge.place(owned_by(*owners))
    return [(event.node_id, event.change.key, event.change.digest.decode()) for event in events]


def merge_of(*owners):
    return Merge({node_id: Place(EPOCH, 0) for node_id in "abcd"}, owners=owned_by(*owners))


def test_what_a_node_says_that_does_not_own_the_key_is_not_told():
    merge = merge_of("a", "b")
    assert [("a", "k", "d2")] == take(merge, "a", (1, "k", "d2"))
    assert [] == take(merge, "d", (1, "k", "part"), upto=5)
    assert ([], Place(EPOCH, 5)) == (take(merge, "b", (1, "k", "d2")), merge.places["d"])


def test_of_a_slot_that_nobody_is_known_to_own_every_node_counts():
    merge = merge_of()
    assert [("d", "k", "d1")] == take(merge, "d", (1, "k", "d1"))


def test_what_a_node_said_before_it_was_an_owner_is_told_then():
    merge = merge_of("a")
    take(merge, "d", (1, "k", "d1"), (2, "l", "e1"))
    take(merge, "a", (1, "l", "e1"))
    assert [("d", "k", "d1")] == placed(merge, "a", "d")
    assert [] == placed(merge, "a", "d")
    assert [] == take(merge, "a", (2, "k", "d1"))


def test_the_word_of_who_owns_a_key_no_more_gives_way_to_that_of_an_owner():
    merge = merge_of("a", "b")
    take(merge, "b", (1, "k", "d2"))
    assert [("a", "k", "part")] == take(merge, "a", (1, "k", "part"))
    assert [("b", "k", "d2")] == placed(merge, "b", "c")
    assert Changed("b", Change(0, "k", "pn_counter", b"d2")) == merge.last("k")
    assert [] == take(merge, "c", (1, "k", "d2"))


def test_an_owner_that_told_last_before_others_came_is_still_followed():
    merge = merge_of("a", "b")
    take(merge, "a", (1, "k", "d2"))
    take(merge, "b", (1, "k", "d1"))
    assert [] == placed(merge, "b", "c")
    assert [("b", "k", "d2")] == take(merge, "b", (2, "k", "d2"))


@given(
    st.lists(st.booleans(), min_size=1, max_size=8),
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), max_size=30),
    st.lists(st.tuples(st.integers(0, 30), st.sets(st.sampled_from("abcd"), min_size=1)), max_size=3),
)
def test_whoever_owned_a_key_before_its_last_state_is_told_last(vacancies, steps, moves):
    """Each node passes through states in their order; those that own the key in the end reach the last.

    A state that an owner skips it has held all along, so it says so at least once in the end.
    """
    history = ["" if is_vacant else f"d{number}" for number, is_vacant in enumerate(vacancies)]
    merge, at, told = merge_of("a", "b"), dict.fromkeys("abcd", 0), []
    owners = {"a", "b"}
    for number, (node_id, skipped) in enumerate(steps, 1):
        for _, owners in [move for move in moves if move[0] == number]:
            told += placed(merge, *sorted(owners))
        at[node_id] = min(at[node_id] + skipped, len(history) - 1)
        told += take(merge, node_id, (number, "k", history[at[node_id]]))
    for node_id in sorted(owners):
        told += take(merge, node_id, (99, "k", history[-1]))
    assert history[-1] == told[-1][2]


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), max_size=20),
    st.sets(st.sampled_from("abcd"), min_size=1),
)
def test_a_change_of_owners_alone_makes_the_last_word_that_of_owners(steps, owners):
    """Everything was said by then: what the owners of the end hold was told last, or is told with the change."""
    merge, told = merge_of("a", "b"), []
    for number, (node_id, state) in enumerate(steps, 1):
        told += take(merge, node_id, (number, "k", f"part {node_id} {state}"))
    for node_id in sorted(owners):
        told += take(merge, node_id, (99, "k", "last"))
    for node_id in sorted({"a", "b"} - owners):
        told += take(merge, node_id, (99, "k", f"part {node_id} 3"))
    told += placed(merge, *sorted(owners))
    assert "last" == told[-1][2]
