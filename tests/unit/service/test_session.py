"""What was seen through a backend, in memory alone: which answers include it, whatever the order of answers."""

import pytest

from crdt_service.api.session import Session, covers, holds

A, B, C = "a~1", "b~1", "c~1"
OLD, NEW = b"old.....", b"new....."


def session(*notes, keys_max=9):
    """A session that took in reads of one key, each as (directory, digest), one after the other."""
    session = Session(keys_max)
    for replica, digest in notes:
        session.note("k", session.look("k"), replica, digest, is_whole=True)
    return session


def test_of_a_key_that_was_never_seen_any_node_will_do():
    seen = Session().look("k")
    assert (True, True) == (holds(seen, A), covers(seen, A, b""))


def test_who_showed_it_holds_it_and_who_shows_the_same():
    seen = session((A, NEW)).look("k")
    assert (True, False) == (holds(seen, A), holds(seen, B))
    assert (True, True, False) == (covers(seen, A, OLD), covers(seen, B, NEW), covers(seen, B, OLD))
    seen = session((A, NEW), (B, NEW)).look("k")
    assert (True, True, False) == (holds(seen, A), holds(seen, B), holds(seen, C))
    assert not holds(session((A, OLD), (B, OLD), (A, NEW)).look("k"), B)


def test_nothing_is_the_same_as_an_unknown_digest():
    assert not covers(session((A, b"")).look("k"), B, b"")


def test_a_write_on_a_node_that_lacks_what_was_seen_leaves_none_that_holds_both():
    seen = session((A, OLD))
    seen.note("k", seen.look("k"), B, NEW, is_whole=False)
    assert [False, False] == [holds(seen.look("k"), each) for each in (A, B)]
    assert not covers(seen.look("k"), A, NEW)
    seen.note("k", seen.look("k"), C, NEW, is_whole=True)
    assert (False, True) == (holds(seen.look("k"), A), holds(seen.look("k"), C))


def test_an_answer_that_comes_after_a_newer_one_takes_nothing_back():
    seen = session((A, OLD))
    before = seen.look("k")
    seen.note("k", before, A, b"", is_whole=True)  # A write, acknowledged meanwhile.
    seen.note("k", before, A, OLD, is_whole=True)
    assert (True, False) == (holds(seen.look("k"), A), covers(seen.look("k"), B, OLD))
    seen.note("k", before, B, OLD, is_whole=True)
    assert (False, False) == (holds(seen.look("k"), A), holds(seen.look("k"), B))


@pytest.mark.parametrize("keys_max", [1, 10, 100])
def test_only_so_many_keys_are_remembered_those_used_last(keys_max):
    seen = Session(keys_max)
    for number in range(150):
        seen.note("first", seen.look("first"), A, NEW, is_whole=True)
        seen.note(str(number), None, A, NEW, is_whole=True)
    assert keys_max == len(seen)
    assert seen.look("149") is not None
    assert (keys_max == 1) == (seen.look("first") is None)
