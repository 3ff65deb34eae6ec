import msgspec
import pytest

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.g_set import ELEMENTS_MAX, GSet
from crdt_service.kernel.error import MalformedError, OperationError

SET = GSet()


def add(state, element, pending=frozenset()):
    return SET.apply(state, pending, msgspec.json.encode({"add": element}), Origin("a~1", lambda: 1))


def test_the_value_is_the_sorted_union():
    assert SET.value(SET.join(SET.join(set(), add(set(), "y")), add(set(), "x"))) == ["x", "y"]


def test_a_full_set_takes_only_what_it_has():
    full = {str(number) for number in range(ELEMENTS_MAX)}
    assert add(full, "7") == {"7"}
    with pytest.raises(OperationError) as caught:
        add(full, "new")
    assert caught.value.code == "limit_exceeded"


@pytest.mark.parametrize("op", [b'{"remove": "x"}', b'{"add": 1}', b"{}"])
def test_only_adding_is_an_operation(op):
    with pytest.raises(OperationError, match="g_set"):
        SET.apply(set(), set(), op, Origin("a~1", lambda: 1))


def test_an_element_is_measured_in_bytes():
    with pytest.raises(OperationError, match="256 bytes"):
        add(set(), "\u20ac" * 100)
    with pytest.raises(MalformedError):
        SET.decode(msgspec.msgpack.encode(["\u20ac" * 100]))


@pytest.mark.parametrize("elements", [["y", "x"], ["x", "x"]])
def test_other_orders_are_not_canonical(elements):
    with pytest.raises(MalformedError):
        SET.decode(msgspec.msgpack.encode(elements))
