"""Receipts are a lattice with bounds, and a write sent again under its token has no second effect."""

from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.datatypes import receipts
from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.receipts import AGE_SECONDS_MAX, RECEIPTS_MAX, encode_receipt
from crdt_service.datatypes.registry import RECEIPTS
from crdt_service.kernel.clock import COUNTER_BITS, STAMP_MAX
from crdt_service.kernel.error import MalformedError, OperationError, ServiceError
from crdt_service.loops.commit import Committer
from crdt_service.store.batch import Batch, Written
from crdt_service.wire.message import Token, WriteItem
from tests.unit.service.side import Side
from tests.unit.service.test_commit import running

DAY = AGE_SECONDS_MAX * 1000 << COUNTER_BITS
TOKEN = Token(bytes(16), b"12345678")
OTHER = Token(bytes(16), b"87654321")
INCREMENT = WriteItem("k", "pn_counter", b'{"increment": 1}', token=TOKEN)
RECORDS = st.tuples(st.integers(1, 3), st.integers(0, 1), st.integers(0, 7), st.integers(0, 1))


def receipt(stamp, name=0, fingerprint=0, tag=1):
    op = encode_receipt(bytes([name]) * 16, bytes([fingerprint]) * 8, tag)
    return RECEIPTS.apply({}, {}, op, Origin("a~1", lambda: stamp))


def joined(*parts):
    state = {}
    for part in parts:
        state = RECEIPTS.join(state, RECEIPTS.decode(part))
    return RECEIPTS.encode(state)


