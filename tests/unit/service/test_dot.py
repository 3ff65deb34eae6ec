import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.kernel.dot import CausalContext

DOTS = st.sets(st.tuples(st.sampled_from("ab"), st.integers(1, 12)))


def is_canonical(context):
    for replica, spans in context.cloud.items():
        newest = context.vector.get(replica, 0)
        assert spans
        for first, last in spans:
            assert newest + 1 < first <= last
            newest = last
    return True


def dots_of(context):
    return {(replica, counter) for replica, first, last in context.spans() for counter in range(first, last + 1)}


def plain(context):
    return context.vector, context.cloud


@given(dots=st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 12))))
def test_a_context_is_the_set_of_its_dots_whatever_their_order(dots):
    context = CausalContext(dots)
    assert is_canonical(context)
    assert set(dots) == dots_of(context)
    assert plain(CausalContext(sorted(dots))) == plain(context)
    for replica in "abc":
        assert max((counter for name, counter in dots if name == replica), default=0) == context.newest(replica)
        for counter in range(1, 15):
            assert ((replica, counter) in dots) == ((replica, counter) in context)


@given(x=DOTS, y=DOTS)
def test_merging_is_union(x, y):
    context, other = CausalContext(x), CausalContext(y)
    context.merge(other)
    assert is_canonical(context)
    assert plain(CausalContext(x | y)) == plain(context)
    assert plain(CausalContext(y)) == plain(other)


@given(x=st.sets(st.integers(1, 300), min_size=80), y=st.sets(st.integers(1, 300), min_size=80))
def test_merging_many_spans_at_once_is_union_too(x, y):
    context = CausalContext(("a", counter) for counter in x)
    context.merge(CausalContext(("a", counter) for counter in y))
    assert is_canonical(context)
    assert plain(CausalContext(("a", counter) for counter in x | y)) == plain(context)


@given(dots=DOTS, first=st.integers(1, 12), length=st.integers(1, 6))
def test_a_span_is_its_dots(dots, first, length):
    context = CausalContext(dots)
    context.add_span("a", first, first + length - 1)
    assert is_canonical(context)
    assert dots_of(context) == dots | {("a", counter) for counter in range(first, first + length)}


@pytest.mark.parametrize("gaps", [10, 100_000])
def test_the_newest_counter_costs_no_look_at_the_gaps(gaps):
    class Spans(list):
        looked_at = 0

        def __getitem__(self, at):
            Spans.looked_at += 1
            return super().__getitem__(at)

        def __iter__(self):
            Spans.looked_at += len(self)
            return super().__iter__()

    context = CausalContext()
    context.cloud["a"] = Spans((2 * counter, 2 * counter) for counter in range(2, gaps))
    assert context.newest("a") == 2 * (gaps - 1)
    assert Spans.looked_at == 1
