"""A conditional write is applied only to what it was made for, whatever else is in its batch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.store.batch import Batch, Written
from crdt_service.wire.message import WriteItem
from tests.unit.service.side import Side
from tests.unit.service.test_commit import running

ANY = bytes(8)


def assign(value, if_match=None, key="k"):
    return WriteItem(key, "lww_register", b'{"assign": %d}' % value, if_match)


def add(element, if_match=None):
    return WriteItem("k", "aw_set", b'{"add": "%s"}' % element, if_match)


def delete(if_match=None, key="k"):
    return WriteItem(key, "", b"", if_match, is_delete=True)


async def write(replica, *items):
    return [getattr(outcome, "code", "") for outcome in (await replica.committer.write_many(items)).outcomes]


async def test_it_is_applied_to_what_was_read_and_refused_after_any_change(tmp_path):
    async with running(tmp_path) as replica:
        await write(replica, assign(1))
        read = replica.store.read("k").digest
        assert ["", "precondition_failed"] == await write(replica, assign(2, read)) + await write(
            replica, assign(3, read)
        )
        assert replica.store.read("k").value == b"2"


async def test_of_two_writes_on_one_condition_in_one_batch_one_wins(tmp_path):
    async with running(tmp_path) as replica:
        assert ["", "precondition_failed"] == await write(replica, assign(1, b""), assign(2, b""))
        etag = replica.store.etag("k")
        assert ["", "precondition_failed", ""] == await write(replica, assign(3, etag), assign(4, etag), assign(5))
        assert replica.store.read("k").value == b"5"


async def test_a_refused_one_leaves_no_trace(tmp_path):
    async with running(tmp_path) as replica:
        assert ["precondition_failed"] * 2 == await write(replica, assign(1, ANY), delete(ANY))
        assert ({}, 0) == (replica.dump(), replica.replica.commits.newest)


async def test_missing_is_what_was_never_written_or_is_deleted(tmp_path):
    async with running(tmp_path) as replica:
        assert ["", "precondition_failed"] == await write(replica, add(b"x", b""), add(b"y", b""))
        before = replica.store.etag("k")
        assert ["", "", "precondition_failed"] == await write(replica, delete(before), add(b"z", b""), delete(before))
        assert replica.store.read("k").value == b'["z"]'
        assert [""] == await write(replica, delete())
        assert (b"", ["precondition_failed"]) == (replica.store.etag("k"), await write(replica, add(b"x", before)))


async def test_it_tells_the_digest_just_after_itself(tmp_path):
    async with running(tmp_path) as replica:
        commit = await replica.committer.write_many([assign(1, b""), assign(2)])
        first, plain = commit.outcomes
        assert (b"", False) == (plain.digest, first.digest == replica.store.etag("k"))
        [last] = (await replica.committer.write_many([assign(3, replica.store.etag("k"))])).outcomes
        assert last.digest == replica.store.etag("k") == replica.store.read("k").digest


async def test_a_deletion_of_a_type_that_only_grows_is_refused_and_leaves_the_others(tmp_path):
    async with running(tmp_path) as replica:
        await write(replica, WriteItem("c", "pn_counter", b'{"increment": 1}'), add(b"x"))
        assert ["not_deletable", "", ""] == await write(replica, delete(key="c"), delete(), delete(key="none"))
        assert (b"1", None) == (replica.store.read("c").value, replica.store.read("k"))


def both(one, two):
    """Bring two sides to hold the same."""
    for source, target in ((one, two), (two, one)):
        batch = Batch(target.store, target.hybrid, "c~478f0fb3")
        for delta in source.store.encode_key("k"):
            batch.join(delta)
        batch.install()


def test_who_holds_the_same_has_the_same_digest():
    one, two = Side("a"), Side("b")
    one.write("k", "aw_set", b'{"add": "x"}')
    two.write("k", "pn_counter", b'{"increment": 1}')
    assert one.store.etag("k") != two.store.etag("k")
    both(one, two)
    assert one.store.etag("k") == two.store.etag("k") != b""


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(("add", "remove", "clear", "digest"))), max_size=12))
def test_what_a_batch_tells_ahead_is_what_the_store_says_after(steps):
    side = Side("a")
    batch = Batch(side.store, side.hybrid, "a~1")
    for is_installed, verb in steps:
        if is_installed:
            batch.install()
            batch = Batch(side.store, side.hybrid, "a~1")
        if verb == "digest":
            side.store.etag("k")
        elif verb == "clear":
            batch.delete("k")
        else:
            batch.perform(WriteItem("k", "aw_set", b'{"%s": "x"}' % verb.encode()))
        ahead = batch.etag("k")
        after = Side("b")
        copy = Batch(after.store, after.hybrid, "b~1")
        own, others = batch.encode()
        for delta in (*side.store.encode_key("k"), *own, *others):
            copy.join(delta)
        copy.install()
        assert after.store.etag("k") == ahead


@pytest.mark.parametrize("if_match", [None, b""])
def test_what_was_written_says_its_type(if_match):
    side = Side("a")
    written = Batch(side.store, side.hybrid, "a~1").perform(assign(1, if_match))
    assert ("lww_register", False) == (written.type_name, written.is_replay)
    assert isinstance(written, Written)
