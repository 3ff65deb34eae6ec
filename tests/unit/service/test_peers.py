"""Who may connect to the port of peers: processes of this cluster, as who they are, however many strangers call."""

import asyncio
import contextlib
import itertools
from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_service.kernel.config import Secrets, read_cluster_name, read_secrets
from crdt_service.kernel.error import AuthenticationError, ConfigError, MalformedError, ServiceError, StrangerError
from crdt_service.net import handshake as handshake_module
from crdt_service.net.cluster import ClusterIdentity
from crdt_service.net.dial import open_channel
from crdt_service.net.handshake import BACKEND, NODE, Identity
from crdt_service.net.lobby import ADDRESS_MAX, Lobby
from crdt_service.net.refusal import LINES, MENTION_AGAIN_SECONDS, Refusals
from crdt_service.net.server import Server
from crdt_service.wire.frame import encode_frame
from crdt_service.wire.message import (
    PROTOCOL,
    PROTOCOL_BEFORE,
    Challenge,
    Hello,
    ReadRequest,
    ValueReply,
    decode_handshake,
    encode_handshake,
)

SECRET, OTHER = b"s" * 32, b"o" * 32
PRODUCTION = ClusterIdentity.fixed("production", SECRET)
STAGING = ClusterIdentity.fixed("staging", SECRET)
UNTOLD = ClusterIdentity.fixed("", SECRET)
LISTENER = Identity(NODE, "node-0", "node-0~1")
MEMBER = Identity(NODE, "node-1", "node-1~1")
OPERATOR = Identity(NODE, "operator", "")
DIALLER = Identity(BACKEND, "backend", "")


@contextlib.asynccontextmanager
async def serving(cluster=PRODUCTION, **options):
    server = Server(LISTENER, cluster, lambda other, request: ValueReply(request.id, other.role, b"v"), **options)
    port = await server.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await server.close()


async def is_served(port, cluster=PRODUCTION, identity=DIALLER, **options):
    other, channel = await open_channel("127.0.0.1", port, cluster, identity, **options)
    try:
        return (await channel.request(partial(ReadRequest, key="k"))).value == b"v" and other.node_id == "node-0"
    finally:
        channel.close()


async def refusal(port, cluster, identity=DIALLER, **options):
    with pytest.raises(ServiceError) as refused:
        await is_served(port, cluster, identity, **options)
    return refused.value


