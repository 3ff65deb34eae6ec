"""What one caller's demand costs another: `python -m loadtests.shares [--seconds 3] [--only feeds …] [--most 2]`.

For each room that callers share, one caller takes all that it gets, from an address of its own and with an API key of
its own, while another reads and writes. Shown are the other caller's p99 alone and meanwhile, both in this run, and
what became of its requests. Exits non-zero if one of them failed, or if a p99 grew by more than `--most`.
"""

import argparse
import asyncio
import contextlib
import re
import resource
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import uvloop

from loadtests.capacity import read_status
from loadtests.cluster import ROOT, LoopbackCluster, wait_until
from loadtests.propagation import quantiles

# The other caller comes from 127.0.0.1.
ADDRESS = "127.0.0.2"
MEBIBYTE = 1 << 20
ROUNDS = 5
OPENED_AT_ONCE = 100
FILES_MAX = 14_000
LARGE = "large"
LARGE_BYTES = 900 << 10
ROOMS = ("bodies", "requests", "feeds", "connections", "heads", "answers", "pages")


class Greedy:
    """A caller that takes all that it gets of one room, in a process of its own.

    Args:
        port: Of the backend.
        token: Its API key.
    """

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = f" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n".encode()
        self._open: list[asyncio.StreamWriter] = []
        self._working: list[asyncio.Task[None]] = []

    async def bodies(self) -> None:
        """Bodies that lack their last byte, twice as many as there is room for."""
        body = b"Content-Length: %d\r\n\r\n" % MEBIBYTE + b" " * (MEBIBYTE - 1)
        await self._send(self._begin("POST /v1/batch/read") + body, 128)

    async def requests(self) -> None:
        """Requests one after the other on each of many connections, more than are at work and may wait."""
        await self._repeat(self._begin("GET /v1/keys/shares") + b"\r\n", 384)

    async def feeds(self) -> None:
        """Change feeds, more than there is room for."""
        await self._send(self._begin("GET /v1/changes?prefix=greedy/") + b"\r\n", 11_000)

    async def connections(self) -> None:
        """Connections that say nothing, more than there may be."""
        await self._send(b"", 13_000)

    async def heads(self) -> None:
        """Heads without end, more than there is room for."""
        await self._send(self._begin("GET /v1/keys/shares") + b"a: " + b"a" * 4000, 4000)

    async def answers(self) -> None:
        """Large answers of which nothing is read."""
        await self._send(self._begin(f"GET /v1/keys/{LARGE}") + b"\r\n", 128)

    async def pages(self) -> None:
        """Pages that need no API key, and refusals."""
        for path in ("/metrics", "/openapi.json", "/health", "/ready", "/live", "/nothing", "/v1/keys/shares"):
            await self._repeat(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 16)

    def _begin(self, start: str) -> bytes:
        return start.encode() + self._head

    async def _send(self, request: bytes, count: int) -> None:
        for first in range(0, count, OPENED_AT_ONCE):
            opening = (self._connect() for _ in range(first, min(count, first + OPENED_AT_ONCE)))
            for _, writer in await asyncio.gather(*opening):
                writer.write(request)

    async def _repeat(self, request: bytes, clients: int) -> None:
        for reader, writer in await asyncio.gather(*(self._connect() for _ in range(clients))):
            self._working.append(asyncio.create_task(_ask_always(reader, writer, request)))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        client.bind((ADDRESS, 0))
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self._port))
        reader, writer = await asyncio.open_connection(sock=client, limit=1 << 16)
        self._open.append(writer)
        return reader, writer


