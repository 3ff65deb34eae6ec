import pytest

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.ew_flag import EwFlag
from crdt_service.kernel.error import OperationError

FLAG = EwFlag()
ENABLE, DISABLE = b'{"enable": true}', b'{"disable": true}'


def apply(state, op, replica):
    return FLAG.apply(state, FLAG.empty(), op, Origin(replica, lambda: 1))


def joined(*deltas):
    state = FLAG.empty()
    for delta in deltas:
        state = FLAG.join(state, delta)
    return state


def test_it_starts_disabled():
    assert FLAG.value(FLAG.empty()) is False


def test_disabling_undoes_what_it_has_seen():
    first = apply(FLAG.empty(), ENABLE, "a~1")
    assert FLAG.value(joined(first)) is True
    assert FLAG.value(joined(first, apply(joined(first), DISABLE, "b~2"))) is False


def test_enabling_wins_over_a_concurrent_disabling():
    first = apply(FLAG.empty(), ENABLE, "a~1")
    off, on = apply(joined(first), DISABLE, "b~2"), apply(joined(first), ENABLE, "c~3")
    assert FLAG.value(joined(first, off, on)) is FLAG.value(joined(on, off, first)) is True


def test_a_flag_that_is_enabled_again_and_again_stays_small():
    state = FLAG.empty()
    for number in range(500):
        state = FLAG.join(state, apply(state, ENABLE, f"r~{number % 2}"))
    assert len(state.owner) == 1
    assert len(FLAG.encode(state)) < 40


@pytest.mark.parametrize("op", [b"{}", b'{"enable": false}', b'{"enable": true, "disable": true}', b'{"enable": 1}'])
def test_other_operations_are_refused(op):
    with pytest.raises(OperationError, match="ew_flag"):
        apply(FLAG.empty(), op, "a~1")
