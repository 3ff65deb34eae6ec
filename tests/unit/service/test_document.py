import base64
import random
import weakref
import zlib

import msgspec
import pytest

from crdt_service.datatypes import document, live_document
from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.document_version import Version, read_version, write_version
from crdt_service.datatypes.registry import find_type
from crdt_service.datatypes.yjs_update import Snapshot, write_deletions, write_numbers
from crdt_service.kernel.error import MalformedError, OperationError

DOCUMENT = find_type("document")


def apply(state, op, replica="a~1", pending=None):
    pending = DOCUMENT.empty() if pending is None else pending
    return DOCUMENT.apply(state, pending, msgspec.json.encode(op), Origin(replica, lambda: 1))


def insert(at, value, text="t"):
    return {"insert": {"text": text, "at": at, "value": value}}


def delete(at, count=1, text="t"):
    return {"delete": {"text": text, "at": at, "count": count}}


def put(path, value):
    return {"set": {"path": path, "value": value}}


def run(*ops, state=None, replica="a~1"):
    state = DOCUMENT.empty() if state is None else state
    for op in ops:
        state = DOCUMENT.join(state, apply(state, op, replica))
    return state


def show(state):
    return {name: room for name, room in show_all(state).items() if name not in {"version", "edits"}}


def show_all(state):
    return msgspec.json.decode(msgspec.json.encode(DOCUMENT.value(state)))


def version_of(state):
    return show_all(state)["version"]


def based(op, version):
    ((name, edit),) = op.items()
    return {name: {**edit, "base": version}}


def copy(state):
    return DOCUMENT.decode(DOCUMENT.encode(state))


def test_an_empty_document_shows_its_three_rooms():
    assert show(DOCUMENT.empty()) == {"texts": {}, "lists": {}, "map": {}}


def test_texts_count_code_points():
    state = run(insert(0, "a\U0001d11eé"), insert(2, "-"), delete(1), insert(3, "z"), insert(0, "x", text="other"))
    assert show(state)["texts"] == {"other": "x", "t": "a-éz"}


def test_lists_hold_json():
    state = run(
        *({"insert": {"list": "l", "at": 0, "value": value}} for value in [2**70, {"a": [None, 1.5]}, 1, "s"]),
        {"delete": {"list": "l", "at": 1}},
    )
    assert show(state)["lists"] == {"l": ["s", {"a": [None, 1.5]}, 1180591620717411303424]}


def test_the_tree_takes_objects_leaf_by_leaf():
    state = run(put(["a"], {"x": 1, "y": {"z": [1, {}]}, "e": {}}), put(["a", "y", "w"], None))
    assert show(state)["map"] == {"a": {"x": 1, "e": {}, "y": {"w": None, "z": [1, {}]}}}
    assert show(run({"remove": {"path": ["a", "y"]}}, state=copy(state)))["map"] == {"a": {"x": 1, "e": {}}}
    assert show(run(put(["a"], 5), state=copy(state)))["map"] == {"a": 5}
    assert show(run(put(["a"], 5), put(["a", "b"], 6), state=state))["map"] == {"a": {"b": 6}}


def test_a_name_that_begins_like_another_is_no_part_of_it():
    state = run(put(["a"], 1), put(["ab"], 2), put(['a","b'], 3), {"remove": {"path": ["a"]}})
    assert show(state)["map"] == {'a","b': 3, "ab": 2}


def test_concurrent_edits_all_stay():
    base = run(insert(0, "hello"), put(["o"], {"x": 1}))
    deltas = [
        apply(copy(base), insert(5, " world"), "b~2"),
        apply(copy(base), delete(0), "c~3"),
        apply(copy(base), put(["o", "y"], 2), "d~4"),
        apply(copy(base), put(["o", "x"], 3), "e~5"),
    ]
    for order in (deltas, deltas[::-1]):
        state = copy(base)
        for delta in order:
            state = DOCUMENT.join(state, DOCUMENT.decode(DOCUMENT.encode(delta)))
        assert show(state) == {"texts": {"t": "ello world"}, "lists": {}, "map": {"o": {"x": 3, "y": 2}}}


