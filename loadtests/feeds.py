"""Many open change feeds at one backend: `python -m loadtests.feeds [--feeds 9000] [--writes 300] [--prefixes 1]`.

Over HTTPS with API keys, unless `--bare`: one caller has only a share of all feeds, so nine callers open them. Reports
the backend's memory before they are open, with them and after the writes, and how long a write takes until it is seen
on each feed. With several prefixes a write concerns that share of the feeds. Exits non-zero if a feed missed a write.
"""

import argparse
import asyncio
import re
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
import uvloop

from loadtests.cluster import LoopbackCluster

OPENED_AT_ONCE = 100
# Together they may hold nine tenths of the feeds of a backend (`crdt_service/access/room.py`).
CALLERS = 9
SECONDS_MAX = 120
MEBIBYTE = 1 << 20
_SENT = re.compile(rb'"key":"[0-9]+/([0-9]+)"')


class Reader(asyncio.Protocol):
    """One feed; collects how long each event took."""

    def __init__(self, path, authorization, latencies):
        self._head = f"GET {path} HTTP/1.1\r\nhost: localhost\r\n{authorization}\r\n".encode()
        self._latencies = latencies
        self._rest = b""
        self.seen = 0
        self.is_live = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self._head)

    def data_received(self, data):
        if not self.is_live.done() and b": live" in data:
            self.is_live.set_result(None)
        now, data = time.monotonic_ns(), self._rest + data
        end = data.rfind(b"\n\n") + 1
        self._rest = data[end:]
        for sent in _SENT.findall(data, 0, end):
            self.seen += 1
            self._latencies.append(now - int(sent))

    def connection_lost(self, exc):
        if not self.is_live.done():
            self.is_live.set_exception(ConnectionError(f"a feed was not opened: {self._rest[:300]!r}"))


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


async def open_feeds(cluster, tokens, count, prefixes, latencies):
    loop, readers = asyncio.get_running_loop(), []
    context = cluster.trust if cluster.authority else None
    headers = [f"authorization: Bearer {token}\r\n" for token in tokens] or [""]
    for first in range(0, count, OPENED_AT_ONCE):
        feeds = [
            (f"/v1/changes?prefix={number % prefixes}/", headers[number % len(headers)])
            for number in range(first, min(count, first + OPENED_AT_ONCE))
        ]
        opened = await asyncio.gather(
            *(
                loop.create_connection(
                    lambda path=path, header=header: Reader(path, header, latencies),
                    "127.0.0.1",
                    cluster.api_port,
                    ssl=context,
                )
                for path, header in feeds
            )
        )
        readers += [reader for _, reader in opened]
        await asyncio.gather(*(reader.is_live for _, reader in opened))
    return readers


async def measure(cluster, tokens, options):
    latencies, pid = [], cluster.processes["backend"].pid
    headers = dict(cluster.client.headers)
    async with httpx.AsyncClient(base_url=cluster.url, timeout=30, headers=headers, verify=cluster.trust) as client:
        (await client.post("/v1/keys/before", json=write())).raise_for_status()
        before = resident_bytes(pid)
        started = time.monotonic()
        readers = await open_feeds(cluster, tokens, options.feeds, options.prefixes, latencies)
        opening_seconds = time.monotonic() - started
        opened = resident_bytes(pid)
        started = time.monotonic()
        for number in range(options.writes):
            path = f"/v1/keys/{number % options.prefixes}%2F{time.monotonic_ns()}"
            (await client.post(path, json=write())).raise_for_status()
            await asyncio.sleep(options.pause)
        due = [
            len(range(number % options.prefixes, options.writes, options.prefixes)) for number in range(options.feeds)
        ]
        end = time.monotonic() + SECONDS_MAX
        while missing := sum(max(0, count - reader.seen) for count, reader in zip(due, readers, strict=True)):
            if time.monotonic() > end:
                break
            await asyncio.sleep(0.02)
        seconds = time.monotonic() - started
        after = resident_bytes(pid)
    print(f"{options.feeds} feeds opened in {opening_seconds:.1f} s")
    show_memory(options.feeds, before, opened, after)
    show_latency(latencies, seconds)
    print(f"{missing} events were missed, {max(0, len(latencies) - sum(due))} came twice")
    return 1 if missing else 0


def show_memory(feeds, before, opened, after):
    each = (opened - before) / max(1, feeds) / 1024
    print(
        f"resident memory of the backend: {before / MEBIBYTE:.1f} MiB without feeds, {opened / MEBIBYTE:.1f} MiB with "
        f"them ({each:.1f} KiB each), {after / MEBIBYTE:.1f} MiB after the writes"
    )


def show_latency(latencies, seconds):
    ordered = sorted(latencies) or [0]
    p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    print(
        f"{len(latencies)} events in {seconds:.1f} s ({len(latencies) / seconds:.0f}/s); "
        f"from write to feed p50 {p50 / 1e6:.0f} ms, p99 {p99 / 1e6:.0f} ms, longest {ordered[-1] / 1e6:.0f} ms"
    )


def write():
    return {"type": "pn_counter", "op": {"increment": 1}}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--feeds", type=int, default=9_000)
    parser.add_argument("--writes", type=int, default=300)
    parser.add_argument("--prefixes", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two writes")
    parser.add_argument("--bare", action="store_true", help="without TLS and API keys")
    options = parser.parse_args()
    needed, (soft, hard) = options.feeds + 200, resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        print(f"error: {options.feeds} feeds need {needed} open files, and only {hard} are allowed", file=sys.stderr)
        return 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    is_secured = not options.bare
    with tempfile.TemporaryDirectory() as directory:
        cluster = LoopbackCluster(Path(directory), tls=is_secured, api_keys=is_secured)
        tokens = [cluster.create_api_key("--scope", "read") for _ in range(CALLERS if is_secured else 0)]
        with cluster:
            return uvloop.run(measure(cluster, tokens, options))


if __name__ == "__main__":
    sys.exit(main())
