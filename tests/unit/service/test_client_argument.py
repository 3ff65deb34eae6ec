"""What a client cannot send, or cannot be made of: an ApiError with a remedy, before anything is sent."""

import asyncio
import datetime
import decimal
import enum
import json
import uuid
from collections import OrderedDict
from types import MappingProxyType

import httpx
import pytest

from crdt_service.client import NEVER, ApiError, AsyncClient, Client, Deletion, Write, read_token_file

KEY = {"key": "k", "type": "lww_register", "node": "node-0", "value": 3}
CIRCULAR: list = []
CIRCULAR.append(CIRCULAR)
DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]


class Colour(enum.StrEnum):
    RED = "red"


class Network:
    """Answers every request alike and keeps them."""

    def __init__(self, reply=None):
        self.asked = []
        self.reply = reply

    def __call__(self, request):
        self.asked.append(request)
        if self.reply is not None:
            return self.reply
        return httpx.Response(200, json={"results": []} if "batch" in request.url.path else KEY)

    def client(self, **options):
        return Client("http://jarvis", transport=httpx.MockTransport(self), retry=NEVER, **options)

    def asynchronous(self, **options):
        return AsyncClient("http://jarvis", transport=httpx.MockTransport(self), retry=NEVER, **options)


VALUES = [
    float("nan"),
    float("inf"),
    float("-inf"),
    {"loss": [1.0, float("nan")]},
    b"bytes",
    bytearray(b"bytes"),
    {1, 2},
    frozenset(),
    {1: "a key that is a number"},
    {None: 1},
    {True: 1},
    decimal.Decimal("1.5"),
    datetime.datetime(2026, 1, 1),
    datetime.date(2026, 1, 1),
    uuid.UUID(int=1),
    1 + 2j,
    object(),
    "a lone \ud800 surrogate",
    {"\udfff": 1},
    10**5000,
    CIRCULAR,
    DEEP,
    range(3),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_that_json_lacks_is_refused_by_every_write_of_both_clients(value):
    network = Network()
    with network.client() as client:
        refused = [
            lambda: client.write("k", "lww_register", {"assign": value}),
            lambda: client.write_batch([Deletion("a"), Write("k", "lww_register", {"assign": value})]),
        ]
        for call in refused:
            with pytest.raises(ApiError) as raised:
                call()
            assert ("invalid_argument", True) == (raised.value.code, "nothing was sent" in raised.value.remedy)

    async def write():
        async with network.asynchronous() as client:
            await client.write("k", "lww_register", {"assign": value})

    with pytest.raises(ApiError) as raised:
        asyncio.run(write())
    assert "invalid_argument" == raised.value.code
    assert [] == network.asked


def test_a_refusal_says_where_the_value_stands():
    with pytest.raises(ApiError) as raised, Network().client() as client:
        client.write("k", "lww_register", {"assign": {"loss": [1.0, float("nan")]}})
    assert "JSON has no number for the nan at op.assign.loss[1]" == raised.value.message


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (None, None),
        (True, True),
        (2**70, 2**70),
        (1.5, 1.5),
        ("größe \u2028 😀", "größe \u2028 😀"),
        ((1, 2), [1, 2]),
        (Colour.RED, "red"),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": [{}]}), {"a": [{}]}),
    ],
)
def test_what_json_has_is_sent_as_it_is(value, sent):
    network = Network()
    with network.client() as client:
        client.write("k", "lww_register", {"assign": value})
    assert sent == json.loads(network.asked[0].content)["op"]["assign"]


@pytest.mark.parametrize("key", ["\ud800", b"k", None, 7], ids=repr)
def test_a_key_that_is_no_text_is_refused(key):
    network = Network()
    with network.client() as client:
        for call in (client.read, client.delete, client.owners, client.explain):
            with pytest.raises(ApiError) as raised:
                call(key)
            assert "invalid_argument" == raised.value.code
    assert [] == network.asked


