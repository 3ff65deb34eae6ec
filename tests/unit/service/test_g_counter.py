import pytest

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.g_counter import GCounter
from crdt_service.kernel.error import MalformedError, OperationError

COUNTER = GCounter()


def increment(state, amount, replica="a~1"):
    op = b'{"increment": %d}' % amount
    return COUNTER.join(state, COUNTER.apply(state, {}, op, Origin(replica, lambda: 1)))


def test_replicas_add_up():
    state = increment(increment(increment({}, 3), 4), 5, "b~2")
    assert COUNTER.value(state) == 12
    assert state == {"a~1": 7, "b~2": 5}


def test_an_old_total_changes_nothing():
    assert COUNTER.join({"a~1": 7}, {"a~1": 3}) == {"a~1": 7}


@pytest.mark.parametrize("op", [b'{"increment": 0}', b'{"increment": -1}', b'{"increment": 1.5}', b'{"decrement": 1}'])
def test_it_never_goes_down(op):
    with pytest.raises(OperationError, match="g_counter"):
        COUNTER.apply({}, {}, op, Origin("a~1", lambda: 1))


def test_a_total_beyond_the_wire_is_refused():
    with pytest.raises(OperationError) as caught:
        COUNTER.apply({"a~1": 2**63 - 1}, {}, b'{"increment": 1}', Origin("a~1", lambda: 1))
    assert caught.value.code == "limit_exceeded"


@pytest.mark.parametrize("state", [{"a~1": 0}, {"": 1}])
def test_states_that_no_writer_makes_are_refused(state):
    with pytest.raises(MalformedError):
        COUNTER.decode(COUNTER.encode(state))
