import msgspec
import pytest

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.mv_register import VALUE_BYTES_MAX, MvRegister, Sibling
from crdt_service.kernel.error import MalformedError, OperationError

REGISTER = MvRegister()


def assign(state, value, replica, stamp):
    op = msgspec.json.encode({"assign": value})
    return REGISTER.apply(state, REGISTER.empty(), op, Origin(replica, lambda: stamp))


def joined(*deltas):
    state = REGISTER.empty()
    for delta in deltas:
        state = REGISTER.join(state, delta)
    return state


def show(state):
    return msgspec.json.decode(msgspec.json.encode(REGISTER.value(state)))


def test_it_starts_without_values():
    assert show(REGISTER.empty()) == []


def test_concurrent_assignments_are_siblings_with_stamp_and_origin():
    x, y = assign(REGISTER.empty(), "x", "b~2", 5), assign(REGISTER.empty(), {"y": 1}, "a~1", 7)
    assert show(joined(x, y)) == show(joined(y, x)) == ["x", {"y": 1}]
    assert REGISTER.siblings(joined(x, y)) == [Sibling(5, "b~2", b'"x"'), Sibling(7, "a~1", b'{"y":1}')]
    assert REGISTER.newest_stamp(joined(x, y)) == 7


def test_equal_stamps_are_ordered_by_replica():
    x, y = assign(REGISTER.empty(), "x", "b~2", 5), assign(REGISTER.empty(), "y", "a~1", 5)
    assert show(joined(x, y)) == ["y", "x"]


def test_assigning_overwrites_what_the_writer_has_seen_and_no_more():
    x, y = assign(REGISTER.empty(), "x", "a~1", 1), assign(REGISTER.empty(), "y", "b~2", 2)
    z = assign(joined(x), "z", "c~3", 3)
    assert show(joined(x, y, z)) == show(joined(z, y, x)) == ["y", "z"]
    assert show(joined(x, y, z, assign(joined(x, y, z), "one", "a~1", 4))) == ["one"]


def test_an_overwritten_value_does_not_come_back_late():
    x = assign(REGISTER.empty(), "x", "a~1", 1)
    y = assign(joined(x), "y", "b~2", 2)
    assert show(joined(y, x)) == ["y"]


def test_a_value_has_a_limit():
    assign(REGISTER.empty(), "x" * (VALUE_BYTES_MAX - 2), "a~1", 1)
    with pytest.raises(OperationError, match="256 KiB"):
        assign(REGISTER.empty(), "x" * (VALUE_BYTES_MAX - 1), "a~1", 1)


@pytest.mark.parametrize("content", [b"", b"\x92\x00\xc4\x011", b"\x92\x01\xc4\x021 ", b"\x92\xcc\x01\xc4\x011"])
def test_contents_that_no_writer_makes_are_refused(content):
    with pytest.raises(MalformedError):
        REGISTER.decode(msgspec.msgpack.encode((["a~1"], [(0, 1, (), content)], [(0, 1)], [])))
