"""W3C Trace Context: what is taken, what is ignored, and what goes on."""

import pytest

from crdt_service.telemetry.context import (
    TraceContext,
    pack_trace,
    parse_trace,
    read_trace_headers,
    unpack_trace,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("parent", "is_sampled"),
    [
        (PARENT, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),  # Flags that we do not know are left alone.
        (f"00-{TRACE}-{SPAN}-02", False),
        (f"cc-{TRACE}-{SPAN}-01", True),  # A later version.
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-adds", True),
    ],
)
def test_a_well_formed_parent_is_taken(parent, is_sampled):
    assert TraceContext(TRACE, SPAN, is_sampled) == parse_trace(parent.encode())


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-extra",
        f"00-{TRACE}-{SPAN}-1",
        f"cc-{TRACE}-{SPAN}-01.what",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE[:-1]}é-{SPAN}-01",
    ],
)
def test_a_malformed_parent_is_none(parent):
    assert parse_trace(parent.encode()) is None


def test_headers_give_the_parent_and_all_states_in_order():
    headers = [(b"traceparent", PARENT.encode()), (b"tracestate", b"a=1, b=2 "), (b"x", b"y"), (b"tracestate", b"c=3")]

    assert TraceContext(TRACE, SPAN, True, "a=1, b=2,c=3") == read_trace_headers(headers)


@pytest.mark.parametrize("state", [b"a=" + b"x" * 511, b"a=\xff", b"a=1\nb=2"])
def test_a_state_that_is_too_long_or_malformed_is_left_out(state):
    assert TraceContext(TRACE, SPAN, True) == parse_trace(PARENT.encode(), state)


@pytest.mark.parametrize("headers", [[], [(b"tracestate", b"a=1")], [(b"traceparent", PARENT.encode())] * 2])
def test_without_a_parent_or_with_two_there_is_none(headers):
    assert read_trace_headers(headers) is None


def test_24_bytes_stand_for_a_sampled_context():
    context = TraceContext(TRACE, SPAN, True)

    assert (24, context) == (len(pack_trace(context)), unpack_trace(pack_trace(context)))
    assert [None, None] == [unpack_trace(bytes(16) + b"x" * 8), unpack_trace(b"x" * 16 + bytes(8))]
