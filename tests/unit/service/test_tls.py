"""Mutual TLS over real sockets in one process, with real certificates."""

import asyncio
import contextlib
import dataclasses
import logging
import random
import ssl
from functools import partial
from pathlib import Path

import pytest

from crdt_service.kernel.error import CertificateError, ConfigError, MalformedError
from crdt_service.net import server as server_module
from crdt_service.net.cluster import ClusterIdentity
from crdt_service.net.credentials import BACKEND_NAME, OPERATOR_NAME, Credentials, is_named, read_credentials
from crdt_service.net.dial import open_channel
from crdt_service.net.handshake import BACKEND, NODE, Identity
from crdt_service.net.mesh import Mesh, resolve_fixed
from crdt_service.net.server import Server
from crdt_service.wire.message import ReadRequest, ValueReply
from loadtests.authority import DAY, Authority

CLUSTER = ClusterIdentity.fixed("test", b"s" * 32)
LISTENER = Identity(NODE, "node-0", "node-0~1")
DIALLER = Identity(BACKEND, "backend", "")
READ = partial(ReadRequest, key="k")


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


@pytest.fixture
def stranger(tmp_path):
    return Authority(tmp_path / "stranger")


class Unchecked:
    """What `Credentials` would refuse at once, or has loaded before it expired."""

    def __init__(self, files):
        self._contexts = []
        for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
            context = ssl.SSLContext(protocol)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(files.authority)
            context.load_cert_chain(files.certificate, files.key)
            self._contexts.append(context)

    def listener(self):
        return self._contexts[0]

    def dialler(self):
        return self._contexts[1]


def credentials(files, name):
    return Credentials(files.certificate, files.key, files.authority, name)


def node(authority, name="node-0"):
    return credentials(authority.issue(name), name)


def backend(authority):
    return credentials(authority.issue(BACKEND_NAME), BACKEND_NAME)


@contextlib.asynccontextmanager
async def serving(used, identity=LISTENER, on_refusal=lambda reason: None):
    def answer(other, request):
        return ValueReply(request.id, other.node_id, b"v")

    server = Server(identity, CLUSTER, answer, used, on_refusal=on_refusal)
    port = await server.start("127.0.0.1", 0)
    try:
        yield port
        while server._serving:  # noqa: ASYNC110 - one that leaks makes this wait for ever.
            await asyncio.sleep(0.01)
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def connected(port, used, identity=DIALLER):
    _, channel = await open_channel("127.0.0.1", port, CLUSTER, identity, used)
    try:
        yield channel
    finally:
        channel.close()


async def fail(port, used, identity=DIALLER, error=CertificateError):
    """Return why an attempt to connect failed."""
    with pytest.raises(error) as failed:
        await open_channel("127.0.0.1", port, CLUSTER, identity, used)
    return str(failed.value)


def count_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def is_served(port, used):
    async with connected(port, used) as channel:
        return (await channel.request(READ)).value == b"v"


async def test_an_intermediate_authority_is_trusted_without_its_root_and_no_other_is(tmp_path, stranger):
    intermediate = Authority(tmp_path / "intermediate", is_intermediate=True)
    async with serving(node(intermediate)) as port:
        assert await is_served(port, backend(intermediate))
        await fail(port, backend(stranger))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_requests_are_answered_over_tls(authority, version):
    used = backend(authority)
    used.dialler().maximum_version = version
    async with serving(node(authority)) as port, connected(port, used) as channel:
        replies = await asyncio.gather(*(channel.request(READ) for _ in range(200)))
        assert [DIALLER.node_id] * 200 == [reply.type_name for reply in replies]


async def test_tls_1_1_is_refused(authority):
    used = Unchecked(authority.issue(BACKEND_NAME))
    used.dialler().set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        used.dialler().minimum_version = used.dialler().maximum_version = ssl.TLSVersion.TLSv1_1
    async with serving(node(authority)) as port:
        await fail(port, used)


async def test_a_node_with_a_longer_name_is_the_node(authority):
    files = authority.issue("node-0.jarvis.svc", "elsewhere")
    async with serving(credentials(files, "node-0")) as port:
        assert await is_served(port, backend(authority))


