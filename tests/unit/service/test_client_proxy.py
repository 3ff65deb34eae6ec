"""The client in environments with proxies: it goes by what they say, and says what is wrong with them."""

import httpx
import pytest

from crdt_service.client import ApiError, AsyncClient, Client
from crdt_service.client.proxy import choose_proxy, is_exempt

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD")


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def proxy_of(url):
    proxy = choose_proxy(httpx.URL(url))
    return None if proxy is None else str(proxy.url)


@pytest.mark.parametrize(
    ("exemptions", "host", "port", "expected"),
    [
        ("", "jarvis", 80, False),
        ("*", "jarvis", 80, True),
        ("localhost,::1", "::1", 80, True),
        ("localhost,[::1]", "::1", 8000, True),
        ("[::1]:8000", "::1", 8000, True),
        ("[::1]:8000", "::1", 8001, False),
        ("fd07:b51a:cc66:f0::/64", "fd07:b51a:cc66:f0::5", 80, True),
        ("fd07:b51a:cc66:f0::/64", "fd07:b51a:cc66:f1::5", 80, False),
        ("fe80::/10", "fe80::1%eth0", 80, True),
        ("10.0.0.0/8,*.svc", "10.1.2.3", 80, True),
        ("10.0.0.0/8,*.svc", "11.1.2.3", 80, False),
        ("10.0.0.0/8,*.svc", "jarvis-backend.agents.svc", 8000, True),
        ("10.0.0.0/8 .example", "API.Example.", 443, True),
        ("example", "notexample", 443, False),
        ("example:8443", "api.example", 443, False),
        ("example:8443", "api.example", 8443, True),
        ("http://example", "example", 80, True),
        ("[::1,::1],/,//,[,:,%,.", "jarvis", 80, False),
        ("10.1.2.3/99,10.0.0.256", "10.1.2.3", 80, False),
        ("::/0", "10.1.2.3", 80, False),
    ],
)
def test_exemptions_are_names_addresses_and_networks(exemptions, host, port, expected):
    assert expected == is_exempt(host, port, exemptions)


def test_a_proxy_is_taken_by_the_scheme_or_for_all(monkeypatch):
    assert proxy_of("http://jarvis") is None
    monkeypatch.setenv("ALL_PROXY", "proxy-of-all:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://[fd00::1]:3128")
    assert ["http://proxy-of-all:3128", "http://[fd00::1]:3128"] == [
        proxy_of("http://jarvis"),
        proxy_of("https://jarvis"),
    ]
    monkeypatch.setenv("NO_PROXY", "jarvis")
    assert [None, None] == [proxy_of("http://jarvis"), proxy_of("https://jarvis")]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "address",
    [
        "http://:::bad",
        "http://",
        "ftp://proxy",
        "socks5h://127.0.0.1:1080",
        "http://u:secret@[::1",
        "http://pro xy",
        "\udcff",
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_and_its_password_is_not(monkeypatch, kind, address):
    monkeypatch.setenv("ALL_PROXY", address)
    with pytest.raises(ApiError) as raised:
        kind("http://jarvis")
    assert ("misconfigured", True) == (raised.value.code, "ALL_PROXY" in raised.value.message)
    assert "secret" not in str(raised.value)
    # Where it is not needed, it does no harm.
    monkeypatch.setenv("NO_PROXY", "localhost,[::1],fe80::/10,jarvis")
    kind("http://jarvis")


@pytest.mark.parametrize(
    "exemptions", ["localhost,::1", "[::1]", "fd07:b51a:cc66:f0::/64", "*.svc", "fe80::/10", "[", "\udcff"]
)
def test_no_exemption_stops_a_client(monkeypatch, exemptions):
    monkeypatch.setenv("NO_PROXY", exemptions)
    Client("http://127.0.0.1:9").close()


def test_requests_go_by_the_proxy_as_they_went_before(monkeypatch):
    """A proxy that cannot be reached is no answer, and nothing was sent."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with Client("http://jarvis.invalid", sleep=lambda _: None) as client, pytest.raises(ApiError) as raised:
        client.write("k", "g_set", {"add": "x"})
    assert "unreachable" == raised.value.code