def test_clear_takes_what_it_has_seen():
    state = run(insert(0, "abc"), put(["a"], 1), {"insert": {"list": "l", "at": 0, "value": 1}})
    later = apply(copy(state), insert(3, "d"), "b~2")
    state = DOCUMENT.join(run({"clear": True}, state=state), later)
    assert show(state) == {"texts": {"t": "d"}, "lists": {}, "map": {}}


def test_an_update_waits_for_its_causes():
    first = apply(DOCUMENT.empty(), insert(0, "a"))
    second = apply(first, insert(1, "b"))
    third = apply(DOCUMENT.join(copy(first), second), insert(2, "c"), "b~2")
    state = DOCUMENT.join(DOCUMENT.empty(), third)
    assert show(state)["texts"] == {}
    state = DOCUMENT.join(state, second)
    assert show(state)["texts"] == {}
    assert show(DOCUMENT.join(state, copy(first)))["texts"] == {"t": "abc"}


def random_op(rng, state):
    length = len(show(state)["texts"].get("t", ""))
    count = len(show(state)["lists"].get("l", []))
    kind = rng.randrange(8)
    if kind < 4:
        return insert(rng.randint(0, length), rng.choice(["x", "yy", "é", "\U0001d11e\U0001d11e"]))
    if kind == 4 and length:
        at = rng.randrange(length)
        return delete(at, rng.randint(1, min(5, length - at)))
    if kind == 5:
        return {"insert": {"list": "l", "at": rng.randint(0, count), "value": rng.randrange(9)}}
    if kind == 6 and count:
        return {"delete": {"list": "l", "at": rng.randrange(count)}}
    path = [rng.choice("ab") for _ in range(rng.randint(1, 3))]
    return rng.choice([put(path, rng.choice([1, {"a": 2, "b": {}}])), {"remove": {"path": path}}])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("merged", "chunk"), [(2, 1 << 20), (4, 100), (32, 4096)])
def test_all_replicas_show_the_same_however_they_came_by_it(monkeypatch, seed, merged, chunk):
    monkeypatch.setattr(document, "MERGED_UPDATES", merged)
    monkeypatch.setattr(document, "CHUNK_BYTES", chunk)
    rng = random.Random(seed)
    states = {replica: DOCUMENT.empty() for replica in ("a~1", "b~2", "c~3")}
    deltas = []
    for _ in range(120):
        replica = rng.choice(list(states))
        if deltas and rng.random() < 0.5:
            states[replica] = DOCUMENT.join(states[replica], DOCUMENT.decode(rng.choice(deltas)))
        else:
            delta = apply(states[replica], random_op(rng, states[replica]), replica)
            deltas.append(DOCUMENT.encode(delta))
            states[replica] = DOCUMENT.join(states[replica], DOCUMENT.decode(deltas[-1]))
        # What grew step by step shows what is read anew.
        assert show(states[replica]) == show(copy(states[replica]))
    for state in states.values():
        for delta in rng.sample(deltas, len(deltas)):
            DOCUMENT.join(state, DOCUMENT.decode(delta))
    assert len({DOCUMENT.encode(state) for state in states.values()}) == 1
    shown = show(copy(states["a~1"]))
    assert [shown] * 3 == [show(state) for state in states.values()]


def test_what_a_failed_batch_wrote_ahead_does_not_show():
    state = run(insert(0, "ab"))
    lost = apply(state, insert(2, "lost"))
    assert show(state)["texts"] == {"t": "ab"}
    assert lost.owner
    state = DOCUMENT.join(state, apply(state, insert(2, "c")))
    assert show(state)["texts"] == {"t": "abc"}
    assert show(copy(state))["texts"] == {"t": "abc"}


def test_a_batch_sees_what_it_did_before():
    state, pending = run(insert(0, "ab")), DOCUMENT.empty()
    for number in range(100):
        pending = DOCUMENT.join(pending, apply(state, insert(2 + number, str(number % 10)), pending=pending))
    assert show(state)["texts"] == {"t": "ab"}
    state = DOCUMENT.join(state, pending)
    assert show(state)["texts"] == show(copy(state))["texts"] == {"t": "ab" + "0123456789" * 10}