async def test_a_certificate_of_another_authority_is_refused_by_both_ends(authority, stranger, caplog):
    async with serving(node(authority)) as port:
        assert "certificate refused: self-signed certificate" in await fail(port, backend(stranger))
        trusting = dataclasses.replace(stranger.issue(BACKEND_NAME), authority=authority.file)
        assert "it may not trust this certificate" in await fail(port, Unchecked(trusting))
        assert await is_served(port, backend(authority))
    assert "refused: TLS handshake: certificate refused: unable to get local issuer certificate" in caplog.text


async def test_an_end_without_a_certificate_is_refused(authority, caplog):
    nobody = Unchecked(authority.issue(BACKEND_NAME))
    for number, protocol in enumerate((ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)):
        nobody._contexts[number] = ssl.SSLContext(protocol)
        nobody._contexts[number].check_hostname = False
        nobody._contexts[number].load_verify_locations(authority.file)
    async with serving(node(authority)) as port:
        assert "it may not trust this certificate" in await fail(port, nobody)
        assert await is_served(port, backend(authority))
    assert "peer did not return a certificate" in caplog.text
    async with serving(nobody) as port:
        await fail(port, backend(authority))


async def test_an_expired_certificate_is_refused_by_both_ends(authority, caplog):
    good = backend(authority)
    expired = Unchecked(authority.issue(BACKEND_NAME, lifetime=-DAY / 24))
    async with serving(node(authority)) as port:
        assert "it may not trust this certificate" in await fail(port, expired)
        assert await is_served(port, good)
    assert "certificate has expired" in caplog.text
    async with serving(Unchecked(authority.issue("node-0", lifetime=-DAY / 24))) as port:
        assert "certificate has expired" in await fail(port, good)


@pytest.mark.parametrize(
    ("names", "claim"),
    [
        ([BACKEND_NAME], Identity(NODE, "node-1", "node-1~1")),
        ([BACKEND_NAME], Identity(NODE, BACKEND_NAME, f"{BACKEND_NAME}~1")),
        (["node-2"], Identity(NODE, "node-1", "node-1~1")),
        (["*.node-1", "node-11", "x.node-1"], Identity(NODE, "node-1", "node-1~1")),
        (["node-1.*.svc", "*"], Identity(NODE, "node-1", "node-1~1")),
        (["node-1.svc.local"], Identity(NODE, "node-1.svc", "")),
        (["node-1"], Identity(NODE, "", "")),
        ([OPERATOR_NAME], Identity(NODE, OPERATOR_NAME, f"{OPERATOR_NAME}~1")),
        (["node-1"], Identity(BACKEND, "node-1", "")),
        ([f"x.{BACKEND_NAME}"], Identity(BACKEND, "backend", "")),
    ],
)
async def test_a_claim_that_the_certificate_does_not_bear_out_is_refused(authority, caplog, names, claim):
    async with serving(node(authority)) as port:
        await fail(port, Unchecked(authority.issue(*names)), claim)
        assert await is_served(port, backend(authority))
    assert "its certificate is for" in caplog.text


async def test_a_listener_that_is_another_node_is_refused(authority):
    async with serving(node(authority, "node-1")) as port:
        assert "node node-0: its certificate is for ['node-1']" in await fail(port, backend(authority))


async def test_plain_to_tls_is_told_apart(authority, caplog):
    async with serving(node(authority)) as port:
        assert "it may speak only TLS" in await fail(port, None, error=MalformedError)
        assert await is_served(port, backend(authority))
    assert "the other end speaks no TLS" in caplog.text


async def test_tls_to_plain_is_told_apart(authority, caplog):
    async with serving(None) as port:
        assert "the other end closed the connection" in await fail(port, backend(authority))
        assert await is_served(port, None)
    assert "the other end speaks TLS and this one does not" in caplog.text