@given(st.lists(RECORDS, min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_any_order_and_grouping_keeps_the_same_receipts(records, randomness):
    with mock.patch.object(receipts, "RECEIPTS_MAX", 3):
        parts = [
            RECEIPTS.encode(receipt(days * (DAY * 2 // 3) + rest, name, fingerprint))
            for days, rest, name, fingerprint in records
        ]
        expected = joined(*parts)
        randomness.shuffle(parts)
        cut = randomness.randint(0, len(parts))
        assert expected == joined(joined(*parts[:cut]), joined(*parts[cut:]), *parts[:2])


def test_the_newest_within_a_day_are_kept():
    state = {}
    for number in range(3 * RECEIPTS_MAX):
        op = encode_receipt(number.to_bytes(16, "big"), bytes(8), 1)
        state = RECEIPTS.join(state, RECEIPTS.apply({}, {}, op, Origin("a~1", lambda number=number: number + 1)))
        assert len(state) <= 2 * RECEIPTS_MAX
    assert RECEIPTS_MAX == RECEIPTS.value(state) == len(RECEIPTS.decode(RECEIPTS.encode(state)))
    old, kept, newest = (RECEIPTS.encode(receipt(stamp, name)) for stamp, name in ((1, 1), (2, 2), (2 + DAY, 3)))
    assert kept + newest == joined(newest, old, kept)


@pytest.mark.parametrize(
    "data",
    [
        bytes(32),
        bytes(33),  # A stamp of 0.
        (STAMP_MAX + 1).to_bytes(8, "big") + bytes(25),
        RECEIPTS.encode(receipt(2, 1)) + RECEIPTS.encode(receipt(1, 2)),
        RECEIPTS.encode(receipt(1, 1)) + RECEIPTS.encode(receipt(2, 1)),
        RECEIPTS.encode(receipt(1, 1)) + RECEIPTS.encode(receipt(2 + DAY, 2)),
        b"".join(RECEIPTS.encode(receipt(1)) for _ in range(RECEIPTS_MAX + 1)),
    ],
    ids=["cut", "no stamp", "late", "order", "twice", "old", "many"],
)
def test_bytes_that_break_a_rule_are_refused(data):
    with pytest.raises(MalformedError):
        RECEIPTS.decode(data)


def test_it_is_no_type_of_the_api():
    side = Side("a")
    for name in ("receipts", ""):
        with pytest.raises(OperationError) as refused:
            side.write("k", name, bytes(25))
        assert refused.value.code == "unknown_type"
    with pytest.raises(OperationError):
        RECEIPTS.apply({}, {}, b'{"add": 1}', Origin("a~1", lambda: 1))


async def write(committer: Committer, *items):
    return (await committer.write_many(list(items))).outcomes


async def test_a_named_write_survives_a_crash_and_is_not_applied_again(tmp_path):
    async with running(tmp_path) as replica:
        assert [Written("pn_counter")] == await write(replica.committer, INCREMENT)
    async with running(tmp_path) as replica:
        assert [Written("pn_counter", is_replay=True)] == await write(replica.committer, INCREMENT)
        assert replica.store.read("k").value == b"1"


async def test_twice_in_one_batch_is_once(tmp_path):
    async with running(tmp_path) as replica:
        outcomes = await write(replica.committer, INCREMENT, INCREMENT)
        assert [False, True] == [outcome.is_replay for outcome in outcomes]
        assert replica.store.read("k").value == b"1"


async def test_another_write_under_the_same_name_is_refused_and_has_no_effect(tmp_path):
    async with running(tmp_path) as replica:
        await write(replica.committer, INCREMENT)
        before = replica.dump()
        [refusal] = await write(replica.committer, WriteItem("k", "pn_counter", b'{"increment": 2}', token=OTHER))
        assert (refusal.code, before) == ("idempotency_mismatch", replica.dump())


async def test_the_name_counts_for_its_key_alone_and_refused_writes_are_tried_again(tmp_path):
    async with running(tmp_path) as replica:
        elsewhere = WriteItem("l", "pn_counter", b'{"increment": 1}', token=OTHER)
        wrong = WriteItem("m", "pn_counter", b"{}", token=TOKEN)
        outcomes = await write(replica.committer, INCREMENT, elsewhere, wrong, wrong)
        assert [Written("pn_counter")] * 2 == outcomes[:2]
        assert ["invalid_operation"] * 2 == [outcome.code for outcome in outcomes[2:]]


async def test_a_replayed_deletion_says_what_was_deleted(tmp_path):
    async with running(tmp_path) as replica:
        deletion = WriteItem("k", "", b"", token=TOKEN, is_delete=True)
        assert [Written("")] == await write(replica.committer, deletion)
        await write(replica.committer, WriteItem("k", "aw_set", b'{"add": "x"}'))
        assert [Written("aw_set")] == await write(replica.committer, deletion)
        assert [Written("aw_set", is_replay=True)] == await write(replica.committer, deletion)
        await write(replica.committer, WriteItem("k", "aw_set", b'{"add": "y"}'))
        assert [Written("aw_set", is_replay=True)] == await write(replica.committer, deletion)
        assert replica.store.read("k").value == b'["y"]'


async def test_receipts_are_never_seen_and_hold_nothing_up(tmp_path):
    async with running(tmp_path) as replica:
        store = replica.store
        await write(replica.committer, WriteItem("k", "aw_set", b'{"add": "x"}'))
        before = store.etag("k")
        await write(replica.committer, WriteItem("k", "aw_set", b'{"remove": "y"}', token=TOKEN))
        assert ("aw_set", ["aw_set"], before) == (
            store.find("k").name,
            [datatype.name for datatype in store.types("k")],
            store.etag("k"),
        )
        await write(replica.committer, WriteItem("k", "", b"", is_delete=True))
        assert (None, b"", ["k"]) == (store.read("k"), store.etag("k"), list(store.vacant))
        assert [Written("pn_counter")] == await write(replica.committer, WriteItem("k", "pn_counter", INCREMENT.op))
        assert store.read("k").value == b"1"


def test_a_peer_is_sent_the_receipt_with_the_write():
    one, two = Side("a"), Side("b")
    batch = Batch(one.store, one.hybrid, "a~478f0fb3")
    batch.perform(INCREMENT)
    own, _ = batch.encode()
    batch = Batch(two.store, two.hybrid, "b~478f0fb3")
    for delta in own:
        batch.join(delta)
    assert Written("pn_counter", is_replay=True) == batch.perform(INCREMENT)
    batch.install()
    assert two.store.read("k").value == b"1"
    with pytest.raises(ServiceError):
        Batch(two.store, two.hybrid, "b~478f0fb3").perform(WriteItem("k", "pn_counter", INCREMENT.op, token=OTHER))