def test_a_refused_operation_leaves_no_trace(monkeypatch):
    state = run(insert(0, "ab"))
    monkeypatch.setattr("crdt_service.datatypes.dotted.STATE_BYTES_MAX", state.size_bytes + 20)
    with pytest.raises(OperationError) as caught:
        apply(state, insert(2, "c" * 100))
    assert caught.value.code == "limit_exceeded"
    with pytest.raises(OperationError):
        apply(state, delete(1, 2))
    monkeypatch.undo()
    assert show(run(insert(2, "d"), state=state))["texts"] == {"t": "abd"}


def test_a_replica_merges_its_own_updates():
    state, sizes = DOCUMENT.empty(), []
    for number in range(4000):
        delta = apply(state, insert(number, "x"))
        sizes.append(len(DOCUMENT.encode(delta)))
        state = DOCUMENT.join(state, delta)
    assert len(state.owner) <= document.MERGED_UPDATES + 1
    assert len(DOCUMENT.encode(state)) < 2 * 4000
    assert max(sizes) < 2 * document.CHUNK_BYTES
    assert show(copy(state)) == show(state) == {"texts": {"t": "x" * 4000}, "lists": {}, "map": {}}


def test_deleted_text_goes_with_the_next_merge():
    state = run(insert(0, "secret" * 100), delete(0, 600), *(put(["n"], number) for number in range(40)))
    assert b"secret" not in DOCUMENT.encode(state)
    assert show(copy(state)) == {"texts": {}, "lists": {}, "map": {"n": 39}}


def test_only_so_many_documents_are_open(monkeypatch):
    monkeypatch.setattr(document, "LIVE_MAX", 3)
    states = [run(insert(0, str(number))) for number in range(5)]
    assert sum(state.live is not None for state in states) == 3
    assert [show(state)["texts"]["t"] for state in states] == list("01234")


def test_a_document_that_nobody_needs_leaves_the_library():
    state = run(insert(0, "a"), put(["b"], 1), {"clear": True})
    show(state)
    library = weakref.ref(state.live._doc)
    state.drop()
    assert library() is None


def test_a_failure_of_the_library_closes_the_document(monkeypatch):
    state = run(insert(0, "a"))
    for name, use in (("read", lambda: show(state)), ("edit_text", lambda: apply(state, insert(0, "b")))):
        show(state)

        def fail(*_):
            with live_document._guard():
                raise BaseException("panic")

        monkeypatch.setattr(live_document.LiveDocument, name, fail)
        with pytest.raises(OperationError) as caught:
            use()
        monkeypatch.undo()
        assert (caught.value.code, state.live) == ("document_damaged", None)
    assert show(state)["texts"] == {"t": "a"}


def test_two_replicas_with_one_client_id_do_not_write(monkeypatch):
    state = copy(run(insert(0, "a")))
    monkeypatch.setattr(document, "client_of", lambda replica: 7)
    with pytest.raises(OperationError) as caught:
        apply(state, insert(0, "b"), "b~2")
    assert caught.value.code == "id_collision"


