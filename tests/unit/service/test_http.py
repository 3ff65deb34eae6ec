"""The HTTP server on real sockets, plain and over TLS: what is answered, what is refused, and what is cut."""

import asyncio
import contextlib
import datetime
import json
import logging
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from crdt_service.api.asgi import encode_json, read_body, send_response
from crdt_service.api.errors import describe_error
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.net.certificate import ServerCertificate, read_server_certificate
from crdt_service.net.http import HttpServer
from crdt_service.net.http_connection import Limits
from loadtests.authority import DAY, Authority

GET = b"GET /echo HTTP/1.1\r\nhost: a\r\n\r\n"
# Times that a test waits for are short, the others long.
LONG = Limits(handshake_seconds=60, head_seconds=60, body_seconds=60, write_seconds=60, idle_seconds=60)


def limits(**changed):
    return Limits(**{**{name: getattr(LONG, name) for name in Limits.__dataclass_fields__}, **changed})


class Application:
    """Answers with the path and the size of the body; `/wait` when told to, `/large` with much."""

    def __init__(self):
        self.go_on = asyncio.Event()
        self.paths = []

    async def __call__(self, scope, receive, send):
        self.paths.append(scope["path"])
        try:
            body = await read_body(receive, 1 << 20, lambda _: None)
        except ServiceError as error:
            await send_response(send, *describe_error(error))
            return
        if scope["path"] == "/wait":
            await self.go_on.wait()
        answer = b"x" * (32 << 20) if scope["path"] == "/large" else encode_json([scope["path"], len(body)])
        await send_response(send, 200, answer)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


@pytest.fixture
def files(authority):
    return authority.issue("localhost")


def certificate(files):
    return ServerCertificate(files.certificate, files.key)


def trusting(authority_file, **changed):
    context = ssl.create_default_context(cafile=str(authority_file))
    for name, value in changed.items():
        setattr(context, name, value)
    return context


@contextlib.asynccontextmanager
async def serving(used=None, bounds=LONG):
    application = Application()
    refused = []
    server = HttpServer(
        application, "127.0.0.1", 0, describe_error, certificate=used, limits=bounds, on_refused=refused.append
    )
    server.refused = refused
    stopping = asyncio.Event()
    running = asyncio.create_task(server.run_until(stopping))
    while not server.port:
        assert not running.done(), running.result()
        await asyncio.sleep(0.001)
    server.application = application
    try:
        yield server
    finally:
        application.go_on.set()
        stopping.set()
        await running
        assert (0, 0) == (len(server._opening), len(server._state.connections))


