"""The index of conflicts follows the states; what it lists is complete, ordered and bounded."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.registry import DATATYPES, find_type
from crdt_service.kernel.clock import HybridClock
from crdt_service.kernel.error import OperationError
from crdt_service.replication.listing import answer_conflicts, merge_conflicts
from crdt_service.resolution.conflicts import Arisen, Conflicts
from crdt_service.resolution.explanation import LISTED_BYTES_MAX, PLACES_MAX, SIBLINGS_MAX
from crdt_service.resolution.policy import SHOW_ALL, Policy, Rule
from crdt_service.resolution.sibling import HOLDERS, find_place, read_conflict
from crdt_service.store.store import Address, Store
from crdt_service.wire.message import ConflictsReply, ConflictsRequest, decode_reply, encode_message
from tests.unit.service.double import FakeClock
from tests.unit.service.test_law import OPERATIONS, REPLICAS

NOON = 1_767_268_800_000 << 16  # 2026-01-01 12:00 UTC.
HOLDING = [datatype for datatype in DATATYPES if datatype.tag in HOLDERS]


def scan(address, state):
    """All conflicts of a state, by looking at every entry."""
    places = {find_place(address, path) for path, _ in state.owner.values()} - {None}
    return {place: frozenset(siblings) for place in places if (siblings := read_conflict(state, place))}


@given(data=st.data())
def test_the_index_is_what_a_scan_finds_after_any_history(data):
    datatype = data.draw(st.sampled_from(HOLDING))
    address = Address("k", datatype.tag)
    states = {replica: datatype.empty() for replica in REPLICAS}
    indexes = {replica: Conflicts(Policy([])) for replica in REPLICAS}
    deltas = []

    def install(replica, delta):
        before = scan(address, states[replica])
        states[replica] = datatype.join(states[replica], datatype.decode(delta))
        arisen = indexes[replica].update(address, datatype.decode(delta), states[replica])
        after = scan(address, states[replica])
        joined = {
            place: len(dots - before.get(place, frozenset())) - (place not in before) for place, dots in after.items()
        }
        assert sum(max(0, count) for count in joined.values()) == sum(item.joined for item in arisen)
        assert after.keys() == indexes[replica].find(address).keys()
        assert sorted(after) == list(indexes[replica].walk("", None))

    for stamp in range(1, data.draw(st.integers(1, 14))):
        replica = data.draw(st.sampled_from(REPLICAS))
        if deltas and data.draw(st.booleans()):
            install(replica, data.draw(st.sampled_from(deltas)))
            continue
        op = msgspec.json.encode(data.draw(OPERATIONS[datatype.name]))
        # A faulty replica forgets what it wrote, and gives its dots out again.
        seen = datatype.empty() if data.draw(st.integers(0, 9)) == 0 else states[replica]
        try:
            delta = datatype.apply(seen, datatype.empty(), op, Origin(replica, lambda stamp=stamp: stamp))
        except OperationError:
            continue
        deltas.append(datatype.encode(delta))
        install(replica, deltas[-1])
    for source in list(states.values()):  # As a repair does.
        install("a~1", datatype.encode(source))
    indexes["a~1"].forget(address)
    assert (0, {}, []) == (len(indexes["a~1"]), indexes["a~1"].find(address), list(indexes["a~1"].walk("", None)))


class Writer:
    """Installs what replicas wrote that saw only their own writes, or all that is there."""

    def __init__(self, policy=SHOW_ALL):
        self.store = Store(HybridClock(FakeClock()), policy)
        self.own = {}

    def write(self, key, type_name, op, replica, stamp, *, seen=False):
        datatype = find_type(type_name)
        address = Address(key, datatype.tag)
        own = self.own.get((replica, address), datatype.empty())
        if seen:
            own = datatype.join(own, self.store.get(address))
        delta = datatype.encode(
            datatype.apply(own, datatype.empty(), msgspec.json.encode(op), Origin(replica, lambda: stamp))
        )
        self.own[replica, address] = datatype.join(own, datatype.decode(delta))
        return self.store.install(address, datatype.decode(delta))

    def join(self, other, key, type_name):
        address = Address(key, find_type(type_name).tag)
        datatype = find_type(type_name)
        return self.store.install(address, datatype.decode(other.store.encode(address).state))

    def assign(self, key, value, replica="node-0~1", stamp=NOON, **options):
        return self.write(key, "mv_register", {"assign": value}, replica, stamp, **options)

    def conflict(self, key):
        self.assign(key, 1, "node-0~1")
        self.assign(key, 2, "node-1~1")

    def list(self, prefix="", after=None, limit=1000):
        request = ConflictsRequest(7, prefix, after, limit)
        return decode_reply(encode_message(answer_conflicts(self.store, request)))


def keys(reply):
    return [conflict.key for conflict in reply.conflicts]


def test_each_sibling_that_joins_is_counted_once():
    writer = Writer(Policy([Rule("0", "max", prefix="n/")]))

    assert [] == writer.assign("n/a", 1, "node-0~1")
    other = Writer()
    other.assign("n/a", 2, "node-1~1")
    assert [Arisen("mv_register", "max", 1)] == writer.join(other, "n/a", "mv_register")
    assert [] == writer.join(other, "n/a", "mv_register")
    assert [Arisen("mv_register", "lww", 1)] == writer.assign("n/a", "three", "node-2~1")
    assert [] == writer.assign("n/a", 4, "node-0~1", NOON + 1, seen=True)
    assert b"" == writer.store.read("n/a").conflict


def test_registers_in_maps_and_workflows_conflict_too_and_are_decided_by_their_types():
    writer = Writer(Policy([Rule("0", "keep")]))
    create = {"create": {"states": ["a", "b", "c"], "initial": "a", "transitions": [["a", "b"], ["a", "c"]]}}
    other = Writer()
    writer.write("w", "workflow", create, "node-0~1", NOON)
    other.join(writer, "w", "workflow")
    for side, replica, value, to in ((writer, "node-0~1", 1, "b"), (other, "node-1~1", 2, "c")):
        for field, kind in (("l", "lww_register"), ("m", "mv_register")):
            side.write("m", "map", {"update": {field: {"type": kind, "op": {"assign": value}}}}, replica, NOON)
        side.write("w", "workflow", {"transition": {"to": to}}, replica, NOON + 1, seen=True)
    assert {("lww_register", "lww", 1), ("mv_register", "keep", 1)} == set(writer.join(other, "m", "map"))
    assert [("workflow", "lww", 1)] == writer.join(other, "w", "workflow")

    shown = [(c.key, msgspec.json.decode(c.resolution)) for c in writer.list().conflicts]

    assert [
        ("m", ["l"], "lww_register", "lww", "type lww_register", 2),
        ("m", ["m"], "mv_register", "keep", "0", [1, 2]),
        ("w", [], "workflow", "lww", "type workflow", "c"),
    ] == [(key, *(item[name] for name in ("field", "type", "strategy", "rule", "value"))) for key, item in shown]
    assert {"state": "c", "conflict": ["b", "c"]} == msgspec.json.decode(writer.store.read("w").value)
    assert {"l": 2, "m": [1, 2]} == msgspec.json.decode(writer.store.read("m").value)
    assert {"places": 2, "strategies": ["keep", "lww"]} == msgspec.json.decode(writer.store.read("m").conflict)


def test_transitions_that_reach_the_same_state_do_not_conflict():
    writer, other = Writer(), Writer()
    create = {"create": {"states": ["a", "b"], "initial": "a", "transitions": [["a", "b"]]}}
    writer.write("w", "workflow", create, "node-0~1", NOON)
    other.join(writer, "w", "workflow")
    for side, replica in ((writer, "node-0~1"), (other, "node-1~1")):
        side.write("w", "workflow", {"transition": {"to": "b"}}, replica, NOON + 1, seen=True)

    assert [] == writer.join(other, "w", "workflow")
    assert [] == writer.list().conflicts


def test_removing_a_field_ends_its_conflicts_and_no_others():
    writer = Writer()
    for replica in ("node-0~1", "node-1~1"):
        for field in ("f", "g"):
            op = {"update": {field: {"type": "mv_register", "op": {"assign": replica}}}}
            writer.write("m", "map", op, replica, NOON)
    assert [["f"], ["g"]] == [msgspec.json.decode(c.resolution)["field"] for c in writer.list().conflicts]

    assert [] == writer.write("m", "map", {"remove": "f"}, "node-2~1", NOON + 1, seen=True)
    assert [["g"]] == [msgspec.json.decode(c.resolution)["field"] for c in writer.list().conflicts]


def test_the_index_survives_what_only_faulty_peers_send():
    writer = Writer()
    writer.conflict("k")
    register = find_type("mv_register")
    gone = register.decode(msgspec.msgpack.encode((["node-0~1", "node-1~1"], [], [(0, 1), (1, 1)], [])))
    writer.store.install(Address("k", register.tag), gone)
    assert [] == writer.list().conflicts

    # The same dots, first at one place and then at another.
    fields = find_type("map")
    for order in (("f", "g"), ("g", "f")):
        index = Conflicts(SHOW_ALL)
        state = fields.empty()
        moves = [_twice(fields, field) for field in order]
        for move in (*moves, fields.decode(msgspec.msgpack.encode((["a~1", "b~1"], [], [(0, 1), (1, 1)], [])))):
            state = fields.join(state, move)
            index.update(("m", fields.tag), move, state)
            assert scan(("m", fields.tag), state).keys() == index.find(("m", fields.tag)).keys()


def _twice(fields, field):
    """Two replicas' first writes, to the same field."""
    state = fields.empty()
    for replica in ("a~1", "b~1"):
        op = msgspec.json.encode({"update": {field: {"type": "mv_register", "op": {"assign": 1}}}})
        state = fields.join(state, fields.apply(fields.empty(), fields.empty(), op, Origin(replica, lambda: NOON)))
    return state


