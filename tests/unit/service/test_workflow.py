import msgspec
import pytest

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.workflow import STATES_MAX, Workflow
from crdt_service.kernel.error import MalformedError, OperationError

WORKFLOW = Workflow()
CREATE = {
    "states": ["open", "review", "done", "dropped"],
    "initial": "open",
    "transitions": [["open", "review"], ["open", "dropped"], ["review", "done"], ["dropped", "open"]],
}


def apply(state, replica="a~1", stamp=1, **op):
    return WORKFLOW.apply(state, WORKFLOW.empty(), msgspec.json.encode(op), Origin(replica, lambda: stamp))


def move(state, to, replica="a~1", stamp=2):
    return apply(state, replica, stamp, transition={"to": to})


def joined(*deltas):
    state = WORKFLOW.empty()
    for delta in deltas:
        state = WORKFLOW.join(state, delta)
    return state


def show(*deltas):
    value = WORKFLOW.value(joined(*deltas))
    assert value == WORKFLOW.value(joined(*reversed(deltas)))
    return value


CREATED = apply(WORKFLOW.empty(), create=CREATE)


def test_it_starts_in_the_initial_state():
    assert show() == {"state": None, "conflict": []}
    assert show(CREATED) == {"state": "open", "conflict": []}


def test_transitions_follow_each_other():
    review = move(CREATED, "review")
    done = move(joined(CREATED, review), "done", "b~2", 3)
    assert show(CREATED, review, done) == {"state": "done", "conflict": []}
    assert show(CREATED, done) == {"state": "done", "conflict": []}
    assert WORKFLOW.newest_stamp(joined(CREATED, review, done)) == 3


@pytest.mark.parametrize("to", ["done", "open", "elsewhere"])
def test_an_illegal_transition_is_refused(to):
    with pytest.raises(OperationError, match="no transition") as caught:
        move(CREATED, to)
    assert "dropped, review" in caught.value.remedy


def test_concurrent_transitions_are_a_conflict_until_the_next_one():
    review, dropped = move(CREATED, "review", "a~1", 5), move(CREATED, "dropped", "b~2", 4)
    assert show(CREATED, review, dropped) == {"state": "review", "conflict": ["dropped", "review"]}
    both = joined(CREATED, review, dropped)
    with pytest.raises(OperationError):
        move(both, "open", stamp=6)  # Legal from the state that lost only.
    settled = move(both, "done", "c~3", 6)
    assert show(CREATED, review, dropped, settled) == {"state": "done", "conflict": []}


def test_equal_stamps_are_ordered_by_replica():
    review, dropped = move(CREATED, "review", "a~1", 5), move(CREATED, "dropped", "b~2", 5)
    assert show(CREATED, review, dropped) == {"state": "dropped", "conflict": ["dropped", "review"]}


def test_concurrent_transitions_that_agree_are_no_conflict():
    parts = [move(CREATED, "review", replica) for replica in ("a~1", "b~2")]
    assert show(CREATED, *parts) == {"state": "review", "conflict": []}


def test_a_transition_may_come_before_its_definition():
    review = move(CREATED, "review")
    assert show(review) == {"state": None, "conflict": []}
    assert show(review, CREATED) == {"state": "review", "conflict": []}


def test_of_two_definitions_the_earlier_is_in_force():
    other = apply(
        WORKFLOW.empty(), "b~2", 2, create={"states": ["x", "y"], "initial": "x", "transitions": [["x", "y"]]}
    )
    moved = move(other, "y", "b~2", 9)
    assert show(other, moved) == {"state": "y", "conflict": []}
    assert show(other, moved, CREATED) == {"state": "open", "conflict": []}
    assert move(joined(other, moved, CREATED), "review", stamp=10).owner


def test_it_is_created_once():
    with pytest.raises(OperationError, match="already"):
        apply(CREATED, create=CREATE)
    with pytest.raises(OperationError, match="not created"):
        move(WORKFLOW.empty(), "open")


@pytest.mark.parametrize(
    "change",
    [
        {"initial": "none"},
        {"states": []},
        {"states": ["open"]},
        {"states": [*CREATE["states"], "open"]},
        {"transitions": [["open", "review"], ["open", "review"]]},
        {"transitions": [["open", "none"]]},
        {"states": [str(number) for number in range(STATES_MAX + 1)], "initial": "0", "transitions": []},
        {"more": 1},
    ],
)
def test_faulty_definitions_are_refused(change):
    with pytest.raises(OperationError, match="workflow"):
        apply(WORKFLOW.empty(), create=CREATE | change)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ((), []),
        (("other",), [1, ["x"], "x", []]),
        (("definition",), [1, ["x"], "y", []]),
        (("definition",), [1, ["y", "x"], "x", []]),
        (("definition",), [0, ["x"], "x", []]),
        (("transition",), [1, "", 1, "x", "y"]),
        (("transition",), [1, "a~1", 0, "x", "y"]),
        (("transition",), [1, "a~1", 1, "x", ""]),
    ],
)
def test_entries_that_no_writer_makes_are_refused(path, content):
    packed = msgspec.msgpack.encode(content)
    with pytest.raises(MalformedError):
        WORKFLOW.decode(msgspec.msgpack.encode((["a~1"], [(0, 1, path, packed)], [(0, 1)], [])))


def test_what_does_not_lead_on_is_told_from_what_is_malformed_and_names_the_state_that_won():
    def refuse(call, *arguments, **options):
        with pytest.raises(OperationError) as caught:
            call(*arguments, **options)
        return caught.value.code, caught.value.message

    review, dropped = move(CREATED, "review", "a~1", 5), move(CREATED, "dropped", "b~2", 4)
    both = joined(CREATED, review, dropped)
    assert ("illegal_transition", "workflow: no transition leads from 'review' to 'open'") == refuse(move, both, "open")
    assert ("already_created", "workflow: it was created already and is 'review'") == refuse(apply, both, create=CREATE)
    assert "illegal_transition" == refuse(move, WORKFLOW.empty(), "review")[0]
    assert "invalid_operation" == refuse(apply, CREATED, transition={"from": "open"})[0]