async def _ask_always(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            writer.write(request)
            await read_status(reader)


class Modest:
    """A caller that reads and writes a key, one request after the other."""

    def __init__(self, cluster: LoopbackCluster, token: str) -> None:
        self._port = cluster.api_port
        body = b'{"type":"pn_counter","op":{"increment":1}}'
        head = f" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n".encode()
        self._requests = (
            b"POST /v1/keys/modest%b" % head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
            b"GET /v1/keys/modest%b\r\n" % head,
        )

    async def measure(self, seconds: float) -> tuple[float, Counter[int]]:
        """Return the 99th percentile of the time of an answer in milliseconds, a new connection's first among them."""
        taken: list[float] = []
        statuses: Counter[int] = Counter()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            started = time.perf_counter()
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            for _ in range(100):
                for request in self._requests:
                    writer.write(request)
                    statuses[await read_status(reader)] += 1
                    taken.append((time.perf_counter() - started) * 1000)
                    started = time.perf_counter()
            writer.close()
        return quantiles(taken)[1], statuses


async def measure(
    cluster: LoopbackCluster, rooms: list[str], seconds: float
) -> list[tuple[str, float, float, Counter[int]]]:
    """Return for each room the other caller's p99 alone and meanwhile, and the statuses of its answers meanwhile."""
    tokens = [cluster.run_api_key("create", "--name", name, "--scope", "write") for name in ("modest", "greedy")]
    await asyncio.to_thread(prepare, cluster, tokens[1])
    modest, rows = Modest(cluster, tokens[0]), []
    for room in rooms:
        alone = [await modest.measure(seconds) for _ in range(ROUNDS)]
        taking = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "loadtests.shares", "--take", room, str(cluster.api_port), tokens[1]),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            if taking.stdout is None or not await taking.stdout.readline():
                raise RuntimeError(f"{room} could not be taken")
            meanwhile = [await modest.measure(seconds) for _ in range(ROUNDS)]
        finally:
            taking.kill()
            await taking.wait()
        await asyncio.sleep(1)  # The backend hears of it.
        p99s = [statistics.median(p99 for p99, _ in each) for each in (alone, meanwhile)]
        rows.append((room, p99s[0], p99s[1], sum((statuses for _, statuses in meanwhile), Counter())))
    return rows


async def take(room: str, port: str, token: str) -> None:
    """Take a room, say so, and keep it until this process is ended."""
    greedy = Greedy(int(port), token)
    await getattr(greedy, room)()
    print("taken", flush=True)
    await asyncio.Event().wait()


def prepare(cluster: LoopbackCluster, token: str) -> None:
    """Have the keys there, and wait until the backend knows the API keys."""
    headers = {"authorization": f"Bearer {token}"}
    write = {"type": "pn_counter", "op": {"increment": 1}}
    wait_until(
        lambda: cluster.client.post(f"{cluster.url}/v1/keys/shares", json=write, headers=headers).is_success,
        "the API key to be known",
        cluster.logs,
    )
    cluster.post(f"/v1/keys/{LARGE}?value=false", {"type": "lww_register", "op": {"assign": "x" * LARGE_BYTES}})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help=f"of each of {ROUNDS} rounds")
    parser.add_argument("--most", type=float, default=2.0, help="how often its p99 may be what it was")
    parser.add_argument("--only", nargs="+", choices=ROOMS, default=list(ROOMS))
    parser.add_argument("--take", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES_MAX:
        print(f"error: {FILES_MAX} open files are needed, and only {hard} are allowed", file=sys.stderr)
        return 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_MAX, hard))
    if options.take:
        uvloop.run(take(*options.take))
    with (
        tempfile.TemporaryDirectory() as directory,
        LoopbackCluster(Path(directory), api_keys=True, environment="production") as cluster,
    ):
        rows = uvloop.run(measure(cluster, options.only, options.seconds))
        refused = dict(
            re.findall(r'jarvis_refused_total\{room="(\w+)"\} (\d+)', cluster.client.get(f"{cluster.url}/metrics").text)
        )
    print(f"{'room':<14}{'p99 alone':>12}{'meanwhile':>12}{'ratio':>8}{'refused':>10}  the other caller's answers")
    for room, alone, meanwhile, statuses in rows:
        times = f"{alone:>9.2f} ms{meanwhile:>9.2f} ms{meanwhile / alone:>8.2f}"
        print(f"{room:<14}{times}{refused.get(room, ''):>10}  {dict(statuses)}")
    is_fair = all(
        meanwhile <= options.most * alone and statuses.keys() == {200} for _, alone, meanwhile, statuses in rows
    )
    return 0 if is_fair else 1


if __name__ == "__main__":
    sys.exit(main())
