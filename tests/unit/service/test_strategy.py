"""Strategies are pure functions of the sibling set; rules choose among them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.map import Map
from crdt_service.datatypes.mv_register import MvRegister, Sibling
from crdt_service.datatypes.registry import find_type
from crdt_service.kernel.config import ConflictRule, CrdtConfig, GossipConfig
from crdt_service.resolution.policy import SHOW_ALL, Policy, Rule, read_policy
from crdt_service.resolution.reading import read_value
from crdt_service.resolution.sibling import Place, format_time
from crdt_service.resolution.strategy import KEEP, STRATEGIES, Undecided, Verdict

NOON = 1_767_268_800_000 << 16  # 2026-01-01 12:00 UTC.
REGISTER = MvRegister()


def siblings(*values, texts=()):
    """Written at noon by node-0, a second later by node-1, and so on."""
    texts = texts or [msgspec.json.encode(value) for value in values]
    return [Sibling(NOON + (i * 1000 << 16), f"node-{i}~00000000", text) for i, text in enumerate(texts)]


def decide(name, *values, sources=(), texts=()):
    return STRATEGIES[name](siblings(*values, texts=texts), sources)


@pytest.mark.parametrize(
    ("name", "values", "sources", "text", "because"),
    [
        ("lww", ("x", "y"), (), b'"y"', "the latest write, by node-1 at 2026-01-01T12:00:01.000Z"),
        ("first_writer", ("x", "y"), (), b'"x"', "the first write, by node-0 at 2026-01-01T12:00:00.000Z"),
        ("max", (7, 9.5, -1), (), b"9.5", "the highest of 3 numbers, by node-1 at 2026-01-01T12:00:01.000Z"),
        ("min", (7, 9.5, -1), (), b"-1", "the lowest of 3 numbers, by node-2 at 2026-01-01T12:00:02.000Z"),
        ("union", (["b", 1], [1, "a"]), (), b'["b",1,"a"]', "all elements of 2 arrays, each once"),
        (
            *("union", ({"b": 1, "a": [1]}, {"a": [2]}), (), b'{"a":[2],"b":1}'),
            "all members of 2 objects, of equal names the latest",
        ),
        (
            *("priority", ("x", "y", "z"), ("node-9", "node-1", "node-0"), b'"y"'),
            "node-1 is source 2 of 3, by node-1 at 2026-01-01T12:00:01.000Z",
        ),
        (
            "keep",
            ("x", {"y": 1}),
            (),
            b'["x",{"y":1}]',
            "all siblings are kept until a writer that has seen them assigns anew",
        ),
    ],
)
def test_what_each_decides_and_says(name, values, sources, text, because):
    assert Verdict(text, because) == decide(name, *values, sources=sources)


@pytest.mark.parametrize(
    ("name", "values", "sources", "because"),
    [
        ("max", (1, "2"), (), "not all siblings are numbers"),
        ("max", (1, True), (), "not all siblings are numbers"),
        ("min", (1, None), (), "not all siblings are numbers"),
        ("min", ([1], [2]), (), "not all siblings are numbers"),
        ("union", ([1], {"a": 1}), (), "the siblings are neither all arrays nor all objects"),
        ("union", ("[1]", "[2]"), (), "the siblings are neither all arrays nor all objects"),
        ("priority", (1, 2), (), "no sibling comes from a node that sources names"),
        ("priority", (1, 2), ("node-2", "node"), "no sibling comes from a node that sources names"),
    ],
)
def test_what_cannot_be_decided_is_said(name, values, sources, because):
    assert Undecided(because) == decide(name, *values, sources=sources)


@pytest.mark.parametrize(
    ("name", "texts", "text"),
    [
        ("max", [b"1", b"1.0"], b"1.0"),
        ("min", [b"1", b"1.0"], b"1.0"),
        ("max", [b"-0.0", b"0"], b"0"),
        # Two that a conversion to floating point would call equal.
        ("max", [b"9007199254740993", b"9007199254740992.0"], b"9007199254740993"),
        ("min", [b"9007199254740993", b"9007199254740992.0"], b"9007199254740992.0"),
        ("max", [b"1" + b"0" * 400, b"1e308"], b"1" + b"0" * 400),
        ("union", [b"[1,1.0]", b"[true,1]"], b"[1,1.0,true]"),
        ("union", [b"[]", b"[]"], b"[]"),
        ("union", [b'{"\xc3\xa9":1}', b'{"z":1}'], b'{"z":1,"\xc3\xa9":1}'),
        ("union", [b"[" * 64 + b"]" * 64, b"[1]"], b"[" + b"[" * 63 + b"]" * 63 + b",1]"),
    ],
)
def test_numbers_and_elements_are_compared_exactly(name, texts, text):
    assert text == decide(name, texts=texts).text


def test_equal_stamps_are_ordered_by_replica_and_then_bytes():
    same = [Sibling(NOON, "b~1", b"1"), Sibling(NOON, "a~1", b"3"), Sibling(NOON, "a~1", b"2")]
    rules = [Rule("r", "lww")]

    assert b"1" == Policy(rules).decide(rules, same).verdict.text
    assert b"2" == Policy([]).decide([Rule("r", "first_writer")], same).verdict.text


def test_a_node_that_lost_its_disk_stays_the_same_source():
    both = [Sibling(1 << 16, "a~1", b'"old"'), Sibling(2 << 16, "a~2", b'"new"'), Sibling(3 << 16, "b~1", b'"b"')]

    assert b'"new"' == STRATEGIES["priority"](both, ("a", "b")).text


@pytest.mark.parametrize(
    ("stamp", "text"),
    [
        (1, "1970-01-01T00:00:00.000Z"),
        (NOON + (7 << 16) + 3, "2026-01-01T12:00:00.007Z"),
        (2**63 - 1, "6429-10-17T02:45:55.327Z"),
    ],
)
def test_stamps_are_shown_as_times(stamp, text):
    assert text == format_time(stamp)


def test_the_first_rule_that_matches_and_can_decide_does():
    rules = [
        Rule("0", "keep", prefix="draft/"),
        Rule("1", "keep", type="map"),
        Rule("2", "max", prefix="price/"),
        Rule("3", "union"),
    ]
    policy = Policy(rules)
    place = Place("price/é", (), MvRegister.tag)

    def decided(*values):
        decision = policy.decide(policy.match(place), siblings(*values))
        return decision.rule.name, [(rule.name, because) for rule, because in decision.undecided]

    assert ["2", "3", "default"] == [rule.name for rule in policy.match(place)]
    assert ("2", []) == decided(1, 2)
    assert ("3", [("2", "not all siblings are numbers")]) == decided([1], [2])
    assert ("default", ["not all siblings are numbers", "the siblings are neither all arrays nor all objects"]) == (
        decided(1, "x")[0],
        [because for _, because in decided(1, "x")[1]],
    )


def configured(mode, *rules):
    return CrdtConfig(True, 5, 3, GossipConfig(True, 10, 3), mode, [ConflictRule(*rule) for rule in rules])


@pytest.mark.parametrize(
    ("config", "rule", "text"),
    [
        (configured("lww"), "crdt.conflict_resolution", b"1"),
        (configured("multi_value"), "crdt.conflict_resolution", b"[2,1]"),
        (configured("advanced"), "default", b"1"),
        (configured("advanced", ("k", "any", "max", [])), "crdt.conflict_rules[0]", b"2"),
        (
            configured("advanced", ("x", "any", "max", []), ("", "any", "priority", ["node-0"])),
            *("crdt.conflict_rules[1]", b"2"),
        ),
    ],
)
def test_the_configured_mode_decides_and_is_named(config, rule, text):
    policy = read_policy(config)

    decision = policy.decide(policy.match(Place("k", (), MvRegister.tag)), siblings(2, 1))

    assert (rule, text) == (decision.rule.name, decision.verdict.text)


def test_a_strategy_of_another_name_is_one_more_entry():
    def choose_shortest(held, _sources):
        return Verdict(min(held, key=lambda sibling: len(sibling.text)).text, "the shortest")

    policy = read_policy(
        configured("advanced", ("", "any", "shortest", [])), {**STRATEGIES, "shortest": choose_shortest}
    )

    assert b'"a"' == policy.decide(policy.match(Place("k", (), MvRegister.tag)), siblings("a", "long")).verdict.text


def test_rules_on_type_hold_in_keys_or_in_maps():
    policy = Policy([Rule("key", "max", type="mv_register"), Rule("field", "min", type="map")])
    field = (chr(MvRegister.tag) + "f",)

    assert "key" == policy.match(Place("k", (), MvRegister.tag))[0].name
    assert "field" == policy.match(Place("k", field, MvRegister.tag))[0].name
    for name in ("lww_register", "workflow"):
        tag = find_type(name).tag
        assert [Rule(f"type {name}", "lww")] == policy.match(Place("k", (chr(tag) + "f",), tag))


def test_prefixes_are_plain_text_without_normal_forms():
    policy = Policy([Rule("0", "max", prefix="caf\u00e9")])

    assert "0" == policy.match(Place("caf\u00e9/1", (), MvRegister.tag))[0].name
    assert "default" == policy.match(Place("cafe\u0301/1", (), MvRegister.tag))[0].name


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=3),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=3)),
    max_leaves=6,
)
RULES = st.lists(
    st.builds(
        lambda name, sources: Rule("r", name, sources=tuple(sources) if name == "priority" else ()),
        st.sampled_from(sorted(STRATEGIES)),
        st.lists(st.sampled_from(["node-0", "node-1", "node-2"]), max_size=2, unique=True),
    ),
    max_size=4,
)
canonical = msgspec.json.Encoder(order="deterministic").encode
WRITES = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["node-0~1", "node-1~1", "node-2~1"]), VALUES), min_size=2, max_size=5
)


@given(rules=RULES, writes=WRITES, data=st.data())
def test_any_order_decides_alike_for_a_sibling_or_a_combination_of_all(rules, writes, data):
    held = [Sibling(NOON + (at << 16), replica, canonical(value)) for at, replica, value in writes]
    policy = Policy(rules)
    matching = policy.match(Place("k", (), MvRegister.tag))

    decision = policy.decide(matching, held)

    assert decision == policy.decide(matching, data.draw(st.permutations(held)))
    if decision.rule.strategy not in ("union", KEEP):
        assert decision.verdict.text in [sibling.text for sibling in held]
    assert canonical(msgspec.json.decode(decision.verdict.text)) == decision.verdict.text


@given(rules=RULES, writes=WRITES, data=st.data())
def test_replicas_that_joined_the_same_writes_in_any_grouping_read_the_same(rules, writes, data):
    deltas = []
    for number, (at, replica, value) in enumerate(writes):
        op = msgspec.json.encode({"assign": value})
        origin = Origin(f"{replica}{number}", lambda at=at: NOON + (at << 16))
        deltas.append(REGISTER.apply(REGISTER.empty(), REGISTER.empty(), op, origin))
    cut = data.draw(st.integers(0, len(deltas)))
    shuffled = data.draw(st.permutations(deltas))

    def read(*parts):
        whole = REGISTER.empty()
        for part in parts:
            state = REGISTER.empty()
            for delta in part:
                state = REGISTER.join(state, REGISTER.decode(REGISTER.encode(delta)))
            whole = REGISTER.join(whole, state)
        return msgspec.json.encode(read_value(Policy(rules), "k", REGISTER, whole))

    assert read(deltas) == read(shuffled[:cut], shuffled[cut:]) == read(shuffled, deltas)


def register(*values):
    state = REGISTER.empty()
    for number, value in enumerate(values):
        origin = Origin(f"node-{number}~1", lambda number=number: NOON + number)
        op = msgspec.json.encode({"assign": value})
        state = REGISTER.join(state, REGISTER.apply(REGISTER.empty(), REGISTER.empty(), op, origin))
    return state


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        (SHOW_ALL, [[], [1], [1, 2], [1, "x"]]),
        (Policy([Rule("mode", "lww")]), [None, 1, 2, "x"]),
        (Policy([Rule("0", "max")]), [None, 1, 2, "x"]),
        (Policy([Rule("0", "min")]), [None, 1, 1, "x"]),
        (Policy([Rule("0", "keep")]), [[], [1], [1, 2], [1, "x"]]),
        (Policy([Rule("0", "min"), Rule("1", "keep")]), [None, 1, 1, [1, "x"]]),
        (Policy([Rule("0", "keep", prefix="other/")]), [None, 1, 2, "x"]),
    ],
)
def test_what_readers_see_with_none_one_and_several_siblings(policy, shown):
    states = [register(), register(1), register(1, 2), register(1, "x")]

    assert shown == [msgspec.json.decode(msgspec.json.encode(read_value(policy, "k", REGISTER, s))) for s in states]


def test_fields_of_nested_maps_are_decided_and_others_stay_as_they_are():
    kind = find_type("map")
    assert isinstance(kind, Map)

    def write(replica, stamp, value):
        inner = {"update": {"price": {"type": "mv_register", "op": {"assign": value}}}}
        op = {"update": {"offer": {"type": "map", "op": inner}}}
        return kind.apply(kind.empty(), kind.empty(), msgspec.json.encode(op), Origin(replica, lambda: stamp))

    state = kind.join(write("a~1", 2, 10), write("b~1", 1, 30))
    count = {"update": {"count": {"type": "pn_counter", "op": {"increment": 4}}}}
    state = kind.join(state, kind.apply(state, kind.empty(), msgspec.json.encode(count), Origin("a~1", lambda: 3)))

    def read(policy):
        return msgspec.json.decode(msgspec.json.encode(read_value(policy, "k", kind, state)))

    assert {"count": 4, "offer": {"price": [30, 10]}} == read(SHOW_ALL)
    assert {"count": 4, "offer": {"price": 10}} == read(Policy([]))
    assert {"count": 4, "offer": {"price": 30}} == read(Policy([Rule("0", "max", type="map")]))
    assert {"count": 4, "offer": {"price": 10}} == read(Policy([Rule("0", "max", type="mv_register")]))