async def test_a_silent_stranger_is_dropped(authority, monkeypatch):
    monkeypatch.setattr(server_module, "HANDSHAKE_SECONDS_MAX", 0.2)
    async with serving(node(authority)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            assert b"" == await reader.read()
        writer.close()


async def test_a_stranger_who_is_silent_after_tls_is_dropped(authority, monkeypatch):
    monkeypatch.setattr(server_module, "HANDSHAKE_SECONDS_MAX", 0.2)
    async with serving(node(authority)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=backend(authority).dialler())
        with contextlib.suppress(ConnectionError):
            assert b"" == await reader.read()
        writer.close()


async def test_garbage_does_no_harm_and_leaks_nothing(authority):
    async with serving(node(authority)) as port:
        assert await is_served(port, backend(authority))
        before = count_descriptors()
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", random.randbytes(5000), b"\x16\x03\x01\x00\x05aaaaa", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(garbage)
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
        assert await is_served(port, backend(authority))
        while count_descriptors() > before:  # noqa: ASYNC110 - it would wait for ever.
            await asyncio.sleep(0.01)


async def test_new_certificates_are_used_for_new_connections_and_broken_ones_are_not(authority, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    files = authority.issue("node-0")
    old = backend(authority)
    replacing = Authority(tmp_path / "replacing")
    async with serving(credentials(files, "node-0")) as port, connected(port, old) as before:
        files.key.write_text("no key")
        assert await is_served(port, old)
        assert await is_served(port, old)
        assert 1 == caplog.text.count("new certificates are not used, the old ones stay")
        new = replacing.issue("node-0")
        for target, source in zip(dataclasses.astuple(files), dataclasses.astuple(new), strict=True):
            source.rename(target)
        assert "certificate refused" in await fail(port, old)
        renewed = replacing.issue(BACKEND_NAME)
        used = credentials(dataclasses.replace(renewed, authority=files.authority), BACKEND_NAME)
        assert await is_served(port, used)
        assert b"v" == (await before.request(READ)).value
    assert "new certificates are in use" in caplog.text


async def test_a_refused_member_is_shown_and_logged_once(authority, stranger, caplog):
    trusting = dataclasses.replace(stranger.issue(BACKEND_NAME), authority=authority.file)

    async def ignore(_):
        pass

    refusals = []
    async with serving(node(authority), on_refusal=refusals.append) as port:
        mesh = Mesh(
            DIALLER,
            CLUSTER,
            resolve=resolve_fixed([("127.0.0.1", port)]),
            learn=dict,
            on_open=ignore,
            randomness=random.Random(1),
            credentials=Unchecked(trusting),
        )
        running = asyncio.create_task(mesh.run())
        while refusals.count("certificate_refused") < 3:  # noqa: ASYNC110 - it dials again and again.
            await asyncio.sleep(0.01)
        assert ["refused"] == [member.state for member in mesh.peers()]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert 1 == caplog.text.count("it may not trust this certificate")
    assert 1 == caplog.text.count("refused: TLS handshake: certificate refused")


def test_no_files_mean_no_tls():
    assert read_credentials(None, None, None, "node-0") is None


def test_files_that_do_not_go_together_are_named(authority, stranger, tmp_path):
    files, other = authority.issue("node-0"), stranger.issue("node-0")
    nowhere = tmp_path / "nowhere"
    for changed, message in (
        ({"certificate": nowhere}, f"--tls-cert {nowhere}, --tls-key {files.key}: No such file"),
        ({"authority": nowhere}, f"--tls-ca {nowhere}: No such file"),
        ({"key": other.key}, "key values mismatch"),
        ({"authority": files.key}, f"--tls-ca {files.key}: no certificate or crl found"),
        ({"authority": other.authority}, "certificate refused"),
    ):
        with pytest.raises(ConfigError) as refused:
            credentials(dataclasses.replace(files, **changed), "node-0")
        assert message in refused.value.message


def test_a_certificate_that_peers_would_refuse_is_refused_at_start(authority):
    with pytest.raises(ConfigError, match="certificate has expired"):
        credentials(authority.issue("node-0", lifetime=-DAY / 24), "node-0")
    with pytest.raises(ConfigError, match=r"none of its DNS names \['node-0'\] is node-1"):
        credentials(authority.issue("node-0"), "node-1")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("node-1", True),
        ("node-1.a.b", True),
        ("node-11", False),
        ("node-1.*", False),
        ("*", False),
        ("a.node-1", False),
    ],
)
def test_a_name_is_whole_or_the_first_label(name, expected):
    assert expected == is_named(frozenset([name]), "node-1")
