"""Feeds through the real HTTP server, over scripted nodes: clients that read slowly, leave, or ask for too much."""

import asyncio
import socket

import pytest

from crdt_service.access.room import Room
from crdt_service.api.application import Application
from crdt_service.api.errors import describe_error
from crdt_service.api.feed.page import Changes
from crdt_service.api.feed.ring import EVENTS_MAX
from crdt_service.net.http import HttpServer
from loadtests.cluster import free_port
from tests.unit.service.double import NullObserver
from tests.unit.service.test_feed import World

REQUEST = b"GET /v1/changes HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture
async def served():
    """(world, port) of a server that runs."""
    world, port, stopping = World(), free_port(), asyncio.Event()
    server = HttpServer(Application(Changes(world.hub).routes(), NullObserver()), "127.0.0.1", port, describe_error)
    running = asyncio.create_task(server.run_until(stopping))
    yield world, port
    world.hub.stop()
    stopping.set()
    await running


async def ask(port, buffer_bytes=None):
    """Open a feed; return (reader, writer) once it is answered."""
    client = socket.socket()
    if buffer_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    client.setblocking(False)
    while True:
        try:
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
            break
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(sock=client, limit=1 << 12)
    writer.write(REQUEST)
    return reader, writer, await reader.readuntil(b"\r\n\r\n")


async def until(reached):
    while not reached():  # noqa: ASYNC110 - nothing tells.
        await asyncio.sleep(0.01)


async def test_a_client_that_does_not_read_is_reset_and_goes_on(served):
    """Its share of the buffers on the way fills; meanwhile the ring goes on without it."""
    world, port = served
    reader, writer, _ = await ask(port, buffer_bytes=1 << 12)
    await reader.readuntil(b": live")
    for number in range(3 * EVENTS_MAX):
        world.nodes["a"].change(f"{number}/{'k' * 400}")
    await until(lambda: world.hub.ring.next == 3 * EVENTS_MAX)
    seen = b""
    while b"fell_behind" not in seen:
        seen = seen[-100:] + await reader.read(1 << 16)
    world.nodes["a"].change("after")
    while b'"key":"after"' not in seen:
        seen = seen[-100:] + await reader.read(1 << 16)
    writer.close()


async def test_a_client_that_leaves_is_forgotten(served):
    world, port = served
    _, writer, _ = await ask(port)
    await until(lambda: world.hub.count == 1)
    writer.close()
    await until(lambda: world.hub.count == 0)


async def test_one_feed_too_many_is_refused_for_some_time(served, monkeypatch):
    world, port = served
    monkeypatch.setattr(world.hub, "_room", Room("feeds", 1))
    _, first, opened = await ask(port)
    _, second, refused = await ask(port)
    assert opened.startswith(b"HTTP/1.1 200 ")
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 1\r\n" in refused
    first.close()
    second.close()


async def test_an_answer_that_streams_has_an_id_and_is_not_kept(served):
    _, port = served
    _, writer, head = await ask(port)
    assert b"\r\ncontent-type: text/event-stream\r\n" in head
    assert b"\r\ncache-control: no-store\r\n" in head
    assert b"\r\nx-request-id: " in head
    writer.close()
