"""What parameters are read from, whatever proxies on the way made of them."""

import pytest

from crdt_service.api.keys import IF_MATCH, IF_NONE_MATCH
from crdt_service.api.parameter import ANY_ETAG, Reader, text
from crdt_service.kernel.error import OperationError

DIGEST = bytes.fromhex("8c0f2d6be21a7c55")
READER = Reader([text("prefix", 512, "so"), text("cursor", 512, "so")])


@pytest.mark.parametrize(
    "query", [b"prefix=%zz", b"prefix=a%", b"prefix=a%2", b"pre%fix=a", b"prefix=%2541&cursor=%4", b"prefix=%u0041"]
)
def test_a_percent_sign_that_begins_no_byte_is_refused(query):
    with pytest.raises(OperationError) as refused:
        READER.read(query, [])
    assert "invalid_query" == refused.value.code


@pytest.mark.parametrize(
    ("query", "expected"), [(b"prefix=%25zz", "%zz"), (b"prefix=%E2%82%ac", "€"), (b"prefix=", "")]
)
def test_what_is_percent_encoded_is_decoded_once(query, expected):
    assert expected == READER.read(query, [])["prefix"]


@pytest.mark.parametrize(
    "given",
    ['"8c0f2d6be21a7c55"', 'W/"8c0f2d6be21a7c55"', '"8c0f2d6be21a7c55-gzip"', 'W/"8c0f2d6be21a7c55--br"'],
)
def test_a_tag_stands_for_the_same_whatever_a_proxy_that_compresses_made_of_it(given):
    assert (DIGEST, {DIGEST}) == (IF_MATCH.read(given), IF_NONE_MATCH.read(given))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("*", {ANY_ETAG}),
        ('"other"', set()),
        ('"a*b"', set()),
        ('"other", W/"8c0f2d6be21a7c55"', {DIGEST}),
        ("8c0f2d6be21a7c55", None),
        ('"other" "more"', None),
        ("", None),
    ],
)
def test_a_client_may_have_several_tags_also_of_others(given, expected):
    assert expected == IF_NONE_MATCH.read(given)


@pytest.mark.parametrize("given", ["*", '"8c0f2d6be21a7c55", "8c0f2d6be21a7c55"', '"other"', "W/8c0f2d6be21a7c55"])
def test_a_write_has_one_condition(given):
    assert None is IF_MATCH.read(given)
