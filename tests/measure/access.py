"""What the gates of the API cost, and how far several backends overshoot a limit: `python -m tests.measure.access`."""

import argparse
import asyncio
import re
import secrets
import tempfile
import time
from pathlib import Path

from crdt_service.access.key import KeyFile, encode_keys, new_key
from crdt_service.access.keyring import Keyring
from crdt_service.access.limit import Limit
from crdt_service.access.sharing import Sharing
from crdt_service.api.call import Call, show
from crdt_service.api.gates import Authentication, Authorization, RateLimiting
from crdt_service.api.route import Access, Route
from loadtests.cluster import LoopbackCluster, free_port, wait_until

GUIDE = Limit(requests_per_minute=1000, burst_limit=2000)
SMALL = Limit(requests_per_minute=600, burst_limit=200)
KEYS = 100
ROUNDS = 100_000
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", type=int, default=3)
    parser.add_argument("--clients", type=int, default=4, help="connections to each backend")
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        made = [new_key(f"key-{number}", "write", secrets.token_bytes) for number in range(KEYS)]
        path = Path(directory, "api-keys.json")
        path.write_bytes(encode_keys(KeyFile(tuple(key for key, _ in made))))
        asyncio.run(measure_gates(Keyring(path, time.time), [token for _, token in made]))
    for limit in (GUIDE, SMALL):
        measure_overshoot(limit, options.backends, options.clients, options.seconds)


async def measure_gates(keyring: Keyring, tokens: list[str]) -> None:
    sharing = Sharing(None, "backend")  # type: ignore[arg-type]
    huge = Limit(1_000_000, 1_000_000)
    gates = {
        "authentication": Authentication(keyring),
        "rate limiting": RateLimiting(sharing.buckets, huge, lambda: sharing.parts),
        "authorization": Authorization(),
    }
    route = Route("POST", "/v1/keys/{key}", "write_key", Access.WRITE, "", lambda call: show({}))
    names = (b"host", b"user-agent", b"accept", b"accept-encoding", b"connection", b"content-type", b"content-length")
    headers = [(name, b"value") for name in names]
    calls = [
        Call(
            route,
            "some/key",
            "1",
            {"headers": [*headers, (b"authorization", b"Bearer " + token.encode())], "client": ("10.0.0.1", 1)},
        )
        for token in tokens
    ]
    total = 0.0
    for name, gate in gates.items():
        started = time.process_time()
        for number in range(ROUNDS):
            call = calls[number % KEYS]
            await gate.admit(call)
            call.headers.clear()
        took = (time.process_time() - started) / ROUNDS * 1e6
        total += took
        print(f"{name:<16}{took:5.1f} CPU µs a request")
    print(f"{'all':<16}{total:5.1f} CPU µs a request")


def measure_overshoot(limit: Limit, backends: int, clients: int, seconds: float) -> None:
    rate_limiting = {
        "enabled": True,
        "requests_per_minute": limit.requests_per_minute,
        "burst_limit": limit.burst_limit,
    }
    with (
        tempfile.TemporaryDirectory() as directory,
        LoopbackCluster(Path(directory), api_keys=True, rate_limiting=rate_limiting) as cluster,
    ):
        ports = [cluster.api_port]
        token = cluster.create_api_key("--scope", "read")
        for number in range(1, backends):
            port = free_port()
            cluster.start_backend(f"backend-{number}", port)
            ports.append(port)
        headers = {"authorization": f"Bearer {token}"}
        for port in ports:
            url = f"http://127.0.0.1:{port}/v1/placement/k"
            wait_until(lambda url=url: cluster.client.get(url, headers=headers).json()["owners"], url, cluster.logs)
        time.sleep(3)
        allowed, asked, took = asyncio.run(_flood(ports, token, clients, seconds))
    exact = limit.burst_limit + limit.per_second * took
    print(
        f"{limit.requests_per_minute} a minute, burst {limit.burst_limit}, {backends} backends: "
        f"{asked / took:.0f} asked a second; allowed {allowed} in {took:.1f} s, exact {exact:.0f}: "
        f"{allowed / exact - 1:+.1%}"
    )


async def _flood(ports: list[int], token: str, clients: int, seconds: float) -> tuple[int, int, float]:
    """Return (allowed, asked, seconds)."""
    request = f"GET /v1/placement/k HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    started = time.monotonic()

    async def run(port: int) -> tuple[int, int]:
        allowed = asked = 0
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() - started < seconds:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(_LENGTH.search(head)[1]))
            asked += 1
            allowed += head.startswith(b"HTTP/1.1 200")
        writer.close()
        return allowed, asked

    results = await asyncio.gather(*(run(port) for port in ports for _ in range(clients)))
    took = time.monotonic() - started
    return sum(allowed for allowed, _ in results), sum(asked for _, asked in results), took


if __name__ == "__main__":
    main()