def test_an_explanation_tells_siblings_origins_times_and_rules():
    writer = Writer(Policy([Rule("crdt.conflict_rules[0]", "max"), Rule("crdt.conflict_rules[1]", "first_writer")]))
    writer.assign("k", "x", "node-0~00000001", NOON)
    writer.assign("k", 2, "node-1~00000002", NOON + (1500 << 16))

    reading = writer.store.read("k", explain=True)

    assert b'"x"' == reading.value
    assert {
        "places": 1,
        "strategies": ["first_writer"],
        "resolutions": [
            {
                "field": [],
                "type": "mv_register",
                "rule": "crdt.conflict_rules[1]",
                "strategy": "first_writer",
                "because": "the first write, by node-0 at 2026-01-01T12:00:00.000Z",
                "undecided": [
                    {"rule": "crdt.conflict_rules[0]", "strategy": "max", "because": "not all siblings are numbers"}
                ],
                "sibling_count": 2,
                "siblings": [
                    {
                        **{"node": "node-0", "replica": "node-0~00000001", "time": "2026-01-01T12:00:00.000Z"},
                        **{"bytes": 3, "value": "x"},
                    },
                    {
                        **{"node": "node-1", "replica": "node-1~00000002", "time": "2026-01-01T12:00:01.500Z"},
                        **{"bytes": 1, "value": 2},
                    },
                ],
                "value": "x",
            }
        ],
    } == msgspec.json.decode(reading.conflict)