@pytest.mark.parametrize(
    ("op", "code"),
    [
        ({}, "invalid_operation"),
        ({"clear": False}, "invalid_operation"),
        ({"clear": True, "remove": {"path": ["a"]}}, "invalid_operation"),
        (insert(1, "x"), "invalid_operation"),
        (insert(-1, "x"), "invalid_operation"),
        (insert(2**31, "x"), "invalid_operation"),
        (insert(0, ""), "invalid_operation"),
        (insert(0, 5), "invalid_operation"),
        (insert(0, "x" * (64 << 10) + "x"), "limit_exceeded"),
        (insert(0, "x", text="n" * 257), "invalid_operation"),
        (delete(0), "invalid_operation"),
        ({"insert": {"text": "t", "list": "l", "at": 0, "value": "x"}}, "invalid_operation"),
        ({"insert": {"at": 0, "value": "x"}}, "invalid_operation"),
        ({"insert": {"list": "l", "at": 0, "value": "x" * (64 << 10)}}, "limit_exceeded"),
        (put([], 1), "invalid_operation"),
        (put(["a"] * 33, 1), "invalid_operation"),
        (put(["\u20ac" * 100], 1), "invalid_operation"),
        (put(["a"], {"\u20ac" * 100: 1}), "invalid_operation"),
        (put(["a"], {str(number): 1 for number in range(1001)}), "limit_exceeded"),
    ],
)
def test_other_operations_are_refused(op, code):
    with pytest.raises(OperationError) as caught:
        apply(DOCUMENT.empty(), op)
    assert caught.value.code == code


def test_objects_have_a_fixed_depth():
    value = 1
    for _ in range(31):
        value = {"a": value}
    assert DOCUMENT.decode(DOCUMENT.encode(apply(DOCUMENT.empty(), put(["a"], value)))).owner
    with pytest.raises(OperationError) as caught:
        apply(DOCUMENT.empty(), put(["a"], {"a": value}))
    assert caught.value.code == "limit_exceeded"


ME = live_document.client_of("a~1")
OTHER = live_document.client_of("b~2")
ROOT = b"\x01\x02tx"
HEAD = b"\x01\x01" + write_numbers(ME, 0)


def wrap(update, replica="a~1", path=()):
    return msgspec.msgpack.encode(([replica], [(0, 1, path, update)], [(0, 1)], []))


def test_the_good_update_that_the_bad_ones_below_start_from():
    state = DOCUMENT.decode(wrap(HEAD + b"\x04" + ROOT + b"\x01a\x00"))
    assert show(state)["texts"] == {"x": "a"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x00\x00",
        b"\x02" + HEAD[1:],
        HEAD + b"\x04" + ROOT + b"\x01a\x00\x00",  # Bytes behind it.
        HEAD + b"\x04" + ROOT + b"\x05a\x00",
        HEAD + b"\x04" + ROOT + b"\x00\x00",  # Nothing.
        HEAD + b"\x04" + ROOT + b"\x01\xff\x00",  # No UTF-8.
        HEAD + b"\x04\x01\x02lx\x01a\x00",  # Text in a list.
        HEAD + b"\x04\x01\x02zx\x01a\x00",  # An unknown root.
        HEAD + b"\x24\x01\x01m\x01k\x01a\x00",  # Text in the map.
        HEAD + b"\x28\x01\x01m\x01k\x01w\x011\x00",  # A key that is no path.
        HEAD + b'\x28\x01\x01m\x05["k"]\x01w\x02 1\x00',  # A leaf that is not canonical.
        HEAD + b'\x28\x01\x01m\x06 ["k"]\x01w\x011\x00',
        HEAD + b'\x28\x01\x01m\x05["k"]\x01}\x01\x00',  # A leaf that is no text.
        HEAD + b"\x08\x00" + write_numbers(ME, 0) + b"\x01w\x011\x00",  # Inside another item.
        HEAD + b"\x07\x01\x02lx\x00\x00",  # A nested type.
        HEAD + b"\x0a\x05\x00",  # A skip.
        HEAD + b"\x00\x00\x00",  # A length of zero.
        HEAD + b"\x00" + write_numbers(2**31) + b"\x00",
        HEAD + b"\x00" + write_numbers(2**31 - 1) + b"\x00\x01\x00",
        HEAD + b"\x84" + write_numbers(ME, 0) + b"\x01a\x00",  # It follows itself.
        b"\x01\x01" + write_numbers(OTHER, 0) + b"\x04" + ROOT + b"\x01a\x00",  # Another replica's.
        b"\x01\x01\x00\x00\x04" + ROOT + b"\x01a\x00",  # Nobody's.
        b"\x01\x00" + write_numbers(ME, 0) + b"\x00",
        b"\x00" + write_deletions({ME: []}),
        b"\x00\x01" + write_numbers(0, 1, 0, 1),
        b"\x00" + write_deletions({ME: [(0, 2**31)]}),
        b"\x81\x00" + HEAD[1:] + b"\x04" + ROOT + b"\x01a\x00",  # A number that is not minimal.
        b"\xff" * 12,
    ],
)
def test_updates_that_no_edit_makes_are_refused(data):
    with pytest.raises(MalformedError):
        DOCUMENT.decode(wrap(data))