@pytest.mark.parametrize(
    "arguments",
    [
        {"node": "\ud800"},
        {"concern": b"all"},
        {"if_match": "ä"},
        {"if_match": 'a"\r\nx-other: 1'},
        {"idempotency_key": "a b"},
        {"idempotency_key": "line\nbreak"},
        {"idempotency_key": 7},
    ],
    ids=repr,
)
def test_an_argument_that_cannot_be_sent_is_refused(arguments):
    network = Network()
    with network.client() as client, pytest.raises(ApiError) as raised:
        client.write("k", "g_set", {"add": "x"}, **arguments)
    assert ("invalid_argument", []) == (raised.value.code, network.asked)


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"a\nb", "schlüssel".encode(), b"\xff\xfe", b"a\x00b"])
def test_a_token_file_that_holds_no_key_is_refused(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    network = Network()
    with network.client(token=read_token_file(tmp_path / "token")) as client, pytest.raises(ApiError) as raised:
        client.write("k", "g_set", {"add": "x"})
    assert ("misconfigured", []) == (raised.value.code, network.asked)
    assert "file" in raised.value.remedy


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_token_file_that_cannot_be_read_is_refused(tmp_path, name):
    with Network().client(token=read_token_file(tmp_path / name)) as client:
        for call in (lambda: client.read("k"), lambda: next(client.changes())):
            with pytest.raises(ApiError) as raised:
                call()
            assert "misconfigured" == raised.value.code


@pytest.mark.parametrize("content", [b"secret-1\n", b"\xef\xbb\xbfsecret-1\r\n"])
def test_a_token_file_may_end_its_line_and_begin_with_a_mark(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    network = Network()
    with network.client(token=read_token_file(tmp_path / "token")) as client:
        client.read("k")
    assert "Bearer secret-1" == network.asked[0].headers["authorization"]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "url",
    [
        "",
        "jarvis",
        "jarvis:8000",
        "//jarvis",
        "http://",
        "http:///path",
        "ftp://jarvis",
        "http://jarvis:port",
        "http://jarvis:0",
        "http://jarvis:99999",
        "http://::1:8000",
        "http://[::1",
        "http://a..b",
        f"http://{'a' * 64}",
        "http://jarvis\n",
        "http://jar vis",
        "http://jarvis/?query=1",
        "http://jarvis/#part",
        "http://\ud800",
        None,
        b"http://jarvis",
        7,
    ],
    ids=repr,
)
def test_a_url_that_leads_nowhere_is_refused(kind, url):
    with pytest.raises(ApiError) as raised:
        kind(url)
    assert ("misconfigured", True) == (raised.value.code, bool(raised.value.remedy))


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://jarvis", "http://jarvis/v1/keys/k?concern=one"),
        ("https://[fd00::1]:8443", "https://[fd00::1]:8443/v1/keys/k?concern=one"),
        ("https://größe.example/jarvis/", "https://xn--gre-6ka8i.example/jarvis/v1/keys/k?concern=one"),
    ],
)
def test_a_url_may_have_an_address_a_path_or_any_letters(url, asked):
    network = Network()
    with Client(url, transport=httpx.MockTransport(network)) as client:
        client.read("k")
    assert asked == str(network.asked[0].url)


@pytest.mark.parametrize("timeout_seconds", [0, -1, float("nan"), float("inf"), 1e300])
def test_a_time_out_that_is_none_is_refused(timeout_seconds):
    with pytest.raises(ApiError) as raised:
        Client("http://jarvis", timeout_seconds=timeout_seconds)
    assert "misconfigured" == raised.value.code


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_authorities_that_cannot_be_read_are_refused(tmp_path, kind):
    (tmp_path / "empty.pem").write_text("")
    for name in ("missing.pem", "empty.pem", "."):
        with pytest.raises(ApiError) as raised:
            kind("https://jarvis", ca_file=tmp_path / name)
        assert "misconfigured" == raised.value.code


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"value":' * 50_000, b'{"value": 1' + b"0" * 5000 + b"}", b"\xff", b""]
)
@pytest.mark.parametrize("status", [200, 503])
def test_an_answer_that_cannot_be_read_is_said_to_be_unexpected(body, status):
    network = Network(httpx.Response(status, content=body))
    with network.client() as client, pytest.raises(ApiError) as raised:
        client.read("k")
    assert "unexpected_answer" == raised.value.code


@pytest.mark.parametrize(
    "failure",
    [httpx.LocalProtocolError("x"), httpx.ProxyError("x"), httpx.InvalidURL("x"), OSError("x"), ValueError("x")],
)
def test_whatever_the_network_raises_is_an_error_of_the_api(failure):
    def fail(_):
        raise failure

    with Client("http://jarvis", transport=httpx.MockTransport(fail), retry=NEVER) as client:
        with pytest.raises(ApiError) as raised:
            client.read("k")
        assert "unreachable" == raised.value.code
        with pytest.raises(ApiError) as raised:
            client.write("k", "g_set", {"add": "x"})
    # The system's own may come from anywhere, after the request was sent, too.
    lost = isinstance(failure, OSError | ValueError)
    assert ("outcome_unknown" if lost else "unreachable") == raised.value.code