def test_without_a_conflict_an_explanation_is_empty_and_a_read_says_nothing():
    writer = Writer()
    writer.assign("k", 1)

    assert b"" == writer.store.read("k").conflict
    assert {"places": 0, "strategies": [], "resolutions": []} == msgspec.json.decode(
        writer.store.read("k", explain=True).conflict
    )


def test_reading_and_explaining_change_no_state():
    writer = Writer(Policy([Rule("0", "union")]))
    writer.assign("k", [1], "node-0~1")
    writer.assign("k", [2], "node-1~1")
    address = Address("k", find_type("mv_register").tag)
    before = writer.store.encode(address)

    assert b"[1,2]" == writer.store.read("k").value
    writer.store.read("k", explain=True)
    writer.list()
    assert before == writer.store.encode(address)


def test_pages_are_in_the_order_of_keys_and_miss_none():
    writer = Writer()
    for key in ("b", "a/2", "a/1", "a", "a/é", "a/\U0001f600", "ab", "a/\uffff"):
        writer.conflict(key)

    assert sorted(["b", "a/2", "a/1", "a", "a/é", "a/\U0001f600", "ab", "a/\uffff"], key=str.encode) == keys(
        writer.list()
    )
    assert ["a/1", "a/2", "a/é", "a/\uffff", "a/\U0001f600"] == keys(writer.list("a/"))
    first = writer.list("a/", limit=2)
    last = first.conflicts[-1]
    assert (["a/1", "a/2"], True) == (keys(first), first.more)
    second = writer.list("a/", (last.key, last.path, last.tag))
    assert (["a/é", "a/\uffff", "a/\U0001f600"], False) == (keys(second), second.more)
    assert [] == keys(writer.list("nothing"))
    assert [] == keys(writer.list("a/", ("zzz", (), 7)))


