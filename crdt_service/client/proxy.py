"""Which proxy the environment asks for; httpx reads NO_PROXY without IPv6 and networks, and fails on them."""

import importlib.util
import ipaddress
import re
from urllib.request import getproxies

import httpx

from crdt_service.client.error import MISCONFIGURED, ApiError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
_PORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*):(?P<port>[0-9]{1,5})")


def choose_proxy(url: httpx.URL) -> httpx.Proxy | None:
    """Return the proxy by which requests to a URL go, as `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.

    Raises:
        ApiError: It cannot be used.
    """
    given = getproxies()
    name = url.scheme if given.get(url.scheme) else "all"
    address = given.get(name)
    if not address or is_exempt(url.host, url.port or {"https": 443}.get(url.scheme, 80), given.get("no", "")):
        return None
    # The address may hold a password, so no message shows it.
    try:
        proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
        check_host(proxy.url)
        if proxy.url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
            raise ValueError("a SOCKS proxy needs the package socksio")
    except (httpx.InvalidURL, ValueError) as error:
        reason = "it is no URL" if isinstance(error, httpx.InvalidURL) else str(error).replace(address, "…")
        raise ApiError(
            MISCONFIGURED,
            f"the proxy of the environment's {name.upper()}_PROXY cannot be used: {reason}",
            f"correct the variable, or add {url.host} to NO_PROXY",
        ) from None
    return proxy


def check_host(url: httpx.URL) -> None:
    """Refuse a URL whose host cannot be looked up.

    Raises:
        ValueError: It has none, or one that is no name and no address.
    """
    if not url.host:
        raise ValueError("it names no host")
    if ":" not in url.host:
        # httpx escapes what no name has, and the resolver refuses labels that are empty or too long.
        if "%" in url.raw_host.decode("ascii"):
            raise ValueError("its host is no name")
        url.raw_host.decode("ascii").encode("idna")


def is_exempt(host: str, port: int, exemptions: str) -> bool:
    """Tell whether `NO_PROXY` names a host.

    Args:
        host: A name or an address, without brackets.
        port: Its port.
        exemptions: Names (with all names below them), addresses and networks, each perhaps with a port; `*` is all.
    """
    return any(_matches(host.lower(), port, entry) for entry in re.split(r"[\s,]+", exemptions.lower()) if entry)


def _matches(host: str, port: int, entry: str) -> bool:
    entry = _SCHEME.sub("", entry)
    with_port = _PORT.fullmatch(entry)
    if with_port is not None:
        if int(with_port["port"]) != port:
            return False
        entry = with_port["host"]
    if entry == "*":
        return True
    try:
        network = ipaddress.ip_network(re.sub(r"[\[\]]", "", entry), strict=False)
    except ValueError:
        name = entry.removeprefix("*").strip(".")
        return bool(name) and (host.rstrip(".") == name or host.rstrip(".").endswith(f".{name}"))
    try:
        return ipaddress.ip_address(host.partition("%")[0]) in network
    except ValueError:
        return False