async def say(port, hello):
    """Begin a handshake by hand; return the listener's answer, None if it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(encode_frame(encode_handshake(hello)))
        size = int.from_bytes(await reader.readexactly(4), "big")
        return decode_handshake(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    finally:
        writer.close()


@pytest.mark.parametrize("identity", [DIALLER, MEMBER])
async def test_a_process_of_another_cluster_with_the_same_secret_is_refused_by_both_ends(caplog, identity):
    refusals = []
    async with serving(on_refusal=refusals.append) as port:
        error = await refusal(port, STAGING, identity)
        assert isinstance(error, StrangerError)
        assert "node node-0 is of the cluster 'production', this process of 'staging'" in str(error)
        await refusal(port, STAGING, identity)
        assert await is_served(port)
    assert ["other_cluster", "other_cluster"] == refusals
    said = f"{identity.role} {identity.node_id} is of the cluster 'staging', this process of 'production'"
    assert 1 == caplog.text.count(said)


async def test_a_member_that_names_no_cluster_is_refused_and_an_operator_is_not():
    async with serving() as port:
        assert isinstance(await refusal(port, UNTOLD), StrangerError)
        assert isinstance(await refusal(port, UNTOLD, MEMBER), StrangerError)
        assert await is_served(port, UNTOLD, OPERATOR)
        assert isinstance(await refusal(port, STAGING, OPERATOR), StrangerError)


async def test_an_operator_needs_the_secret_whatever_the_cluster():
    async with serving() as port:
        assert isinstance(await refusal(port, ClusterIdentity.fixed("", OTHER), OPERATOR), AuthenticationError)


def test_the_name_is_proved_and_not_only_said():
    def prove(cluster, listening):
        hello = Hello(PROTOCOL, NODE, "node-1", "node-1~1", bytes(32), cluster)
        challenge = Challenge("node-0", "node-0~1", bytes(32), bytes(32), listening)
        return handshake_module._prove(SECRET, b"dialler", hello, challenge)

    proofs = {prove(*names) for names in itertools.product(("", "production", "staging"), repeat=2)}
    assert 9 == len(proofs)


@pytest.mark.parametrize(
    "claim",
    [
        Identity(NODE, "node-1", "node-2~1"),
        Identity(NODE, "node-1", "node-1"),
        Identity(NODE, "node-1", "node-1~"),
        Identity(NODE, "node-1", "node-11~1"),
        Identity(NODE, "", "~1"),
        Identity(BACKEND, "backend", "node-1~1"),
        Identity(BACKEND, "node-1", "node-1~1"),
    ],
)
async def test_a_directory_of_another_node_cannot_be_claimed(claim):
    async with serving() as port:
        hello = Hello(PROTOCOL, claim.role, claim.node_id, claim.replica, bytes(32), "production")
        assert await say(port, hello) is None
        assert isinstance(await refusal(port, PRODUCTION, claim), MalformedError)
        assert await is_served(port, PRODUCTION, MEMBER)


async def test_a_process_of_the_release_before_is_accepted_without_a_name():
    async with serving() as port:
        answer = await say(port, Hello(PROTOCOL_BEFORE, NODE, "node-1", "node-1~1", bytes(32)))
        assert isinstance(answer, Challenge)
        assert answer.cluster == ""


async def test_a_process_of_the_release_before_is_refused_once_it_is_not_needed():
    async with serving(accepts_before=lambda other: other.role == BACKEND) as port:
        assert await say(port, Hello(PROTOCOL_BEFORE, NODE, "node-1", "node-1~1", bytes(32))) is None
        assert await say(port, Hello(PROTOCOL_BEFORE, BACKEND, "backend", "", bytes(32))) is not None


class Before:
    """A listener of the release before: it hangs up on another protocol, and hands on what comes in its own."""

    def __init__(self, port):
        self._port = port
        self.hellos = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_):
        self._server.close()

    async def _relay(self, reader, writer):
        size = await reader.readexactly(4)
        body = await reader.readexactly(int.from_bytes(size, "big"))
        hello = decode_handshake(body)
        self.hellos.append(hello)
        if hello.protocol == PROTOCOL_BEFORE:
            there, to = await asyncio.open_connection("127.0.0.1", self._port)
            to.write(size + body)
            copies = [asyncio.create_task(_copy(reader, to)), asyncio.create_task(_copy(there, writer))]
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            to.close()
        writer.close()


async def _copy(source, target):
    while data := await source.read(1 << 16):
        target.write(data)


async def test_two_processes_of_this_release_never_fall_back_to_the_protocol_without_a_name():
    """A listener that was full hangs up on the first attempt; the second, without a name, must not be let in."""
    async with serving() as port:
        between = Before(port)
        async with between as relayed:
            assert isinstance(await refusal(relayed, STAGING, MEMBER), MalformedError)
        assert [PROTOCOL, PROTOCOL_BEFORE] == [hello.protocol for hello in between.hellos]


async def test_a_listener_of_the_release_before_is_reached_in_its_protocol():
    hellos = []

    async def listen(reader, writer):
        async def read():
            return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))

        hellos.append(msgspec.msgpack.decode(await read()))
        if hellos[-1][1] == PROTOCOL_BEFORE:
            _, *fields = hellos[-1]
            hello = Hello(*fields)
            challenge = Challenge("node-0", "node-0~1", bytes(32), bytes(32))
            proof = handshake_module._prove(SECRET, b"listener", hello, challenge)
            writer.write(encode_frame(msgspec.msgpack.encode((2, "node-0", "node-0~1", bytes(32), proof))))
            answer = handshake_module._prove(SECRET, b"dialler", hello, challenge)
            assert [3, answer] == msgspec.msgpack.decode(await read())
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        other, channel = await open_channel("127.0.0.1", port, PRODUCTION, MEMBER)
        assert Identity(NODE, "node-0", "node-0~1", PROTOCOL_BEFORE) == other
        channel.close()
        assert isinstance(await refusal(port, PRODUCTION, MEMBER, may_fall_back=lambda: False), MalformedError)
    assert [PROTOCOL, PROTOCOL_BEFORE, PROTOCOL] == [hello[1] for hello in hellos]
    assert [7, 6, 7] == [len(hello) for hello in hellos]


@pytest.mark.parametrize(
    ("dialler", "listener"),
    [
        ((SECRET,), (SECRET, OTHER)),
        ((SECRET, OTHER), (SECRET,)),
        ((SECRET, OTHER), (OTHER, SECRET)),
        ((OTHER, SECRET), (SECRET, OTHER)),
        ((OTHER, SECRET), (OTHER,)),
        ((OTHER,), (OTHER, SECRET)),
    ],
)
async def test_secrets_overlap_at_each_step_of_a_rotation(dialler, listener):
    async with serving(ClusterIdentity.fixed("production", *listener)) as port:
        assert await is_served(port, ClusterIdentity.fixed("production", *dialler))


async def test_secrets_that_do_not_overlap_are_refused():
    async with serving(ClusterIdentity.fixed("production", SECRET)) as port:
        assert isinstance(await refusal(port, ClusterIdentity.fixed("production", OTHER)), AuthenticationError)


@pytest.mark.parametrize(
    ("content", "accepted"),
    [
        (SECRET, (SECRET,)),
        (b" \n" + SECRET + b"\r\n", (SECRET,)),
        (SECRET + b"\n" + OTHER + b"\n", (SECRET, OTHER)),
        (SECRET + b"\r\n" + OTHER, (SECRET, OTHER)),
        (SECRET + b"\nshort", (SECRET + b"\nshort",)),
        (b"\x80" * 32 + b"\n" + OTHER, (b"\x80" * 32 + b"\n" + OTHER,)),
        (b"\n".join([SECRET] * 3), (b"\n".join([SECRET] * 3),)),
    ],
)
def test_a_file_holds_one_secret_or_two_lines_of_text(tmp_path, content, accepted):
    path = tmp_path / "secret"
    path.write_bytes(content)
    assert Secrets(content.strip(), accepted) == read_secrets(path)


def test_files_are_followed_and_bad_ones_change_nothing(tmp_path, caplog):
    secret, name = tmp_path / "secret", tmp_path / "name"
    secret.write_bytes(SECRET)
    name.write_text("production\n")
    cluster = ClusterIdentity.of_files(secret, name)
    assert (SECRET,) == cluster.read_secrets().accepted
    secret.write_bytes(SECRET + b"\n" + OTHER)
    name.write_text("staging")
    assert ("staging", (SECRET, OTHER)) == (cluster.read_name(), cluster.read_secrets().accepted)
    secret.write_bytes(b"short")
    name.unlink()
    assert ("staging", (SECRET, OTHER)) == (cluster.read_name(), cluster.read_secrets().accepted)
    assert "new cluster secrets are not used" in caplog.text


@pytest.mark.parametrize("name", ["", "n" * 254, "a\nb", "ä"])
def test_what_is_no_name_is_refused(tmp_path, name):
    path = tmp_path / "name"
    path.write_text(name)
    with pytest.raises(ConfigError, match="is no name of a cluster"):
        read_cluster_name(path)


async def test_silent_strangers_lock_no_process_out():
    """More than any room holds, and they come again; those that prove the secret are let in at once."""
    refusals = []
    async with serving(on_refusal=refusals.append) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
        assert await is_served(port)
        assert await is_served(port, PRODUCTION, MEMBER)
        assert refusals.count("crowded_out") >= 300 - ADDRESS_MAX
        for _, writer in silent:
            writer.close()


async def test_who_is_connected_stays_while_strangers_come():
    async with serving() as port:
        _, channel = await open_channel("127.0.0.1", port, PRODUCTION, MEMBER)
        strangers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2 * ADDRESS_MAX)]
        assert b"v" == (await channel.request(partial(ReadRequest, key="k"))).value
        for _, writer in strangers:
            writer.close()
        channel.close()


def test_strangers_elsewhere_push_no_member_out():
    lobby = Lobby(lambda address: address == "member", address_max=4, strangers_max=8)
    assert lobby.enter("member", "slow") is None
    gone = [lobby.enter(f"10.0.0.{number}", number) for number in range(100)]
    assert [None] * 8 + list(range(92)) == gone
    assert 9 == len(lobby)
    assert [None, None, None, "slow"] == [lobby.enter("member", each) for each in "abcd"]


@given(st.lists(st.tuples(st.sampled_from("abcm"), st.booleans()), max_size=200))
def test_a_lobby_holds_what_it_may_and_who_came_last(steps):
    lobby = Lobby(lambda address: address == "m", address_max=3, strangers_max=5)
    inside = {}
    for number, (address, leaves) in enumerate(steps):
        if leaves and inside:
            guest = next(iter(inside))
            lobby.leave(inside.pop(guest), guest)
            continue
        gone = lobby.enter(address, number)
        inside[number] = address
        assert gone != number
        inside.pop(gone, None)
        assert len(inside) == len(lobby)
        assert all(list(inside.values()).count(each) <= 3 for each in "abcm")
        assert sum(each != "m" for each in inside.values()) <= 5


def test_a_stranger_is_counted_each_time_and_mentioned_once_an_hour(caplog):
    now, counted = [0.0], []
    refusals = Refusals(counted.append, lambda: now[0])
    for _ in range(100):
        refusals.refuse("10.0.0.7", "other_cluster", "it is of staging")
    assert ["other_cluster"] * 100 == counted
    assert 1 == caplog.text.count("connection from 10.0.0.7 refused: it is of staging")
    now[0] = MENTION_AGAIN_SECONDS
    refusals.refuse("10.0.0.7", "other_cluster", "it is of staging")
    assert 2 == caplog.text.count("connection from 10.0.0.7 refused: it is of staging")


def test_many_strangers_together_write_few_lines(caplog):
    refusals = Refusals(lambda reason: None, lambda: 0.0)
    for number in range(1000):
        refusals.refuse(f"10.0.{number >> 8}.{number & 255}", "silent", "nothing was proved")
    assert LINES.burst_limit == caplog.text.count("refused")