def test_answers_are_bounded_whatever_the_siblings_are():
    writer = Writer()
    for number in range(SIBLINGS_MAX + 1):
        writer.assign("wide", "x" * LISTED_BYTES_MAX, f"n-{number}~1")
    writer.assign("large", "x" * 200_000, "node-0~1")
    writer.assign("large", "y", "node-1~1")
    large, wide = (msgspec.json.decode(conflict.resolution) for conflict in writer.list().conflicts)

    assert (2, [None, "y"]) == (large["sibling_count"], [sibling.get("value") for sibling in large["siblings"]])
    assert "value" not in large
    assert [200_002, 3] == [sibling["bytes"] for sibling in large["siblings"]]
    assert (SIBLINGS_MAX + 1, SIBLINGS_MAX) == (wide["sibling_count"], len(wide["siblings"]))
    explained = msgspec.json.decode(writer.store.read("large", explain=True).conflict)
    assert "x" * 200_000 == explained["resolutions"][0]["siblings"][0]["value"]


def test_of_a_map_with_many_conflicts_the_first_are_explained_and_all_listed():
    writer = Writer()
    for replica in ("node-0~1", "node-1~1"):
        for number in range(PLACES_MAX + 1):
            op = {"update": {f"f{number:04}": {"type": "mv_register", "op": {"assign": replica}}}}
            writer.write("m", "map", op, replica, NOON + number)

    explained = msgspec.json.decode(writer.store.read("m", explain=True).conflict)

    assert PLACES_MAX + 1 == explained["places"] == len(writer.list().conflicts)
    assert [[f"f{number:04}"] for number in range(PLACES_MAX)] == [item["field"] for item in explained["resolutions"]]


def test_a_page_larger_than_a_mebibyte_is_cut_and_says_so():
    writer = Writer()
    for number in range(600):
        for replica in ("node-0~1", "node-1~1", "node-2~1"):
            writer.assign(f"k{number:03}", "x" * (LISTED_BYTES_MAX - 2), replica)

    reply = writer.list()

    assert (True, True) == (0 < len(reply.conflicts) < 600, reply.more)
    seen = keys(reply)
    while reply.more:
        last = reply.conflicts[-1]
        reply = writer.list(after=(last.key, last.path, last.tag))
        seen += keys(reply)
    assert [f"k{number:03}" for number in range(600)] == seen


def test_answers_of_nodes_merge_by_key_and_stop_where_one_knows_no_further():
    a, b = Writer(), Writer()
    for key in ("1", "1a", "3", "5", "6"):
        a.conflict(key)
    for key in ("2", "3", "4", "6"):
        b.conflict(key)
    b.assign("3", "new", "node-2~1", NOON + 9)

    def pages(limit, node_limit):
        found, after = [], None
        while True:
            replies = {name: w.list(after=after, limit=node_limit) for name, w in (("node-b", b), ("node-a", a))}
            page, after = merge_conflicts(replies, limit)
            found += [(node_id, conflict.key) for node_id, conflict in page]
            if after is None:
                return found

    owners = {"1": "a", "1a": "a", "2": "b", "3": "b", "4": "b", "5": "a", "6": "a"}
    whole = [(f"node-{name}", key) for key, name in owners.items()]
    assert whole == pages(1000, 1000) == pages(1, 1) == pages(2, 2) == pages(3, 1) == pages(1000, 1)
    assert ([], None) == merge_conflicts({"node-a": ConflictsReply(1, [], False)}, 5)