def test_an_update_has_no_path():
    with pytest.raises(MalformedError):
        DOCUMENT.decode(wrap(HEAD + b"\x04" + ROOT + b"\x01a\x00", path=("x",)))


def test_an_index_counts_in_the_text_that_was_read():
    read = run(insert(0, "Plan: write tests."))
    version = version_of(read)
    state = run(insert(0, "# Title\n"), state=read, replica="b~2")
    state = run(based(insert(6, "NOT "), version), state=state)
    assert show(state)["texts"] == {"t": "# Title\nPlan: NOT write tests."}
    assert show(copy(state)) == show(state)


def test_a_deletion_takes_what_was_read_and_nothing_else():
    read = run(insert(0, "one two three"))
    version = version_of(read)
    state = run(insert(5, "-NEW-"), delete(0), state=read, replica="b~2")
    assert show(state)["texts"] == {"t": "ne t-NEW-wo three"}
    state = run(based(delete(0, 7), version), state=state)
    assert show(state)["texts"] == {"t": "-NEW- three"}
    assert show(run(based(delete(0, 7), version), state=state))["texts"] == {"t": "-NEW- three"}


def test_lists_carry_positions_over_as_well():
    read = run(*({"append": {"list": "l", "value": value}} for value in "abc"))
    version = version_of(read)
    state = run({"delete": {"list": "l", "at": 0}}, {"append": {"list": "l", "value": "d"}}, state=read, replica="b~2")
    state = run(based({"insert": {"list": "l", "at": 2, "value": "new"}}, version), state=state)
    state = run(based({"delete": {"list": "l", "at": 2}}, version), state=state)
    assert show(state)["lists"] == {"l": ["b", "new", "d"]}


def test_what_is_appended_comes_last_whatever_was_read():
    state = run({"append": {"text": "t", "value": "a\U0001d11e"}}, {"append": {"text": "t", "value": "b"}})
    state = run({"append": {"text": "t", "value": "c"}}, state=state, replica="b~2")
    assert show(state)["texts"] == {"t": "a\U0001d11ebc"}


def test_positions_in_wide_text_are_carried_over():
    read = run(insert(0, "a\U0001d11eb\U0001d11ec"))
    version = version_of(read)
    state = run(delete(1), insert(0, "\U0001d11e"), state=read, replica="b~2")
    state = run(based(insert(4, "|"), version), state=state)
    assert show(state)["texts"] == {"t": "\U0001d11eab\U0001d11e|c"}


@pytest.mark.parametrize("seed", range(40))
def test_an_edit_of_a_version_is_what_a_concurrent_edit_would_have_been(seed):
    rng = random.Random(seed)
    signs = "abc\U0001d121defghij"
    read = run(*(insert(place, sign) for place, sign in enumerate(signs)))
    version = version_of(read)
    at = rng.randrange(len(signs))
    op = insert(at, "<!>") if rng.random() < 0.5 else delete(at, rng.randint(1, len(signs) - at))
    expected = DOCUMENT.join(copy(read), apply(copy(read), op, "c~3"))
    state = copy(read)
    for _ in range(rng.randint(1, 20)):
        edit = apply(state, random_op(rng, state), "b~2")
        state, expected = DOCUMENT.join(state, copy(edit)), DOCUMENT.join(expected, copy(edit))
    state = run(based(op, version), state=state, replica="c~3")
    texts = [show(each)["texts"].get("t", "") for each in (state, expected)]
    assert sorted(texts[0]) == sorted(texts[1])
    # Of two insertions in one place either may come first.
    assert len({"".join(sign for sign in text if sign in signs + "<!>") for text in texts}) == 1
    assert show(copy(state)) == show(state)


