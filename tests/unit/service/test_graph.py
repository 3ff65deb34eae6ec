import msgspec
import pytest

from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.graph import Graph
from crdt_service.kernel.error import MalformedError, OperationError

GRAPH = Graph()


def apply(state, replica="a~1", **op):
    return GRAPH.apply(state, GRAPH.empty(), msgspec.json.encode(op), Origin(replica, lambda: 1))


def joined(*deltas):
    state = GRAPH.empty()
    for delta in deltas:
        state = GRAPH.join(state, delta)
    return state


def build(vertices, edges):
    state = GRAPH.empty()
    for vertex in vertices:
        state = GRAPH.join(state, apply(state, add_vertex=vertex))
    for edge in edges:
        state = GRAPH.join(state, apply(state, add_edge=list(edge)))
    return state


def copy(state):
    return GRAPH.decode(GRAPH.encode(state))


def test_vertices_and_edges_are_sorted():
    state = build("cab", ["ca", "ab", "aa"])
    assert GRAPH.value(state) == {"vertices": ["a", "b", "c"], "edges": [["a", "a"], ["a", "b"], ["c", "a"]]}


def test_removing_a_vertex_removes_the_edges_at_it_for_good():
    state = build("abc", ["ab", "bc", "ca", "bb"])
    state = GRAPH.join(state, apply(state, remove_vertex="b"))
    assert GRAPH.value(state) == {"vertices": ["a", "c"], "edges": [["c", "a"]]}
    state = GRAPH.join(state, apply(state, add_vertex="b"))
    assert GRAPH.value(state) == {"vertices": ["a", "b", "c"], "edges": [["c", "a"]]}


def test_removing_an_edge_leaves_its_ends():
    state = build("ab", ["ab", "ba"])
    state = GRAPH.join(state, apply(state, remove_edge=["a", "b"]))
    assert GRAPH.value(state) == {"vertices": ["a", "b"], "edges": [["b", "a"]]}


@pytest.mark.parametrize("removed", ["a", "b"])
def test_no_edge_dangles_after_a_concurrent_removal(removed):
    state = build("ab", [])
    edge, removal = apply(state, "b~2", add_edge=["a", "b"]), apply(state, "c~3", remove_vertex=removed)
    (left,) = {"a", "b"} - {removed}
    for merged in (joined(state, edge, removal), joined(removal, edge, state)):
        assert GRAPH.value(merged) == {"vertices": [left], "edges": []}
        again = GRAPH.join(copy(merged), apply(merged, add_vertex=removed))
        assert GRAPH.value(again) == {"vertices": ["a", "b"], "edges": [["a", "b"]]}


def test_a_vertex_added_concurrently_stays():
    state = build("a", [])
    removal, addition = apply(state, "b~2", remove_vertex="a"), apply(state, "c~3", add_vertex="a")
    assert GRAPH.value(joined(state, removal, addition)) == {"vertices": ["a"], "edges": []}


def test_an_edge_needs_both_ends():
    with pytest.raises(OperationError, match="no vertex"):
        apply(build("a", []), add_edge=["a", "b"])


def test_removing_a_vertex_of_few_edges_costs_little_in_a_large_graph():
    sizes = []
    for count in (10, 1000):
        state = build([str(number) for number in range(count)], [])
        sizes.append(len(GRAPH.encode(apply(state, remove_vertex="5"))))
    assert sizes[1] - sizes[0] <= 4  # Its own dot has a larger number.


@pytest.mark.parametrize(
    "op",
    [{}, {"add_vertex": "a", "remove_vertex": "a"}, {"add_edge": ["a"]}, {"add_vertex": 1}, {"add_vertex": "é" * 200}],
)
def test_other_operations_are_refused(op):
    with pytest.raises(OperationError, match="graph"):
        apply(GRAPH.empty(), **op)


@pytest.mark.parametrize(("path", "content"), [((), b"x"), (("a",), b"x"), (("a", "b", "c"), b""), (("é" * 200,), b"")])
def test_entries_that_no_writer_makes_are_refused(path, content):
    with pytest.raises(MalformedError):
        GRAPH.decode(msgspec.msgpack.encode((["a~1"], [(0, 1, path, content)], [(0, 1)], [])))