@contextlib.asynccontextmanager
async def connected(server, context=None, local="127.0.0.1", limit=1 << 16):
    name = None if context is None else "localhost"
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=context, server_hostname=name, local_addr=(local, 0), limit=limit
    )
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_response(reader):
    """Return (status, headers, body)."""
    head = await reader.readuntil(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")[:-2]
    headers = dict(line.split(": ", 1) for line in lines)
    return int(line.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def read_end(reader):
    """Return what arrives until the connection ends, however it does."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(1 << 16):
            received += piece
    return received


async def ask(server, context=None, request=GET):
    async with connected(server, context) as (reader, writer):
        writer.write(request)
        status, headers, body = await read_response(reader)
        return status, headers, json.loads(body)


async def refusal(server, request, context=None):
    """Return status and code of the error that answers a request, after which the connection ends."""
    async with connected(server, context) as (reader, writer):
        writer.write(request)
        status, headers, body = await read_response(reader)
        assert "close" == headers["connection"]
        assert b"" == await read_end(reader)
        return status, json.loads(body)["error"]["code"]


async def is_alive(server, context=None):
    return (200, ["/echo", 0]) == (await ask(server, context))[::2]


# HTTPS


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_https_is_served_to_who_trusts_the_authority(authority, files, version):
    async with serving(certificate(files)) as server:
        context = trusting(authority.file, minimum_version=version, maximum_version=version)
        assert await is_alive(server, context)


async def test_a_client_that_trusts_another_authority_refuses_the_server(files, tmp_path, authority):
    async with serving(certificate(files)) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(server, trusting(Authority(tmp_path / "stranger").file))
        assert await is_alive(server, trusting(authority.file))


@pytest.mark.parametrize("ciphers", ["AES128-SHA256:AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-SHA384"])
async def test_ciphers_without_forward_secrecy_or_authenticated_encryption_are_refused(authority, files, ciphers):
    context = trusting(authority.file, maximum_version=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(ciphers)
    async with serving(certificate(files)) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(server, context)
        assert await is_alive(server, trusting(authority.file))


async def test_tls_1_1_is_refused(authority, files):
    context = trusting(authority.file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serving(certificate(files)) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(server, context)
        assert await is_alive(server, trusting(authority.file))


async def test_plain_http_on_the_tls_port_is_told_to_use_https(authority, files):
    async with serving(certificate(files)) as server:
        assert (400, "tls_required") == await refusal(server, GET)
        assert await is_alive(server, trusting(authority.file))


async def test_garbage_on_the_tls_port_does_no_harm(authority, files):
    async with serving(certificate(files)) as server:
        for garbage in (b"\x16\x03\x01\x00\x05aaaaa", b"\x16" + bytes(5000), b"\x00" * 100, b""):
            async with connected(server) as (reader, writer):
                writer.write(garbage)
                writer.write_eof()
                await read_end(reader)
        assert await is_alive(server, trusting(authority.file))


async def test_tls_on_the_plain_port_is_refused(authority):
    async with serving() as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(server, trusting(authority.file))
        assert await is_alive(server)


async def test_new_connections_get_the_new_certificate_and_old_ones_live_on(authority, files, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    replacing = Authority(tmp_path / "replacing")
    async with serving(certificate(files)) as server, connected(server, trusting(authority.file)) as (reader, writer):
        files.key.write_text("no key")
        assert await is_alive(server, trusting(authority.file))
        assert await is_alive(server, trusting(authority.file))
        assert 1 == caplog.text.count("new certificates are not used, the old ones stay")
        new = replacing.issue("localhost")
        new.certificate.rename(files.certificate)
        assert await is_alive(server, trusting(authority.file))  # Half done: this certificate has another key.
        new.key.rename(files.key)
        assert await is_alive(server, trusting(replacing.file))
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(server, trusting(authority.file))
        writer.write(GET)
        assert 200 == (await read_response(reader))[0]
    assert 1 == caplog.text.count("new certificates are in use")


def test_a_certificate_that_is_not_valid_now_is_refused_and_its_expiry_is_told(authority):
    expired = authority.issue("localhost", lifetime=-DAY / 24)
    with pytest.raises(ConfigError, match=r"--https-cert .*: valid from"):
        certificate(expired)
    good = authority.issue("localhost", lifetime=DAY)
    with pytest.raises(ConfigError, match="valid from"):
        ServerCertificate(good.certificate, good.key, lambda: time.time() - 86400 * 100)
    [(name, seconds)] = certificate(good).expiries().items()
    assert "api" == name
    assert datetime.timedelta(hours=23) < datetime.timedelta(seconds=seconds - time.time()) <= DAY


def test_both_files_are_needed(files):
    assert read_server_certificate(None, None) is None
    with pytest.raises(ConfigError, match="both of --https-cert and --https-key"):
        read_server_certificate(files.certificate, None)
    with pytest.raises(ConfigError, match="No such file"):
        read_server_certificate(Path("/nowhere"), files.key)


# Clients that take their time


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"])
async def test_a_client_that_does_not_finish_its_tls_handshake_is_cut(authority, files, sent):
    async with serving(certificate(files), limits(handshake_seconds=0.2)) as server:
        async with connected(server) as (reader, writer):
            writer.write(sent)
            assert b"" == await read_end(reader)
        assert await is_alive(server, trusting(authority.file))


async def test_a_client_that_sends_nothing_is_cut():
    async with serving(bounds=limits(head_seconds=0.2)) as server:
        async with connected(server) as (reader, _):
            assert b"" == await read_end(reader)
        assert await is_alive(server)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_head_that_comes_byte_by_byte_is_cut(authority, files, tls):
    used, context = (certificate(files), trusting(authority.file)) if tls else (None, None)
    async with serving(used, limits(head_seconds=0.5, farewell_seconds=0.2)) as server:
        async with connected(server, context) as (reader, writer):

            async def trickle():
                with contextlib.suppress(ConnectionError):
                    for byte in b"GET /echo HTTP/1.1\r\n" + b"a: b\r\n" * 10**6:
                        writer.write(bytes([byte]))
                        await writer.drain()
                        await asyncio.sleep(0.01)

            trickling = asyncio.create_task(trickle())
            status, _, body = await read_response(reader)
            assert (408, "request_timeout") == (status, json.loads(body)["error"]["code"])
            assert b"" == await read_end(reader)
            trickling.cancel()
            await asyncio.gather(trickling, return_exceptions=True)
        assert [] == server.application.paths


async def test_a_body_that_does_not_come_is_cut_and_the_application_hears_it():
    async with serving(bounds=limits(body_seconds=0.2, farewell_seconds=0.2)) as server:
        request = b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n12345"
        assert (408, "request_timeout") == await refusal(server, request)
        while server._state.tasks:  # noqa: ASYNC110 - one that hangs makes this wait for ever.
            await asyncio.sleep(0.01)
        assert await is_alive(server)


async def test_an_idle_connection_is_cut_and_a_used_one_is_not():
    async with serving(bounds=limits(idle_seconds=0.6)) as server, connected(server) as (reader, writer):
        for _ in range(8):
            writer.write(GET)
            assert 200 == (await read_response(reader))[0]
            await asyncio.sleep(0.1)
        assert b"" == await read_end(reader)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_client_that_does_not_read_its_answer_is_cut(authority, files, tls):
    used, context = (certificate(files), trusting(authority.file)) if tls else (None, None)
    async with serving(used, limits(write_seconds=0.2, idle_seconds=0.5)) as server:

        def ask_and_not_read():
            with contextlib.ExitStack() as stack:
                client = stack.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # Or the kernel takes all of it.
                client.connect(("127.0.0.1", server.port))
                if context is not None:
                    client = stack.enter_context(context.wrap_socket(client, server_hostname="localhost"))
                client.sendall(GET.replace(b"echo", b"large"))
                cut.wait()

        cut = threading.Event()
        asking = asyncio.create_task(asyncio.to_thread(ask_and_not_read))
        while "/large" not in server.application.paths:  # noqa: ASYNC110 - it arrives soon.
            await asyncio.sleep(0.01)
        while server._state.connections:  # noqa: ASYNC110 - one that is kept makes this wait for ever.
            await asyncio.sleep(0.01)
        cut.set()
        await asking
        assert await is_alive(server, context)


async def test_a_request_that_takes_long_to_answer_is_not_cut():
    bounds = limits(head_seconds=0.2, body_seconds=0.2, idle_seconds=0.2)
    async with serving(bounds=bounds) as server, connected(server) as (reader, writer):
        writer.write(GET.replace(b"echo", b"wait"))
        await asyncio.sleep(0.8)
        server.application.go_on.set()
        status, _, body = await read_response(reader)
        assert (200, ["/wait", 0]) == (status, json.loads(body))


# Clients that take much


async def test_a_head_within_the_limit_is_taken_and_a_larger_one_is_not():
    async with serving(bounds=limits(farewell_seconds=0.2)) as server:
        for header_bytes, expected in ((LONG.head_bytes - 100, 200), (2 * LONG.head_bytes, 431)):
            request = b"GET /echo HTTP/1.1\r\nhost: a\r\na: " + b"b" * header_bytes + b"\r\n\r\n"
            assert expected == (await ask(server, request=request))[0]
        many = (
            b"GET /echo HTTP/1.1\r\nhost: a\r\n" + b"".join(b"a%d: b\r\n" % number for number in range(10**4)) + b"\r\n"
        )
        assert (431, "head_too_large") == await refusal(server, many)
        assert (431, "head_too_large") == await refusal(server, b"GET /" + b"a" * 2 * LONG.head_bytes)
        assert await is_alive(server)


async def test_a_head_without_end_is_refused_before_it_is_there():
    async with serving() as server, connected(server) as (reader, writer):
        writer.write(b"GET /echo HTTP/1.1\r\na: ")
        with contextlib.suppress(ConnectionError):
            while not reader._buffer:
                writer.write(b"b" * 1000)
                await writer.drain()
                await asyncio.sleep(0)
        assert 431 == (await read_response(reader))[0]
        assert [] == server.application.paths


@pytest.mark.parametrize(
    "body",
    [
        b"transfer-encoding: chunked\r\n\r\n" + b"1;a=" + b"b" * (16 << 20),
        b"transfer-encoding: chunked\r\n\r\n" + b"1000000\r\n" + b"b" * (16 << 20),
        b"content-length: 1000000000\r\n\r\n" + b"b" * (16 << 20),
    ],
    ids=["chunk extension", "chunk", "content-length"],
)
async def test_a_request_without_end_is_cut(body):
    async with serving(bounds=limits(farewell_seconds=0.2)) as server:
        async with connected(server) as (reader, writer):
            writer.write(b"POST /echo HTTP/1.1\r\nhost: a\r\n" + body)
            assert read_statuses(await read_end(reader)) in ([], [413])
        assert await is_alive(server)


async def test_connections_beyond_the_limit_take_the_place_of_the_idlest():
    async with serving(bounds=limits(connections=3)) as server, contextlib.AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(server)) for _ in range(3)]
        while len(server._state.connections) < 3:  # noqa: ASYNC110 - they are accepted soon.
            await asyncio.sleep(0.01)
        busy_reader, busy_writer = idle[0]
        busy_writer.write(GET.replace(b"echo", b"wait"))
        while not server.application.paths:  # noqa: ASYNC110 - it arrives soon.
            await asyncio.sleep(0.01)
        for _ in range(10):
            assert await is_alive(server)
        ends = [asyncio.create_task(read_end(each)) for each, _ in idle[1:]]
        ended, kept = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        assert [b""] * len(ended) == [each.result() for each in ended]
        for each in kept:
            each.cancel()
        server.application.go_on.set()
        assert 200 == (await read_response(busy_reader))[0]


async def test_where_all_connections_are_answered_a_further_one_is_closed():
    async with serving(bounds=limits(connections=1)) as server, connected(server) as (reader, writer):
        writer.write(GET.replace(b"echo", b"wait"))
        while not server.application.paths:  # noqa: ASYNC110 - it arrives soon.
            await asyncio.sleep(0.01)
        async with connected(server) as (further, _):
            assert b"" == await read_end(further)
        server.application.go_on.set()
        assert 200 == (await read_response(reader))[0]


async def test_where_there_are_too_many_connections_those_of_the_address_with_most_end():
    """The one that is alone at its address stays, though it is idle for longest."""
    async with serving(bounds=limits(connections=4)) as server, contextlib.AsyncExitStack() as stack:
        alone = await stack.enter_async_context(connected(server, local="127.0.0.2"))
        while len(server._state.connections) < 1:  # noqa: ASYNC110 - it is accepted soon.
            await asyncio.sleep(0.01)
        many = [await stack.enter_async_context(connected(server)) for _ in range(10)]
        ends = [asyncio.create_task(read_end(reader)) for reader, _ in many]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        assert await is_alive(server)
        for each in ends:
            each.cancel()
        alone[1].write(GET)
        assert 200 == (await read_response(alone[0]))[0]


async def test_unfinished_heads_of_one_address_leave_room_for_those_of_others():
    async with serving(bounds=limits(heads_bytes=6000)) as server, contextlib.AsyncExitStack() as stack:
        begun = GET[:-2] + b"a: " + b"b" * 1500
        many = [await stack.enter_async_context(connected(server)) for _ in range(3)]
        for _, writer in many:
            writer.write(begun)
        refused, _ = await asyncio.wait(
            [asyncio.create_task(read_response(reader)) for reader, _ in many], return_when=asyncio.FIRST_COMPLETED
        )
        assert [503] == [each.result()[0] for each in refused]
        assert ["heads"] == server.refused
        reader, writer = await stack.enter_async_context(connected(server, local="127.0.0.2"))
        writer.write(begun)
        await asyncio.sleep(0.05)
        writer.write(b"\r\n\r\n")
        assert 200 == (await read_response(reader))[0]


async def test_of_too_much_that_waits_for_slow_readers_the_slowest_of_the_largest_address_is_cut():
    async with serving(bounds=limits(unsent_bytes=1 << 10)) as server, contextlib.AsyncExitStack() as stack:
        request = GET.replace(b"echo", b"large")
        alone = await stack.enter_async_context(connected(server, local="127.0.0.2", limit=1 << 10))
        alone[1].write(request)
        while not any(each.unsent_bytes for each in server._connections()):  # noqa: ASYNC110 - it is answered soon.
            await asyncio.sleep(0.01)
        for _ in range(2):
            _, writer = await stack.enter_async_context(connected(server, limit=1 << 10))
            writer.write(request)
        while {"127.0.0.2"} != {each.address for each in server._connections()}:  # noqa: ASYNC110 - both are cut soon.
            await asyncio.sleep(0.01)
        assert ["unsent", "unsent"] == server.refused[:2]


async def test_silent_handshakes_do_not_keep_others_out(authority, files):
    async with serving(certificate(files), limits(connections=3)) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(connected(server))
        assert await is_alive(server, trusting(authority.file))


# Requests that are none, or too many at once


def read_statuses(received):
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


async def test_pipelined_requests_are_answered_in_order_and_only_so_many():
    async with serving() as server:
        async with connected(server) as (reader, writer):
            writer.write(b"".join(GET.replace(b"echo", b"%d" % number) for number in range(10)))
            answers = [json.loads((await read_response(reader))[2])[0] for _ in range(10)]
            assert [f"/{number}" for number in range(10)] == answers
        async with connected(server) as (reader, writer):
            writer.write(GET.replace(b"echo", b"wait") + GET * 10_000)
            while "/wait" not in server.application.paths:  # noqa: ASYNC110 - it arrives soon.
                await asyncio.sleep(0.01)
            server.application.go_on.set()
            # What was answered is clear: the connection ends after it.
            assert [200] * (1 + LONG.pipelined) == read_statuses(await read_end(reader))
        assert await is_alive(server)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /echo HTTP/1.1\r\na\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nhost: a\r\na : b\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nhost: a\r\na: b\r\n c\r\n\r\n",
        b"POST /echo HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /echo HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: b\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused(request_bytes):
    async with serving(bounds=limits(farewell_seconds=0.2)) as server:
        assert (400, "malformed_request") == await refusal(server, request_bytes)
        assert await is_alive(server)


async def test_a_broken_request_behind_a_good_one_ends_the_connection_after_the_good_ones_answer():
    async with serving() as server:
        for broken in (b"broken\r\n\r\n", b"POST /b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"):
            server.application.paths.clear()
            async with connected(server) as (reader, writer):
                writer.write(GET.replace(b"echo", b"wait") + broken)
                while "/wait" not in server.application.paths:  # noqa: ASYNC110 - it arrives soon.
                    await asyncio.sleep(0.01)
                server.application.go_on.set()
                assert [200] == read_statuses(await read_end(reader))
            assert ["/wait"] == server.application.paths
        assert await is_alive(server)


# Requests that other servers on the way change, or read otherwise

FIVE = {
    "without a body": (b"\r\n", 0),
    "by length": (b"content-length: 5\r\n\r\n12345", 5),
    "in chunks": (b"transfer-encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n", 5),
}


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
@pytest.mark.parametrize("form", FIVE)
@pytest.mark.parametrize("is_split", [False, True])
async def test_an_offer_to_upgrade_is_passed_over(protocol, form, is_split):
    offer = b"POST /echo HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: " + protocol + b"\r\n"
    sent, size = FIVE[form]
    head, end, body = sent.partition(b"\r\n\r\n")
    async with serving() as server, connected(server) as (reader, writer):
        for _ in range(2):
            if is_split and body:
                writer.write(offer + head + end)
                while not server._state.tasks:  # noqa: ASYNC110 - it arrives soon.
                    await asyncio.sleep(0.001)
                writer.write(body + GET)
            else:
                writer.write(offer + sent + GET)
            assert ["/echo", size] == json.loads((await read_response(reader))[2])
            assert ["/echo", 0] == json.loads((await read_response(reader))[2])


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        (b"", 400),
        (b"host: a\r\nhost: b\r\n", 400),
        (b"host: a\r\nHost: a\r\n", 400),
        (b"host: a b\r\n", 400),
        (b"host: a/b\r\n", 400),
        (b"host: user@a\r\n", 400),
        (b"host: a:x\r\n", 400),
        (b"host: a\r\n", 200),
        (b"host:\r\n", 200),
        (b"host: a.b-c_d:8000\r\n", 200),
        (b"host: [::1]:8000\r\n", 200),
    ],
)
async def test_one_good_host_is_needed(hosts, status):
    async with serving(bounds=limits(farewell_seconds=0.2)) as server:
        assert status == (await ask(server, request=b"GET /echo HTTP/1.1\r\n" + hosts + b"\r\n"))[0]


@pytest.mark.parametrize("hosts", [b"", b"host: a\r\n"])
async def test_http_1_0_needs_no_host_and_ends_the_connection(hosts):
    async with serving() as server, connected(server) as (reader, writer):
        writer.write(b"GET /echo HTTP/1.0\r\nconnection: keep-alive\r\n" + hosts + b"\r\n" + GET)
        assert [200] == read_statuses(await read_end(reader))


@pytest.mark.parametrize("version", [b"", b" HTTP/0.9", b" HTTP/2.0"])
async def test_other_versions_are_refused(version):
    async with serving(bounds=limits(farewell_seconds=0.2)) as server:
        request = b"GET /echo" + version + b"\r\nhost: a\r\n\r\n"
        assert (505, "unsupported_version") == await refusal(server, request + GET)
        assert [] == server.application.paths


async def test_a_stream_for_http_1_0_has_no_chunks_and_ends_with_the_connection():
    async def stream(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with serving() as server:
        server._config.loaded_app = stream
        async with connected(server) as (reader, writer):
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            head, _, body = (await read_end(reader)).partition(b"\r\n\r\n")
        assert (False, b"onetwo") == (b"transfer-encoding" in head.lower(), body)


async def test_a_stop_lets_requests_under_way_finish_and_ends_idle_connections():
    async with contextlib.AsyncExitStack() as stack:
        async with serving() as server:
            reader, writer = await stack.enter_async_context(connected(server))
            idle, _ = await stack.enter_async_context(connected(server))
            writer.write(GET.replace(b"echo", b"wait"))
            while not server.application.paths:  # noqa: ASYNC110 - it arrives soon.
                await asyncio.sleep(0.01)
        assert [200] == read_statuses(await read_end(reader))
        assert b"" == await read_end(idle)


async def test_a_taken_port_is_told():
    async with serving() as server:
        with pytest.raises(ConfigError, match="cannot listen on"):
            await HttpServer(Application(), "127.0.0.1", server.port, describe_error).run_until(asyncio.Event())


async def test_everywhere_answers_over_both_families():
    application, stopping = Application(), asyncio.Event()
    server = HttpServer(application, "::", 0, describe_error, limits=LONG)
    running = asyncio.create_task(server.run_until(stopping))
    while not server.port:
        assert not running.done(), running.result()
        await asyncio.sleep(0.001)
    for host in ("127.0.0.1", "::1") if socket.has_ipv6 else ("127.0.0.1",):
        reader, writer = await asyncio.open_connection(host, server.port)
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
    stopping.set()
    await running
