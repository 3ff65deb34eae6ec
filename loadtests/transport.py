"""Measures the transport alone: `python -m loadtests.transport [--requests 30000] [--rounds 5] [--payload 32]`.

Two processes on loopback, uvloop in both, a handler that does nothing. Requests are pipelined by 1 and by 32
requesters; asyncio streams, the framed protocol, and the same over mutual TLS take turns. CPU is that of both ends,
and the median of the rounds is shown.
`reads` are answered at once, `writes` by a coroutine that waits a turn of the loop.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import uvloop

from crdt_service.net.cluster import ClusterIdentity
from crdt_service.net.credentials import BACKEND_NAME, Credentials
from crdt_service.net.dial import open_channel
from crdt_service.net.handshake import BACKEND, NODE, Identity
from crdt_service.net.server import Server
from crdt_service.wire.message import ReadRequest, ValueReply, WriteRequest
from loadtests import streams
from loadtests.authority import Authority

CLUSTER = ClusterIdentity.fixed("loadtest", bytes(32))
NODE_ID = "node-0"
KINDS = ("streams", "framed", "framed+TLS")
REQUESTERS = (1, 32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--payload", type=int, default=32, help="bytes in each request and reply")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        authority = Authority(Path(directory))
        listener, dialler = authority.issue(NODE_ID), authority.issue(BACKEND_NAME)
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, listener), daemon=True)
        server.start()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rows = runner.run(measure(ours.recv(), dialler, options))
        server.terminate()
        server.join()
    print("\n".join(rows))
    return 0


def serve(pipe, files):
    """The other process."""
    payload = b""

    def answer_now(request):
        if request.key == "cpu":
            return ValueReply(request.id, "cpu", repr(time.process_time()).encode())
        return ValueReply(request.id, "lww_register", payload)

    async def answer_later(request):
        await asyncio.sleep(0)
        return ValueReply(request.id, "lww_register", request.op)

    def answer(_, request):
        return answer_now(request) if isinstance(request, ReadRequest) else answer_later(request)

    async def answer_stream(request):
        return answer_now(request) if isinstance(request, ReadRequest) else await answer_later(request)

    async def run():
        identity = Identity(NODE, NODE_ID, f"{NODE_ID}~1")
        plain = Server(identity, CLUSTER, answer)
        secured = Server(identity, CLUSTER, answer, Credentials(files.certificate, files.key, files.authority, NODE_ID))
        port, server = await streams.serve(answer_stream)
        pipe.send((port, await plain.start("127.0.0.1", 0), await secured.start("127.0.0.1", 0)))
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def measure(ports, files, options):
    identity = Identity(BACKEND, "loadtest", "")
    credentials = Credentials(files.certificate, files.key, files.authority, BACKEND_NAME)
    channels = {
        "streams": streams.StreamChannel(*await asyncio.open_connection("127.0.0.1", ports[0])),
        "framed": (await open_channel("127.0.0.1", ports[1], CLUSTER, identity))[1],
        "framed+TLS": (await open_channel("127.0.0.1", ports[2], CLUSTER, identity, credentials))[1],
    }
    rows = [f"{'':<28}{'CPU µs/request':>16}{'requests/s':>12}{'p50 µs':>10}"]
    write = partial(WriteRequest, key="key", type_name="lww_register", op=bytes(options.payload))
    for what, build in (("reads", partial(ReadRequest, key="key")), ("writes", write)):
        for requesters in REQUESTERS:
            rounds = {kind: [] for kind in KINDS}
            for _ in range(options.rounds + 1):
                for kind, channel in channels.items():
                    rounds[kind].append(await run_round(channel, build, requesters, options.requests))
            for kind, measured in rounds.items():
                cpu, rate, latency = (statistics.median(values) for values in zip(*measured[1:], strict=True))
                rows.append(f"{what}, {requesters:>2}, {kind:<16}{cpu:>16.1f}{rate:>12.0f}{latency:>10.0f}")
    for channel in channels.values():
        channel.close()
    return rows


async def run_round(channel, build, requesters, requests):
    """(CPU µs of both ends per request, requests/s, median µs of one request)."""
    taken = []

    async def work():
        for _ in range(requests // requesters):
            started = time.perf_counter()
            await channel.request(build)
            taken.append(time.perf_counter() - started)

    theirs = await server_cpu(channel)
    ours, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(requesters)))
    ours, elapsed = time.process_time() - ours, time.perf_counter() - started
    theirs = await server_cpu(channel) - theirs
    return (ours + theirs) / len(taken) * 1e6, len(taken) / elapsed, statistics.median(taken) * 1e6


async def server_cpu(channel):
    return float((await channel.request(partial(ReadRequest, key="cpu"))).value)


if __name__ == "__main__":
    sys.exit(main())
