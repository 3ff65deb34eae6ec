import jarvis_shapes
import pytest

from crdt_service.plugins.hook import Caller, Refusal, Request, Sibling, Undecided, Verdict


@pytest.fixture(autouse=True)
def rules():
    jarvis_shapes.configure({"orders/": {"required": ["id"], "bytes_max": 30, "defaults": {"state": "new"}}})


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "orders/1: the value is no object"),
        ({}, "orders/1: the value lacks id"),
        ({"id": "x" * 30}, "orders/1: the value is larger than 30 bytes"),
    ],
)
def test_what_has_another_shape_is_refused(value, says):
    with pytest.raises(Refusal) as refused:
        jarvis_shapes.validate_write("orders/1", {"assign": value})

    assert says == str(refused.value)


def test_what_has_the_shape_passes_and_gets_defaults():
    op = {"assign": {"id": 1}}

    jarvis_shapes.validate_write("orders/1", op)

    assert {"assign": {"state": "new", "id": 1}} == jarvis_shapes.transform_write("orders/1", op)
    assert {"assign": {"state": "old"}} == jarvis_shapes.transform_write("orders/1", {"assign": {"state": "old"}})


def test_other_keys_and_operations_are_left_alone():
    jarvis_shapes.validate_write("other", {"assign": 3})
    jarvis_shapes.validate_write("orders/1", None)

    assert jarvis_shapes.transform_write("other", {"assign": 3}) is None
    assert jarvis_shapes.transform_read("other", {}) is None


def test_readers_see_how_many_members_there_are():
    assert {"id": 1, "_members": 1} == jarvis_shapes.transform_read("orders/1", {"id": 1})


def test_its_pages_show_rules_and_what_was_seen():
    rules, seen = jarvis_shapes.endpoints()
    for key in ("orders/1", "orders/2", "other"):
        jarvis_shapes.on_change({"key": key})

    assert {"orders/": 2} == seen.answer(Request({}, None, Caller()))
    assert ["orders/"] == list(rules.answer(Request({}, None, Caller())))
    assert {} == rules.answer(Request({"prefix": "other"}, None, Caller()))


def test_callers_see_what_is_below_their_prefixes():
    rules, seen = jarvis_shapes.endpoints()
    jarvis_shapes.on_change({"key": "orders/1"})
    for prefix, known in (("orders/", ["orders/"]), ("ord", ["orders/"]), ("orders/1", []), ("a/", [])):
        caller = Caller(scope="read", prefixes=(prefix,))
        assert known == list(rules.answer(Request({}, None, caller)))
        assert known == list(seen.answer(Request({}, None, caller)))


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="orders/: unknown colour"):
        jarvis_shapes.configure({"orders/": {"colour": "blue"}})


def test_the_fullest_object_wins_and_of_equal_ones_the_latest():
    choose = jarvis_shapes.conflict_strategies()["fullest"]

    def siblings(*texts):
        return [Sibling(place, f"node-{place}~0", text) for place, text in enumerate(texts, 1)]

    assert Verdict(b'{"a":2,"b":3}', "the most members, 2") == choose(
        siblings(b'{"a":1,"b":1}', b'{"a":2,"b":3}', b'{"a":9}'), ()
    )
    assert Undecided("not all siblings are objects") == choose(siblings(b'{"a":1}', b"1"), ())
