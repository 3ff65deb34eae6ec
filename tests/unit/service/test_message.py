"""Requests of clients within their bounds are read, and those beyond are refused before anything is done."""

import msgspec
import pytest

from crdt_service.kernel.error import MalformedError
from crdt_service.wire.message import (
    CHANGES_MAX,
    CHANGES_WAIT_MS_MAX,
    ITEMS_MAX,
    LISTED_KEYS_MAX,
    ChangesReply,
    ChangesRequest,
    Concern,
    DeleteRequest,
    FailureReply,
    ListReply,
    ListRequest,
    ManyReply,
    ReadManyRequest,
    Token,
    ValueReply,
    WriteItem,
    WriteManyRequest,
    WriteRequest,
    decode_reply,
    decode_request,
    encode_message,
)

TOKEN = Token(bytes(16), bytes(8))
ITEM = WriteItem("k", "t", b"{}", bytes(8), TOKEN)


@pytest.mark.parametrize(
    "request_",
    [
        WriteManyRequest(1, [ITEM] * ITEMS_MAX, Concern.ALL, True),
        ReadManyRequest(1, ["k"] * ITEMS_MAX),
        ListRequest(1, "", "", LISTED_KEYS_MAX),
        ChangesRequest(1, 2**53, 2**53, CHANGES_MAX, CHANGES_WAIT_MS_MAX),
        WriteRequest(1, "k", "t", b"{}", if_match=b"", token=TOKEN),
        DeleteRequest(1, "k", Concern.ONE, bytes(8), TOKEN),
    ],
    ids=lambda request: type(request).__name__,
)
def test_what_is_within_its_bounds_is_read(request_):
    assert request_ == decode_request(encode_message(request_))


@pytest.mark.parametrize(
    "request_",
    [
        WriteManyRequest(1, []),
        WriteManyRequest(1, [ITEM] * (ITEMS_MAX + 1)),
        WriteManyRequest(1, [WriteItem("k", "t" * 129, b"")]),
        WriteManyRequest(1, [WriteItem("k", "t", b"", bytes(9))]),
        WriteManyRequest(1, [WriteItem("k", "t", b"", None, Token(bytes(15), bytes(8)))]),
        WriteManyRequest(1, [WriteItem("k", "t", b"", None, Token(bytes(16), bytes(9)))]),
        WriteManyRequest(1, [ITEM], 3),
        ReadManyRequest(1, []),
        ReadManyRequest(1, ["k"] * (ITEMS_MAX + 1)),
        ListRequest(1, "", "", 0),
        ListRequest(1, "", "", LISTED_KEYS_MAX + 1),
        ListRequest(1, "", None, 1),
        ChangesRequest(1, -1, 0, 1, 0),
        ChangesRequest(1, 0, 2**53 + 1, 1, 0),
        ChangesRequest(1, 0, 0, 0, 0),
        ChangesRequest(1, 0, 0, CHANGES_MAX + 1, 0),
        ChangesRequest(1, 0, 0, 1, CHANGES_WAIT_MS_MAX + 1),
        WriteRequest(1, "k", "t", b"{}", if_match=bytes(9)),
        DeleteRequest(1, "k", Concern.ONE, None, Token(b"", bytes(8))),
    ],
    ids=repr,
)
def test_what_is_beyond_its_bounds_is_refused(request_):
    with pytest.raises(MalformedError):
        decode_request(encode_message(request_))


@pytest.mark.parametrize(
    "data",
    [
        [14, 1, [["k", "t"]]],
        [14, 1, [["k", "t", b"", None, None, False, 1]]],
        [14, 1, [["k", 1, b""]]],
        [14, 1, [["k", "t", b"", None, [bytes(16)]]]],
        [53, 1, "", ""],
    ],
    ids=repr,
)
def test_fields_that_are_missing_too_many_or_of_another_type_are_refused(data):
    with pytest.raises(MalformedError):
        decode_request(msgspec.msgpack.encode(data))


@pytest.mark.parametrize(
    "reply",
    [
        ManyReply(1, [ValueReply(0, "t", b"")] * (ITEMS_MAX + 1)),
        ManyReply(1, [ListReply(0, [], None)]),
        ValueReply(1, "t", b"", b"", bytes(9)),
        ListReply(1, [ValueReply(0, "t", b"")], None),
        ChangesReply(1, 0, -1, [], False),
    ],
    ids=lambda reply: type(reply).__name__,
)
def test_replies_that_break_a_rule_are_refused(reply):
    with pytest.raises(MalformedError):
        decode_reply(encode_message(reply))


def test_results_of_several_kinds_are_told_apart():
    reply = ManyReply(1, [ValueReply(0, "t", b"1", b"", bytes(8), True), FailureReply(1, "code", "message", "remedy")])
    assert reply == decode_reply(encode_message(reply))