def test_a_version_is_the_same_wherever_the_state_is():
    state = run(insert(0, "hello"), delete(1, 2), put(["a"], 1))
    state = run(insert(0, "x"), state=state, replica="b~2")
    assert version_of(copy(state)) == version_of(state) != version_of(run(delete(0), state=copy(state)))


def test_who_names_no_base_sees_that_another_edit_came_between():
    state = run(insert(0, "ab"))
    edits = show_all(state)["edits"]
    state = run(insert(0, "c"), state=run(insert(0, "d"), state=state, replica="b~2"))
    assert (edits, show_all(state)["edits"]) == (1, 3)


def test_an_edit_of_a_version_counts_what_is_pending():
    read = run(insert(0, "ab"))
    version = version_of(read)
    pending = apply(read, insert(0, "x"))
    state = DOCUMENT.join(pending, apply(read, based(insert(1, "|"), version), pending=pending))
    assert show(DOCUMENT.join(read, state))["texts"] == {"t": "xa|b"}


def test_a_base_may_be_older_than_merged_updates():
    read = run(insert(0, "begin end"))
    version = version_of(read)
    state = run(*(insert(0, str(number % 10)) for number in range(2 * document.MERGED_UPDATES)), state=read)
    state = run(based(insert(6, "| "), version), state=state)
    assert show(state)["texts"]["t"].endswith("begin | end")
    assert show(copy(state)) == show(state)


def test_a_base_whose_text_is_forgotten_is_refused():
    read = run(insert(0, "begin end"))
    version = version_of(read)
    state = run(delete(0), *(insert(0, "x") for _ in range(document.MERGED_UPDATES)), state=read)
    before = show(state)
    with pytest.raises(OperationError) as caught:
        apply(state, based(insert(6, "|"), version))
    assert (caught.value.code, show(state)) == ("base_too_old", before)


def test_a_field_that_was_replaced_and_forgotten_makes_no_base_too_old():
    read = run(put(["status"], "new"), insert(0, "begin end"))
    version = version_of(read)
    state = run(*(put(["status"], number) for number in range(2 * document.MERGED_UPDATES)), state=read)
    assert show(run(based(insert(6, "| "), version), state=state))["texts"] == {"t": "begin | end"}


def test_a_base_that_is_not_here_is_refused():
    read = run(insert(0, "ab"))
    ahead = version_of(run(insert(0, "x"), state=copy(read), replica="b~2"))
    strange = version_of(run(insert(0, "ab"), replica="z~9"))
    other = version_of(run(insert(0, "z")))
    for version in (ahead, strange, other):
        with pytest.raises(OperationError) as caught:
            apply(read, based(insert(1, "|"), version))
        assert caught.value.code == "unknown_base"


def test_a_malformed_base_is_refused():
    read = run(insert(0, "ab"))
    version = version_of(read)
    swapped = version[:9] + ("A" if version[9] != "A" else "B") + version[10:]
    for base in ("", "x", "é", version[:-1], version + "AAAA", swapped, version + "=", version.upper()):
        with pytest.raises(OperationError) as caught:
            apply(read, based(insert(1, "|"), base))
        assert caught.value.code == "invalid_base"
    with pytest.raises(OperationError) as caught:
        apply(read, based(insert(3, "|"), version))
    assert caught.value.code == "invalid_operation"


def test_a_bomb_is_no_base():
    packed = b"1234" + zlib.compress(b"\x00" * (64 << 20), 9)
    with pytest.raises(OperationError) as caught:
        read_version(base64.urlsafe_b64encode(packed[: 48 << 10]).decode())
    assert caught.value.code == "invalid_base"


def test_a_document_whose_version_would_be_too_large_shows_none():
    rng = random.Random(1)
    spans = sorted((clock * 64 + rng.randrange(32), 1 + rng.randrange(31)) for clock in range(100_000))
    assert write_version(Version(Snapshot({7: 1 << 30}, {7: spans}), bytes(8))) is None
