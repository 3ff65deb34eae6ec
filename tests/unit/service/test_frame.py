import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.kernel.error import MalformedError
from crdt_service.wire.frame import FRAME_BYTES_MAX, FrameBuffer, encode_frame


def read_all(buffer):
    bodies = []
    while (body := buffer.next_frame()) is not None:
        bodies.append(bytes(body))
    return bodies


@given(st.lists(st.binary(max_size=60)), st.data())
def test_frames_are_the_same_however_their_bytes_arrive(bodies, data):
    stream = b"".join(map(encode_frame, bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    buffer, found = FrameBuffer(60), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        buffer.feed(stream[start:end])
        found += data.draw(st.sampled_from((read_all, lambda _: [])))(buffer)
    assert bodies == found + read_all(buffer)
    assert 0 == len(buffer)


def test_a_frame_may_be_as_large_as_the_limit_and_no_larger():
    buffer = FrameBuffer(4)
    buffer.feed(encode_frame(b"four") + encode_frame(b"fives"))
    assert b"four" == buffer.next_frame()
    with pytest.raises(MalformedError, match="claims 5 bytes"):
        buffer.next_frame()


def test_a_claim_is_refused_before_its_bytes_come():
    buffer = FrameBuffer(FRAME_BYTES_MAX)
    buffer.feed((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(MalformedError):
        buffer.next_frame()


def test_nothing_larger_than_the_limit_is_sent():
    with pytest.raises(MalformedError):
        encode_frame(bytes(FRAME_BYTES_MAX + 1))


@pytest.mark.parametrize("record", [b"\x16\x03\x01\x02", b"\x15\x03\x03\x00"])
def test_tls_is_named_when_it_was_not_expected(record):
    buffer = FrameBuffer(1024)
    buffer.feed(record)
    with pytest.raises(MalformedError, match="speaks TLS"):
        buffer.next_frame()
